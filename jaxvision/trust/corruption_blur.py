"""Corruptions by blur: of the lens, of a movement, of frosted glass."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage, signal

from jaxvision.trust.corruption import Corruption, Pixels, add_top_left, nothing, unit


def _gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest")


def _blur(image: Pixels, sigma: float, draws: None) -> np.ndarray:
    del draws
    return _gaussian(unit(image), sigma) * 255


class Glass(NamedTuple):
    """Frosted glass: the blur before and after, in pixels, how far a pixel comes from, and how often they are mixed."""

    sigma: float
    reach: int
    times: int


def _displacements(rng: np.random.Generator, image: Pixels, glass: Glass) -> Int[np.ndarray, "t h w 2"]:
    """Displacements, x and y: where each inner pixel is taken from each time, in the order in which pixels are visited."""
    rows, columns = (side - 2 * glass.reach for side in image.shape[:2])
    return rng.integers(-glass.reach, glass.reach, size=(glass.times, rows, columns, 2))


def _frosted(image: Pixels, glass: Glass, draws: Int[np.ndarray, "t h w 2"]) -> np.ndarray:
    """Each inner pixel becomes the one at its displacement, from the last row and column to the first.

    The published code means to exchange the two; as both are views of one array, the second stays as it is.
    """
    mixed = (_gaussian(unit(image), glass.sigma) * 255).astype(np.uint8)
    for displacement in draws:
        mixed = _taken(mixed, glass.reach, displacement)
    return _gaussian(unit(mixed), glass.sigma) * 255


def _taken(image: Pixels, reach: int, displacement: Int[np.ndarray, "h w 2"]) -> Pixels:
    """One time. A source that was visited before has its new value, which may come from further away.

    So sources are followed to one that was not: by doubling, each pixel points to what its source points to.
    """
    height, width = image.shape[:2]
    y, x = np.mgrid[height - reach : reach : -1, width - reach : reach : -1]
    here, source = y * width + x, (y + displacement[..., 1]) * width + x + displacement[..., 0]
    count = height * width
    visited = np.full(count, -1)
    visited[here.ravel()] = np.arange(here.size)
    follow = visited[source] >= 0
    follow &= visited[source] < visited[here]
    points_to = np.arange(2 * count)  # the first half are new values, the second half old ones
    points_to[:count] += count
    points_to[here] = np.where(follow, source, source + count)
    while (points_to[:count] < count).any():
        points_to = points_to[points_to]
    return image.reshape(count, -1)[points_to[:count] - count].reshape(image.shape)


def _lens(image: Pixels, constants: tuple[float, float], draws: None) -> np.ndarray:
    """The image through a lens out of focus: blurred by a disk of a radius, in pixels, with a soft border."""
    del draws
    kernel = _disk(*constants)
    margin = len(kernel) // 2
    padded = np.pad(unit(image), ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    return np.asarray(signal.fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))) * 255


def _disk(radius: float, softness: float) -> Float[np.ndarray, "k k"]:
    reach, border = (8, 1) if radius <= 8 else (int(radius), 2)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.float64)
    bell = np.exp(-0.5 * (np.arange(-border, border + 1) / softness) ** 2)
    bell /= bell.sum()
    smoothed = ndimage.correlate1d(disk / disk.sum(), bell, axis=0, mode="mirror")
    return np.asarray(ndimage.correlate1d(smoothed, bell, axis=1, mode="mirror"))


def _angle(rng: np.random.Generator, image: Pixels, constants: tuple[int, float]) -> float:
    del image, constants
    return rng.uniform(-45, 45)


def _moved(image: Pixels, constants: tuple[int, float], angle: float) -> np.ndarray:
    return motion_blurred(image, *constants, angle)


def motion_blurred(image: np.ndarray, radius: int, sigma: float, angle: float) -> Float[np.ndarray, "h w c"]:
    """The image moved along a line: a weighted sum of shifted images, whose borders are repeated.

    Args:
      image: `h w c`.
      radius: half of the length of the line, in pixels.
      sigma: of the weights, half of a bell that begins at the image itself, in pixels.
      angle: of the line, in degrees.
    """
    width = 2 * radius + 1
    weights = np.exp(-(np.arange(width) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    down, right = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    height, across = image.shape[:2]
    padded = np.pad(image.astype(np.float32), ((width, width), (width, width), (0, 0)), mode="edge")
    blurred = np.zeros(image.shape, np.float32)
    for step, weight in enumerate(weights):
        y, x = math.ceil(step * down - 0.5), math.ceil(step * right - 0.5)
        if abs(y) >= height or abs(x) >= across:
            break
        blurred += np.float32(weight) * padded[width + y :, width + x :][:height, :across]
    return blurred


class Zoom(NamedTuple):
    """Zooms from 1 to below a factor, in steps."""

    below: float
    step: float
    trimmed: bool = False
    """Whether their middle is taken, as for CIFAR-10-C, or their top-left corner, as for ImageNet-C."""


def _zoomed(image: Pixels, constants: Zoom, draws: None) -> np.ndarray:
    """The mean of the image and of its zooms."""
    del draws
    factors = np.arange(1, constants.below, constants.step)
    sharp = unit(image).astype(np.float32)
    total = np.zeros_like(sharp)
    for factor in factors:
        add_top_left(total, centre_zoomed(sharp, factor, constants.trimmed))
    return (sharp + total) / (len(factors) + 1) * 255


def centre_zoomed(image: np.ndarray, factor: float, trimmed: bool = False) -> np.ndarray:
    """The middle of the image, enlarged by a factor to about its size, or `trimmed` to at most that; `h w c`."""
    crops = [math.ceil(side / factor) for side in image.shape[:2]]
    top, left = ((side - crop) // 2 for side, crop in zip(image.shape, crops, strict=False))
    middle = image[top : top + crops[0], left : left + crops[1]]
    large = np.asarray(ndimage.zoom(middle, (factor, factor, 1), order=1))
    if not trimmed:
        return large
    top, left = ((side - kept) // 2 for side, kept in zip(large.shape, image.shape[:2], strict=False))
    return large[max(top, 0) :, max(left, 0) :][: image.shape[0], : image.shape[1]]


gaussian_blur = Corruption(nothing, _blur, (1, 2, 3, 4, 6), (0.4, 0.6, 0.7, 0.8, 1))
glass_blur = Corruption(
    _displacements,
    _frosted,
    (Glass(0.7, 1, 2), Glass(0.9, 2, 1), Glass(1, 2, 3), Glass(1.1, 3, 2), Glass(1.5, 4, 2)),
    (Glass(0.05, 1, 1), Glass(0.25, 1, 1), Glass(0.4, 1, 1), Glass(0.25, 1, 2), Glass(0.4, 1, 2)),
)
defocus_blur = Corruption(
    nothing,
    _lens,
    ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
)
motion_blur = Corruption(
    _angle,
    _moved,
    ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
)
zoom_blur = Corruption(
    nothing,
    _zoomed,
    (Zoom(1.11, 0.01), Zoom(1.16, 0.01), Zoom(1.21, 0.02), Zoom(1.26, 0.02), Zoom(1.31, 0.03)),
    tuple(Zoom(below, 0.01, trimmed=True) for below in (1.06, 1.11, 1.16, 1.21, 1.26)),
)
