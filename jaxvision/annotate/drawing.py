"""Objects as SVG draws them on a photograph: outlines of masks, and colours of classes."""

from functools import lru_cache
from typing import Any

import numpy as np

from jaxvision.formats import rle
from jaxvision.formats.labelled import Segmentation
from jaxvision.masks import runs
from jaxvision.masks.polygons import edges
from jaxvision.masks.runs import Runs

LONGEST_SIDE = 1024
"""Pixels of the longer side of the grid on which run lengths are outlined: a screen shows no more."""
BRIGHT = (
    *("#5cc8ff", "#ffb547", "#4fd6a0", "#f4e04d", "#ff8f66"),
    *("#d7a0ff", "#9be15d", "#ff9ec4", "#7ad7d2", "#c8b98f"),
)
"""The first colours: seen on dark ground and, with a dark line beside them, on bright; black text can be read on them."""
Path = str
"""The `d` of an SVG path: absolute corners `x y`, to be filled by the even-odd rule."""


def colour(number: int) -> str:
    """The colour of the class of this number, as CSS writes it."""
    if number < len(BRIGHT):
        return BRIGHT[number]
    return f"hsl({round(number * 137.508) % 360} 85% {72 if number % 2 else 64}%)"


@lru_cache(4096)
def path(mask: Segmentation) -> Path:
    """The outline of a mask, in pixels of the image."""
    return closed(outlines(mask) if isinstance(mask, Runs) else mask)


def outlines(mask: Runs, longest: int = LONGEST_SIDE) -> list[list[float]]:
    """Closed outlines of a mask in pixels of its image, holes too; of a large image not every pixel is seen.

    Of run lengths that do not add up to the image there is none.

    Args:
      mask: to be outlined.
      longest: pixels of the longer side of the grid of pixels that are seen.
    """
    try:
        rle.runs(mask.coco(), mask.size)
    except ValueError:
        return []
    x0, y0, x1, y1 = map(int, runs.box(mask))
    step = -(-max(mask.size) // longest)
    pixels = runs.columns(mask, x0, x1)[y0:y1:step, ::step]
    return [(np.reshape(each, (-1, 2)) * step + (x0, y0)).reshape(-1).tolist() for each, _ in edges(pixels)]


def closed(polygons: Any, scale: float = 1.0) -> Path:
    """The path of polygons `x y x y ...`, each number times `scale`, with one decimal."""
    numbers = ([_short(side * scale) for side in each] for each in polygons)
    corners = ("L".join(f"{x} {y}" for x, y in zip(each[::2], each[1::2], strict=True)) for each in numbers)
    return "".join(f"M{each}Z" for each in corners)


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
