"""Grey levels, 0-255: as floats for arithmetic, and back to the type that they came in."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def as_float(image: Shaped[Array, "*d"]) -> Float[Array, "*d"]:
    """Pixel values in float32, or in the float type of the image if that is wider."""
    wide = jnp.issubdtype(image.dtype, jnp.floating) and image.dtype.itemsize > 4
    return image if wide else image.astype(jnp.float32)


def as_levels(values: Float[Array, "*d"], dtype) -> Shaped[Array, "*d"]:
    """`values` cut to 0-255; rounded to the nearest whole level where `dtype` holds whole numbers only."""
    cut = jnp.clip(values, 0, 255)
    return (cut if jnp.issubdtype(dtype, jnp.floating) else jnp.round(cut)).astype(dtype)
