"""Masks that were cut out at their boxes, moved with their image: their frames move, and cells beyond a border are cleared.

Nothing is resampled. A cell is shown where its centre is, so that at a border such a mask is right to half a cell.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from jaxvision.ops import homography, masks
from jaxvision.types import CutMasks, Objects


def moved(cut: CutMasks, scale: Float[Array, "*#b 2"], shift: Shaped[Array, "*#b 2"]) -> CutMasks:
    """Masks whose points, x and y, were moved to `point * scale + shift`."""
    scale, shift = (jnp.concatenate([each, each], -1).astype(cut.frames.dtype) for each in (scale, shift))
    return cut.replace(frames=cut.frames * scale + shift)


def visible(
    cut: CutMasks, windows: Shaped[Array, "#n 4"], dtype
) -> tuple[CutMasks, Float[Array, "n 4"], Bool[Array, "n"]]:
    """What is left of the masks of an image in windows `x0 y0 x1 y1`, the smallest boxes around it, and whether it is enough.

    Enough is anything of a mask that nothing was cut off, else a pixel in width and in height.
    """
    windows = windows.astype(dtype)
    whole, _ = masks.boxes_around(cut, dtype)
    uncut = jnp.abs(homography.cut_boxes_at(whole, windows)[0] - whole).max(1) < homography.WHOLE
    cut = masks.cut_at(cut, windows)
    boxes, nonempty = masks.boxes_around(cut, dtype)
    left, _ = homography.cut_boxes_at(boxes, windows)
    wide = (left[:, 2:] - left[:, :2] >= homography.FEWEST_PIXELS).all(1)
    return cut, left, nonempty & (uncut | wide)


def refuse(target: object, name: str, who: str) -> None:
    """Checks that a target has no such masks.

    Raises:
      ValueError: if it has: what was cut out at an upright box can't be turned or bent with its image.
    """
    if isinstance(target, dict):
        for key, each in target.items():
            refuse(each, f"{name}[{key!r}]", who)
    elif isinstance(target, Objects) and isinstance(target.masks, CutMasks):
        raise ValueError(
            f"{who} turns or bends the image, and {name}.masks are cut out at their boxes; allowed: masks of the canvas, "
            'objects(rows, masks="canvas") or, as bits, objects(rows, masks="bits")'
        )
