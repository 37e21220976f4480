"""The class of every pixel of one image, from scores on a map that may be smaller than its canvas."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxvision.ops.resize import bilinear


def class_map(logits: Float[Array, "h w k"], canvas: tuple[int, int]) -> Int[Array, "y x"]:
    """The class with the largest logit at each pixel of the canvas; of equal ones that with the smaller number.

    Logits on a smaller map are first resized bilinearly (`resize.bilinear`), one class after the other, so that memory does
    not grow with their number; in float32 at least.
    """
    if logits.shape[:2] == tuple(canvas):
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    planes = jnp.moveaxis(logits, -1, 0).astype(jnp.promote_types(logits.dtype, jnp.float32))

    def enlarged(plane: Float[Array, "h w"]) -> Float[Array, "y x"]:
        return bilinear(plane[..., None], *canvas)[..., 0]

    def step(best: tuple[Array, Array], of: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        number, value = of[0], enlarged(of[1])
        larger = value > best[0]
        return (jnp.where(larger, value, best[0]), jnp.where(larger, number, best[1])), None

    first = (enlarged(planes[0]), jnp.zeros(canvas, jnp.int32))
    (_, found), _ = jax.lax.scan(step, first, (jnp.arange(1, len(planes), dtype=jnp.int32), planes[1:]))
    return found
