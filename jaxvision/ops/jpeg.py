"""JPEG's loss of detail: the quantisation of 8x8 cosine transforms (ITU-T T.81)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from jaxvision.ops.levels import as_float, as_levels
from jaxvision.ops.options import Bound, allowed

LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
"""Steps of the 64 coefficients of luminance at quality 50 (T.81, table K.1)."""
CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
"""Steps of the 64 coefficients of the two colour differences at quality 50 (T.81, table K.2)."""


@allowed(quality=Bound(1, 100))
def jpeg(
    image: Shaped[Array, "h w c"], size: Int[Array, "2"], quality: Shaped[Array, ""] | int
) -> Shaped[Array, "h w c"]:
    """The image as a JPEG file of this quality (1-100, the scale of libjpeg) would give it back.

    Colour is kept at full resolution (4:4:4). The blocks at the border repeat the outermost pixels of the content, the
    top-left `size`. The result has the type of the image; what it has outside the content is of no meaning.

    Raises:
      ValueError: for another number of channels than 1 (luminance alone) or 3.
    """
    if image.shape[-1] not in (1, 3):
        raise ValueError(f"jpeg of an image of {image.shape[-1]} channels; allowed are 1 and 3")
    height, width, channels = image.shape
    rows, columns = (_repeated(image.shape[axis], size[axis]) for axis in (0, 1))
    levels = as_float(image)[rows][:, columns]
    planes = _to_ycc(levels) if channels == 3 else levels
    tables = jnp.asarray([LUMINANCE, CHROMINANCE, CHROMINANCE][:channels], jnp.int32).reshape(channels, 8, 8)
    kept = _quantised(jnp.round(planes), _steps(tables, quality).astype(levels.dtype))
    kept = jnp.clip(jnp.round(kept), 0, 255)
    return as_levels((_from_ycc(kept) if channels == 3 else kept)[:height, :width], image.dtype)


def _repeated(length: int, extent: Int[Array, ""]) -> Int[Array, "n"]:
    """Positions of whole blocks, the last one of the content again and again beyond it."""
    return jnp.minimum(jnp.arange(-(-length // 8) * 8, dtype=extent.dtype), jnp.maximum(extent - 1, 0))


def _steps(tables: Int[Array, "c 8 8"], quality: Shaped[Array, ""] | int) -> Int[Array, "c 8 8"]:
    quality = jnp.clip(jnp.round(jnp.asarray(quality, jnp.float32)), 1, 100).astype(jnp.int32)
    scale = jnp.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return jnp.clip((tables * scale + 50) // 100, 1, 255)


def _quantised(planes: Float[Array, "h w c"], steps: Float[Array, "c 8 8"]) -> Float[Array, "h w c"]:
    height, width, channels = planes.shape
    blocks = (planes - 128).reshape(height // 8, 8, width // 8, 8, channels)
    cosine = jnp.asarray(COSINE, planes.dtype)
    coefficients = jnp.einsum("uy,aybxc,vx->abcuv", cosine, blocks, cosine, precision=jax.lax.Precision.HIGHEST)
    eighths = jnp.round(8 * coefficients) / 8  # as exact as libjpeg keeps them; it rounds halves away from zero
    kept = jnp.sign(eighths) * jnp.floor(jnp.abs(eighths) / steps[None, None] + 0.5) * steps[None, None]
    back = jnp.einsum("uy,abcuv,vx->aybxc", cosine, kept, cosine, precision=jax.lax.Precision.HIGHEST)
    return back.reshape(height, width, channels) + 128


def _cosine() -> np.ndarray:
    """The orthonormal cosine transform: row u of frequency u."""
    u, x = np.mgrid[:8, :8]
    return np.where(u == 0, np.sqrt(1 / 8), 1 / 2) * np.cos((2 * x + 1) * u * np.pi / 16)


COSINE = _cosine()


def _to_ycc(levels: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
    red, green, blue = (levels[..., i] for i in range(3))
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    return jnp.stack([luminance, 128 + (blue - luminance) / 1.772, 128 + (red - luminance) / 1.402], axis=-1)


def _from_ycc(planes: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
    luminance, b, r = planes[..., 0], planes[..., 1] - 128, planes[..., 2] - 128
    green = luminance - (0.114 * 1.772 / 0.587) * b - (0.299 * 1.402 / 0.587) * r
    return jnp.stack([luminance + 1.402 * r, green, luminance + 1.772 * b], axis=-1)
