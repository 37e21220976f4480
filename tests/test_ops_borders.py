"""U-Net's weights of borders against SciPy's distances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from jaxvision.ops.borders import border_weights

pytestmark = pytest.mark.usefixtures("float64")


def discs(seed, count, height=48, width=61):
    random, instances = np.random.default_rng(seed), np.zeros((height, width), np.int32)
    y, x = np.mgrid[:height, :width]
    for number in range(1, count + 1):
        centre, radius = random.uniform(0, [height, width]), random.uniform(1, 9)
        instances[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = number
    return instances


def by_scipy(instances, w0, sigma, balance):
    numbers = [n for n in np.unique(instances) if n]
    far = np.full(instances.shape, np.inf)
    distances = [far, far, *(ndimage.distance_transform_edt(instances != n) for n in numbers)]
    d1, d2 = np.sort(distances, 0)[:2]
    border = w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))
    return np.where(instances > 0, balance[1], balance[0] + border)


@pytest.mark.parametrize(("w0", "sigma", "balance"), [(10, 5, (1, 1)), (3.5, 1.5, (0.4, 2.0))])
def test_weights_are_those_of_scipys_distances(w0, sigma, balance):
    weights = jax.jit(lambda instances: border_weights(instances, w0, sigma, balance))
    for seed, count in enumerate((0, 1, 2, 25)):
        instances = discs(seed, count)
        assert_allclose(weights(instances), by_scipy(instances, w0, sigma, balance), rtol=0, atol=1e-11)


def test_two_cells_side_by_side():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("strict"):
        found = jax.jit(border_weights)(jnp.int32([[1, 0, 2]]))
        assert found.dtype == jnp.float32
    assert_allclose(found, [[1, 1 + 10 * np.exp(-(2**2) / 50), 1]], rtol=1e-6)
    assert_array_equal(border_weights(jnp.int32([[1, 0, 1]])), 1)


def test_what_cannot_be_is_refused():
    for options, told in [({"sigma": 0}, "sigma=0"), ({"w0": -1}, "w0=-1"), ({"balance": (1,)}, "balance=")]:
        with pytest.raises(ValueError, match=told):
            border_weights(jnp.zeros((2, 2), jnp.int32), **options)
