"""Where an image goes on its canvas: the geometry that the host chooses, as a value.

A placement resizes a box of the source image to `size` pixels; with the padding around it, or less what is cut off, that is
the content, in the top-left corner of the canvas. Sizes are `(height, width)`; boxes are `x0 y0 x1 y1` in pixels of the
upright source image, `x1 y1` exclusive, and may be fractional.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxvision.data.interpolation import PIL_BILINEAR, Box, Resampling
from jaxvision.formats.image_file import Size


class Placement(NamedTuple):
    """A box of the source image, the size that it is resized to, and what of the content is beside it."""

    box: Box
    size: Size
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Pixels of the content beside the resized box: left, top, right, bottom. Below 0: that number of the box is cut off."""

    @property
    def content(self) -> Size:
        """Height and width of the content: of the box with its padding, or without what is cut off."""
        left, top, right, bottom = self.padding
        return top + self.size[0] + bottom, left + self.size[1] + right

    @property
    def kept(self) -> tuple[slice, slice]:
        """Rows and columns of the resized box that are not cut off."""
        (height, width), (left, top, right, bottom) = self.size, self.padding
        return slice(max(-top, 0), height + min(bottom, 0)), slice(max(-left, 0), width + min(right, 0))

    @property
    def spot(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas where they are."""
        (height, width), (left, top, right, bottom) = self.content, self.padding
        return slice(max(top, 0), height - max(bottom, 0)), slice(max(left, 0), width - max(right, 0))

    @property
    def window(self) -> Box:
        """The box that the content shows, in pixels of the source image: beyond its border where there is padding."""
        (x0, y0, x1, y1), (left, top, right, bottom) = self.box, self.padding
        x, y = (x1 - x0) / self.size[1], (y1 - y0) / self.size[0]
        return x0 - left * x, y0 - top * y, x1 + right * x, y1 + bottom * y


MOST_RESIZED = 8
"""How many times the pixels of a crop are resized with it, at most."""
Place = Callable[[np.random.Generator | None, Size], Placement]
"""`(random numbers, (height, width) of the source image) -> Placement`."""


class Placer(NamedTuple):
    """A canvas, and the rule that places an image on it."""

    canvas: Size
    place: Place
    random: bool = False
    """Whether `place` draws random numbers; one that does not may be given None for them."""
    interpolation: Resampling = PIL_BILINEAR
    fill: int = 0
    """Grey level of the padding, 0-255."""


def keep(canvas: int | Size) -> Placer:
    """No resizing: the pixels as they are. Raises ValueError for an image larger than the canvas."""
    canvas = _size(canvas)

    def place(rng: np.random.Generator | None, source: Size) -> Placement:
        if source[0] > canvas[0] or source[1] > canvas[1]:
            raise ValueError(f"{_text(source)} is larger than the canvas {_text(canvas)} (height x width)")
        return Placement(_whole(source), source)

    return Placer(canvas, place)


def stretch(size: int | Size, *, interpolation: Resampling = PIL_BILINEAR) -> Placer:
    """The whole image, stretched to the whole canvas."""
    size = _size(size)
    return Placer(size, lambda rng, source: Placement(_whole(source), size), interpolation=interpolation)


def letterbox(
    size: int | Size,
    *,
    fill: int | None = None,
    centred: bool = False,
    truncated: bool = False,
    interpolation: Resampling = PIL_BILINEAR,
) -> Placer:
    """The whole image as large as fits, its aspect kept to the pixel.

    Args:
      size: of the canvas.
      fill: grey level of the rest, which then counts as content: a network sees it. None: the rest stays empty.
      centred: the image in the middle, as Darknet has it, which rounds its sides and its corner down; else in the top-left
        corner, its sides rounded to the nearest pixel.
      truncated: the fractions of the sides cut off, as YOLOX has it.
      interpolation: how the image is resized.

    Raises:
      ValueError: for a fill that is no grey level, and for an image that is centred without one.
    """
    canvas = _size(size)
    if fill is None and centred:
        raise ValueError("letterbox(centred=True) needs a fill for what is around the image, such as fill=127")
    if fill is not None and not 0 <= fill <= 255:
        raise ValueError(f"letterbox(fill={fill}): allowed is a grey level, 0 to 255, or None")

    def place(rng: np.random.Generator | None, source: Size) -> Placement:
        scale = min(canvas[0] / source[0], canvas[1] / source[1])
        size = _scaled(source, scale, canvas, int if truncated else _down if centred else round)
        return Placement(_whole(source), size, (0, 0, 0, 0) if fill is None else _around(size, canvas, centred))

    return Placer(canvas, place, interpolation=interpolation, fill=fill or 0)


def _around(size: Size, canvas: Size, centred: bool) -> tuple[int, int, int, int]:
    """The padding that fills the canvas."""
    down, across = canvas[0] - size[0], canvas[1] - size[1]
    left, top = (across // 2, down // 2) if centred else (0, 0)
    return left, top, across - left, down - top


def resize_shortest_edge(
    short: int, longest: int, canvas: int | Size, *, interpolation: Resampling = PIL_BILINEAR
) -> Placer:
    """The whole image, its short side resized to `short`, or less: as far as the long one stays within `longest`.

    And as far as it fits the canvas: one that is not square is for images that lie as it does. Detectron's canvas
    (arXiv:1506.01497 has 600 and 1000). Raises ValueError if `short` is below 1 or above `longest`.
    """
    canvas = _size(canvas)
    if not 1 <= short <= longest:
        raise ValueError(f"resize_shortest_edge(short={short}, longest={longest}): allowed is 1 <= short <= longest")

    def place(rng: np.random.Generator | None, source: Size) -> Placement:
        scale = min(short / min(source), longest / max(source), canvas[0] / source[0], canvas[1] / source[1])
        return Placement(_whole(source), _scaled(source, scale, canvas))

    return Placer(canvas, place, interpolation=interpolation)


def large_scale_jitter(
    size: int | Size, scale: tuple[float, float] = (0.1, 2.0), *, interpolation: Resampling = PIL_BILINEAR
) -> Placer:
    """The image as `letterbox` has it, times a random factor: what is larger than the canvas is cropped, at random.

    Large-scale jitter (arXiv:2012.07177); the factor is uniform in `scale`. Raises ValueError for a scale that is no range
    above 0.
    """
    canvas = _size(size)
    if not 0 < scale[0] <= scale[1]:
        raise ValueError(f"scale must be (low, high) with 0 < low <= high, got {scale}")

    def place(rng: np.random.Generator | None, source: Size) -> Placement:
        if rng is None:
            raise ValueError("large_scale_jitter needs a random generator, got None")
        factor = _between(rng, *scale) * min(canvas[0] / source[0], canvas[1] / source[1])
        resized = _scaled(source, factor)
        height, width = (min(side, limit) for side, limit in zip(resized, canvas, strict=True))
        top = int(rng.random() * (resized[0] - height + 1)) * source[0] / resized[0]
        left = int(rng.random() * (resized[1] - width + 1)) * source[1] / resized[1]
        bottom = min(top + height * source[0] / resized[0], source[0])
        right = min(left + width * source[1] / resized[1], source[1])
        return Placement((left, top, right, bottom), (height, width))

    return Placer(canvas, place, random=True, interpolation=interpolation)


def _scaled(source: Size, scale: float, limits: Size | None = None, rounded: Callable[[float], int] = round) -> Size:
    """Both sides times the scale, rounded; at least one pixel, and within the limits."""
    height, width = (max(1, rounded(side * scale)) for side in source)
    return (height, width) if limits is None else (min(height, limits[0]), min(width, limits[1]))


def _down(side: float) -> int:
    """Rounded down, but for an error of the arithmetic."""
    return math.floor(side + 1e-6)


def resize_and_centre_crop(resize: int, crop: int | Size, *, interpolation: Resampling = PIL_BILINEAR) -> Placer:
    """The centre of the image, after its short side was resized to `resize`: how ImageNet networks are evaluated.

    The pixels are those of torchvision's `Resize` and `CenterCrop`; of a very long image only the centre is resized, and a
    few pixels differ by a grey level. Raises ValueError if the crop is larger than the short side.
    """
    crop = _size(crop)
    if resize < max(crop):
        raise ValueError(f"resize={resize} must be at least as large as the crop, {_text(crop)}")

    def place(rng: np.random.Generator | None, source: Size) -> Placement:
        short, long = min(source), max(source)
        height, width = (resize if side == short else int(resize * long / short) for side in source)
        resized = height, width
        top, left = (round((side - cut) / 2) for side, cut in zip(resized, crop, strict=True))
        if resized[0] * resized[1] <= MOST_RESIZED * crop[0] * crop[1]:
            rest = crop[1] + left - resized[1], crop[0] + top - resized[0]
            return Placement(_whole(source), resized, (-left, -top, *rest))
        y, x = source[0] / resized[0], source[1] / resized[1]
        bottom, right = min((top + crop[0]) * y, source[0]), min((left + crop[1]) * x, source[1])
        return Placement((left * x, top * y, right, bottom), crop)

    return Placer(crop, place, interpolation=interpolation)


def random_resized_crop(
    size: int | Size,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    *,
    interpolation: Resampling = PIL_BILINEAR,
) -> Placer:
    """A random box, stretched to the canvas (Szegedy et al., arXiv:1409.4842; sampled as torchvision's `RandomResizedCrop`).

    Its fraction of the image's area is uniform in `area`, its aspect (width / height) log-uniform in `ratio`, its corner
    uniform. Ten tries to fit it in; then the largest centred box within `ratio`. Boxes are whole pixels.
    """
    size = _size(size)
    if not 0 < area[0] <= area[1] <= 1:
        raise ValueError(f"area must be (low, high) with 0 < low <= high <= 1, got {area}")
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f"ratio must be (low, high) with 0 < low <= high, got {ratio}")

    def place(rng: np.random.Generator | None, source: Size) -> Placement:
        if rng is None:
            raise ValueError("random_resized_crop needs a random generator, got None")
        return Placement(_random_box(rng, source, area, ratio), size)

    return Placer(size, place, random=True, interpolation=interpolation)


def _random_box(rng: np.random.Generator, source: Size, area: tuple[float, float], ratio: tuple[float, float]) -> Box:
    height, width = source
    for _ in range(10):
        target = height * width * _between(rng, *area)
        aspect = math.exp(_between(rng, math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            y, x = int(rng.random() * (height - h + 1)), int(rng.random() * (width - w + 1))
            return x, y, x + w, y + h
    return _centred_box(source, ratio)


def _centred_box(source: Size, ratio: tuple[float, float]) -> Box:
    height, width = source
    h = min(height, max(1, round(width / ratio[0]))) if width / height < ratio[0] else height
    w = min(width, max(1, round(height * ratio[1]))) if width / height > ratio[1] else width
    y, x = (height - h) // 2, (width - w) // 2
    return x, y, x + w, y + h


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _whole(source: Size) -> Box:
    return 0, 0, source[1], source[0]


def _size(size: int | Size) -> Size:
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"a canvas needs a height and a width of at least 1, got {size}")
    return int(height), int(width)


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
