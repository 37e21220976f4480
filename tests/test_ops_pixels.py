import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.ops import pixels


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_normalise_equals_numpy_inside_and_is_zero_outside(dtype):
    image = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    found = pixels.normalise(jnp.asarray(image), jnp.array([4, 5]), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), dtype)
    expected = (image.astype(np.float64) - [1, 2, 3]) / [4, 5, 6]
    expected[4:] = expected[:, 5:] = 0
    assert found.dtype == dtype
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=1e-6 if dtype == jnp.float32 else 1e-2)


def test_mean_and_std_of_the_wrong_number_are_named():
    image, size = jnp.zeros((2, 2, 1), jnp.uint8), jnp.array([2, 2])
    with pytest.raises(ValueError, match=r"the image has 1, given are \(1.0, 2.0, 3.0\)"):
        pixels.normalise(image, size, (1.0, 2.0, 3.0), 1.0)
