import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvision.data.samples import photos_dir
from jaxvision.ops.jpeg import jpeg

FULL_COLOUR = 0


def by_pil(image, quality):
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "jpeg", quality=quality, subsampling=FULL_COLOUR)
    return np.asarray(Image.open(file)).reshape(image.shape)


@pytest.mark.parametrize("size", [(64, 72), (61, 67), (24, 19)])
@pytest.mark.parametrize("quality", [5, 49, 50, 90, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_equals_a_file_written_by_pil(size, quality, channels):
    image = np.asarray(Image.open(photos_dir() / "coffee.jpg").convert("RGB").resize(size[::-1]))[..., :channels]
    canvas = np.random.default_rng(0).integers(0, 256, (70, 75, channels), dtype=np.uint8)
    canvas[: size[0], : size[1]] = image
    with jax.numpy_dtype_promotion("strict"):
        found = jax.jit(jpeg)(jnp.asarray(canvas), jnp.int32(size), jnp.int32(quality))
    assert found.dtype == jnp.uint8
    apart = np.abs(np.asarray(found)[: size[0], : size[1]].astype(int) - by_pil(image, quality))
    assert apart.mean() < 0.35  # libjpeg computes in whole numbers: a coefficient between two steps may go either way
    assert np.mean(apart > 2) < 0.02
    if quality < 100:
        assert np.abs(image.astype(int) - by_pil(image, quality)).mean() > 2 * apart.mean()


def test_four_channels_are_refused():
    with pytest.raises(ValueError, match="4 channels; allowed are 1 and 3"):
        jpeg(jnp.zeros((8, 8, 4)), jnp.int32([8, 8]), 50)
