"""Large images in overlapping tiles, each seen as an image of its own, and what is predicted for each put together.

All tiles have one size, so that the network is compiled once, and memory is that of a tile and of the result. Tiles start at
multiples of 32 pixels, where the cells of all maps of a network that sees pixels as they are start too: so what it computes
for a pixel far enough from the edges of a tile is what it would compute in the whole image.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, product, repeat
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxvision.data.decode import pixels_of
from jaxvision.errors import ConfigError
from jaxvision.masks.paste import run_lengths
from jaxvision.masks.seams import Found, joined
from jaxvision.types import Canvas, Detections, PixelScores, Prediction

STEP = 32
"""Tiles start at multiples of it."""
BLENDED = 32
"""Pixels in the middle of an overlap, or a quarter of it if that is less, along which one tile gives way to the next."""

Preprocessing = Callable[[bytes | np.ndarray], Canvas]
Part = tuple[Canvas, Prediction]
"""A tile as it was shown, and its prediction, the arrays NumPy's."""
Predict = Callable[[Iterable[Canvas]], Iterator[Part]]
"""From tiles to the prediction of each, in order."""


class Tiling(NamedTuple):
    """How a large image is cut."""

    size: int
    """Side of a tile, in pixels of the image."""
    overlap: int
    """Pixels that neighbours share, at least. Of these the outer three eighths of each tile, where it sees least of what is
    around, have no part in scores of pixels."""

    @property
    def step(self) -> int:
        """Pixels from one tile to the next."""
        return (self.size - self.overlap) // STEP * STEP


def checked(size: int, overlap: int | None = None) -> Tiling:
    """Tiles of this size, which overlap by so many pixels, by a quarter unless that is given.

    Raises:
      ConfigError: for an overlap below 0, or one that leaves less than 32 pixels from tile to tile.
    """
    tiling = Tiling(size, size // 4 if overlap is None else overlap)
    if tiling.overlap < 0 or tiling.step < STEP:
        raise ConfigError(
            f"tiles of {size} pixels that overlap by {tiling.overlap}: allowed are sizes from {STEP}, and overlaps from 0 "
            f"that leave {STEP} or more from tile to tile"
        )
    return tiling


def whole(data: bytes | np.ndarray) -> Canvas:
    """An image in its own size, as its own canvas; raises ValueError for what is no image."""
    pixels = pixels_of(data)
    return Canvas(pixels, pixels.shape[:2], pixels.shape[:2])


def tiled(
    predict: Predict, preprocessing: Preprocessing, tiling: Tiling, score_threshold: float = 0.0
) -> Callable[[np.ndarray], Prediction]:
    """From the pixels of an image to the prediction for it as its own canvas, put together from tiles.

    Scores of pixels are resized to the pixels of the image and blended; the score of every class at every pixel is kept, 4
    bytes each. Objects are joined (`masks.seams`), their masks as run lengths.

    Args:
      predict: of the tiles.
      preprocessing: from the pixels of a tile to its canvas.
      tiling: how the image is cut.
      score_threshold: objects with a lower score are left out.

    Returns:
      A function that raises ConfigError for predictions of another type than `PixelScores` and `Detections`.
    """

    def of_image(pixels: np.ndarray) -> Prediction:
        size = pixels.shape[:2]
        rows, columns = (starts(extent, tiling) for extent in size)
        corners = list(product(rows, columns))
        parts = predict(_placed(pixels, corner, tiling, preprocessing) for corner in corners)
        first = next(parts)
        if isinstance(first[1], PixelScores):
            return _blended(chain([first], parts), rows, columns, tiling, size)
        if isinstance(first[1], Detections):
            return _joined(chain([first], parts), corners, tiling, size, score_threshold)
        raise ConfigError(
            f"predictions of type {type(first[1]).__name__} can't be put together from tiles; those of type PixelScores "
            "and Detections can"
        )

    return of_image


def starts(extent: int, tiling: Tiling) -> list[int]:
    """First pixels of the tiles along a side; the last tile may end less than 32 pixels beyond it, or is the only one."""
    last = max(-(-(extent - tiling.size) // STEP) * STEP, 0)
    return [*range(0, last, tiling.step), last]


def _placed(pixels: np.ndarray, corner: tuple[int, int], tiling: Tiling, preprocessing: Preprocessing) -> Canvas:
    """A tile on its canvas, which knows its place in the image.

    Where the tile goes on beyond the image, the pixels at the border are repeated, so that every tile is resized alike; they
    are no content of the canvas.
    """
    (top, left), size = corner, pixels.shape[:2]
    part = pixels[top : top + tiling.size, left : left + tiling.size]
    beyond = [(0, tiling.size - side) for side in part.shape[:2]]
    canvas = preprocessing(np.pad(part, [*beyond, (0, 0)][: part.ndim], "edge"))
    (across, down), (x, y) = canvas.to_file()
    height, width = (
        min(max(round((side - shift) / scale), 1), most)
        for side, shift, scale, most in zip(part.shape[:2], (y, x), (down, across), canvas.size, strict=True)
    )
    window = (left + x, top + y, left + x + across * width, top + y + down * height)
    return Canvas(canvas.image, (height, width), size, canvas.given, window)


def _blended(
    parts: Iterable[Part], rows: Sequence[int], columns: Sequence[int], tiling: Tiling, size: tuple[int, int]
) -> PixelScores:
    """Scores of the pixels of an image, those of tiles that show a pixel weighted by how far it is from their edges."""
    down, across = (weights(each, tiling, extent) for each, extent in zip((rows, columns), size, strict=True))
    total = np.zeros((*size, 0), np.float32)
    for (top, left), (canvas, scores) in zip(product(rows, columns), parts, strict=True):
        weight = down[top][:, None] * across[left][None]
        part = _in_file(scores.logits, canvas, (top, left), weight.shape)
        if not total.shape[2]:
            total = np.zeros((*size, part.shape[2]), part.dtype)
        height, width = weight.shape
        total[top : top + height, left : left + width] += weight[..., None].astype(part.dtype) * part
    logits: Any = total
    return PixelScores(logits)


def weights(starts: Sequence[int], tiling: Tiling, extent: int) -> dict[int, Float[np.ndarray, "n"]]:
    """Weight of each tile, by its first pixel, at every pixel of a side that it shows; at each pixel they sum to 1.

    It rises from 0 to 1, smoothly, in the middle of the overlap of two tiles.
    """
    overlap = tiling.size - tiling.step
    blended = min(BLENDED, overlap / 4)
    found, total = {}, np.zeros(extent)
    for start in starts:
        end = start + tiling.size
        pixel = np.arange(start, min(end, extent)) + 0.5
        inward = np.minimum(pixel - start if start > 0 else np.inf, end - pixel if end < extent else np.inf)
        rise = np.clip((inward - (overlap - blended) / 2) / max(blended, 1e-9), 0, 1)
        found[start] = rise * rise * (3 - 2 * rise)
        total[start:end] += found[start]
    return {start: weight / total[start : start + tiling.size] for start, weight in found.items()}


def _in_file(
    logits: np.ndarray, canvas: Canvas, corner: tuple[int, int], shape: tuple[int, ...]
) -> Float[np.ndarray, "h w k"]:
    """Logits of a tile at its pixels of the image, bilinearly; in float32 at least."""
    values = np.asarray(logits)
    values = values.astype(np.promote_types(values.dtype, np.float32) if values.dtype.kind == "f" else np.float32)
    scale, shift = canvas.to_file()
    for axis in (0, 1):
        pixel = np.arange(corner[axis], corner[axis] + shape[axis]) + 0.5
        cells = values.shape[axis] / canvas.image.shape[axis]
        values = _sampled(values, (pixel - shift[1 - axis]) / scale[1 - axis] * cells - 0.5, axis)
    return values


def _sampled(values: np.ndarray, at: Float[np.ndarray, "n"], axis: int) -> np.ndarray:
    """Values at places along an axis, between those of the two nearest; beyond the outermost, theirs."""
    at = np.clip(at, 0, values.shape[axis] - 1)
    first = np.floor(at).astype(np.intp)
    before, second = values.take(first, axis), (at - first).astype(values.dtype)
    if not second.any():
        return before
    after = values.take(np.minimum(first + 1, values.shape[axis] - 1), axis)
    return before + (after - before) * second.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))


def _joined(
    parts: Iterable[Part],
    corners: Sequence[tuple[int, int]],
    tiling: Tiling,
    size: tuple[int, int],
    score_threshold: float,
) -> Detections:
    """Objects of an image in its pixels, the best first, with masks as run lengths where there are some."""
    found, with_masks = [], False
    for tile, (canvas, detections) in enumerate(parts):
        with_masks = detections.masks is not None
        found += _objects(tile, canvas, detections, score_threshold)
    far = [(min(top + tiling.size, size[0]), min(left + tiling.size, size[1])) for top, left in corners]
    windows = np.array([[left, top, right, bottom] for (top, left), (bottom, right) in zip(corners, far, strict=True)])
    objects = joined(found, windows.astype(np.float64), size)
    columns: Any = (
        np.array([each.box for each in objects]).reshape(-1, 4),
        np.array([each.label for each in objects], np.int32),
        np.array([each.score for each in objects], np.float64),
        np.ones(len(objects), bool),
    )
    masks = [each.mask for each in objects] if with_masks else None
    return Detections(*columns, masks=masks)


def _objects(tile: int, canvas: Canvas, detections: Detections, score_threshold: float) -> Iterator[Found]:
    """Objects of a tile in pixels of the image."""
    boxes, labels = canvas.in_file(detections.boxes), np.asarray(detections.labels)
    scores = np.asarray(detections.scores, np.float64)
    extent = (boxes[:, 2:] > boxes[:, :2]).all(1)
    kept = np.flatnonzero(np.asarray(detections.valid) & (scores >= score_threshold) & extent)
    masks = repeat(None) if detections.masks is None else run_lengths(detections.masks, kept, canvas)
    for row, mask in zip(kept, masks):  # noqa: B905, one of them may have no end
        yield Found(tile, int(labels[row]), float(scores[row]), boxes[row], mask)
