"""The content of an image continued by its reflection, against NumPy's `pad`."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from jaxvision.ops.mirror import mirrored


@pytest.mark.parametrize("size", [(7, 5), (1, 4), (2, 2), (9, 8)])
@pytest.mark.parametrize("before", [0, 3, 20])
def test_it_is_numpys_reflection_of_the_content_alone(size, before):
    canvas = np.random.default_rng(0).standard_normal((9, 8, 2))
    canvas[size[0] :], canvas[:, size[1] :] = np.nan, np.nan
    extent = (size[0] + before + 17, size[1] + before + 30)
    content = canvas[: size[0], : size[1]]
    pads = [(before, after - before - side) for after, side in zip(extent, size, strict=True)]
    found = mirrored(jnp.asarray(canvas), jnp.asarray(size), before, extent)
    assert_array_equal(found, np.pad(content, [*pads, (0, 0)], mode="reflect").astype(np.float32))
