"""Reference boxes of detectors, `x0 y0 x1 y1` in pixels, in the order of the network's outputs: row, column, anchor.

They depend on shapes alone, so that they are NumPy, computed while tracing: constants of the program.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxvision.ops.options import COUNT, POSITIVE, allowed

Anchors = Float[np.ndarray, "n 4"]


@allowed(sizes=POSITIVE, ratios=POSITIVE)
def around_zero(sizes: Sequence[float | int], ratios: Sequence[float | int]) -> Float[np.ndarray, "k 4"]:
    """Anchors of every height-to-width ratio in every size, ratios first, rounded to whole pixels as torchvision has them.

    Sizes are the square roots of the areas.
    """
    height = np.sqrt(np.asarray(ratios, np.float32))
    width = 1 / height
    sides = np.asarray(sizes, np.float32)
    w, h = (each[:, None] * sides[None] for each in (width, height))
    return np.round(np.stack([-w, -h, w, h], -1).reshape(-1, 4) / 2).astype(np.float32)


@allowed(shape=COUNT._replace(length=2), stride=COUNT._replace(length=2))
def grid(shape: tuple[int, int], stride: tuple[int, int], cell: Float[np.ndarray, "k 4"]) -> Anchors:
    """The anchors of a cell, about the top-left corner of each cell of a feature map `rows, columns` (arXiv:1506.01497)."""
    rows, columns = (np.arange(n, dtype=np.float32) * step for n, step in zip(shape, stride, strict=True))
    y, x = np.meshgrid(rows, columns, indexing="ij")
    corners = np.stack([x, y, x, y], -1).reshape(-1, 1, 4)
    return (corners + cell[None]).reshape(-1, 4)


@allowed(canvas=COUNT._replace(length=2), ratios=POSITIVE)
def pyramid(
    shapes: Sequence[tuple[int, int]],
    canvas: tuple[int, int],
    sizes: Sequence[Sequence[float | int]],
    ratios: Sequence[float | int] = (0.5, 1.0, 2.0),
) -> list[Anchors]:
    """Those of every level of a feature pyramid (arXiv:1612.03144); the stride is the canvas by the level, rounded down.

    Raises ValueError unless every level has its sizes.
    """
    if len(shapes) != len(sizes):
        raise ValueError(f"{len(shapes)} levels of features and sizes for {len(sizes)}")
    return [
        grid(shape, (canvas[0] // shape[0], canvas[1] // shape[1]), around_zero(level, ratios))
        for shape, level in zip(shapes, sizes, strict=True)
    ]


@allowed(canvas=COUNT._replace(length=2), scales=POSITIVE, strides=POSITIVE)
def ssd_default_boxes(
    shapes: Sequence[tuple[int, int]],
    canvas: tuple[int, int],
    scales: Sequence[float | int],
    ratios: Sequence[Sequence[float | int]],
    strides: Sequence[int],
) -> Anchors:
    """The default boxes of SSD (arXiv:1512.02325, section 2.2); none wider or higher than the canvas, none cut at it.

    Args:
      shapes: rows and columns of each feature map.
      canvas: height and width in pixels.
      scales: of the boxes by the canvas, of each map, and one more for the second square of the last.
      ratios: of each map, beside the two squares: each stands for itself and its inverse.
      strides: of each map in pixels.

    Raises:
      ValueError: unless there is a scale, a list of ratios and a stride for every map, and one scale more.
    """
    maps = len(shapes)
    if (len(scales), len(ratios), len(strides)) != (maps + 1, maps, maps):
        raise ValueError(
            f"{maps} maps need {maps + 1} scales, {maps} lists of ratios and {maps} strides; got {len(scales)},"
            f" {len(ratios)} and {len(strides)}"
        )
    height, width = canvas
    extent = np.asarray([width, height, width, height], np.float32)
    boxes = [
        _default_boxes(shapes[k], (height / strides[k], width / strides[k]), scales[k], scales[k + 1], ratios[k])
        for k in range(maps)
    ]
    return (np.concatenate(boxes) * extent).astype(np.float32)


def _default_boxes(
    shape: tuple[int, int], cells: tuple[float, float], scale: float, following: float, ratios: Sequence[float | int]
) -> Anchors:
    """Those of one map, as fractions of the canvas."""
    between = np.sqrt(scale * following)
    sides = [(scale, scale), (between, between)]
    for ratio in ratios:
        w, h = scale * np.sqrt(ratio), scale / np.sqrt(ratio)
        sides += [(w, h), (h, w)]
    half = np.clip(np.asarray(sides, np.float32), 0, 1)[None] / 2
    y, x = np.meshgrid(*((np.arange(n) + 0.5) / c for n, c in zip(shape, cells, strict=True)), indexing="ij")
    centre = np.stack([x, y], -1).reshape(-1, 1, 2).astype(np.float32)
    return np.concatenate([centre - half, centre + half], -1).reshape(-1, 4)


@allowed(canvas=COUNT._replace(length=2), scales=POSITIVE._replace(pair=True))
def tensorflow_default_boxes(
    shapes: Sequence[tuple[int, int]], canvas: tuple[int, int], scales: tuple[float, float] = (0.2, 0.95)
) -> Anchors:
    """The default boxes of TensorFlow's SSDs: evenly spread scales, ratios 1, 2, 1/2, 3, 1/3, and a larger square.

    The first map has three a cell, a square of half the least scale and the ratios 2 and 1/2. Cells divide the canvas
    evenly, so that their stride need not be whole; scales are fractions of its shorter side; nothing is cut.
    """
    ratios = (1.0, 2.0, 0.5, 3.0, 0.3333)
    evenly = [*np.linspace(*scales, len(shapes)), 1.0]
    first = [(scales[0] / 2, 1.0), (scales[0], 2.0), (scales[0], 0.5)]
    cells = [
        first if number == 0 else [*((scale, ratio) for ratio in ratios), (np.sqrt(scale * evenly[number + 1]), 1.0)]
        for number, scale in enumerate(evenly[:-1])
    ]
    extent = np.asarray([canvas[1], canvas[0]], np.float64)
    boxes = []
    for (rows, columns), cell in zip(shapes, cells, strict=True):
        sides = np.asarray([(scale * np.sqrt(ratio), scale / np.sqrt(ratio)) for scale, ratio in cell])
        y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
        centre = np.stack([x, y], -1).reshape(-1, 1, 2) * extent
        half = sides * min(canvas) / 2
        boxes.append(np.concatenate([centre - half, centre + half], -1).reshape(-1, 4))
    return np.concatenate(boxes).astype(np.float32)
