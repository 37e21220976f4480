"""Positions of a vision transformer for images of another size than it was trained on."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.pretrained.strict import Path, Source, Sources
from jaxvision.types import Variables

PLACE = ("params", "positions")
"""Where a `ViT` has them: `1 n+1 d`, those of the class token first."""


def resized(positions: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Positions `1 n+1 d` of a square of patches, interpolated for `grid` (rows, columns) of them.

    Bicubic with antialiasing, as timm's `resample_abs_pos_embed`; those of the class token stay.

    Raises:
        ValueError: if the n patches are no square.
    """
    count, width = positions.shape[1] - 1, positions.shape[2]
    side = round(count**0.5)
    if side**2 != count:
        raise ValueError(f"the positions of {count} patches are not those of a square image")
    patches = jnp.asarray(positions[:, 1:], jnp.float32).reshape(1, side, side, width)
    shape = (1, *grid, width)
    patches = patches if grid == (side, side) else jax.image.resize(patches, shape, "bicubic", antialias=True)
    return np.concatenate([positions[:, :1], np.asarray(patches, positions.dtype).reshape(1, -1, width)], axis=1)


def for_grid(sources: Sources, grid: tuple[int, int]) -> Sources:
    """The name map of a `ViT` whose images have `grid` patches (rows, columns), for weights of another size.

    `start(for_grid(timm.vit_sources, (24, 24)), "vit_base_patch16_224.safetensors")` is for 384 pixels.
    """

    def found(variables: Variables) -> Mapping[Path, Source]:
        given = sources(variables)
        turn = given[PLACE].convert
        return {**given, PLACE: Source(given[PLACE].name, lambda array: resized(turn(array), grid))}

    return found
