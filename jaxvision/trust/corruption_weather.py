"""Corruptions by weather: snow, fog, drops of water and mud on the lens. Frost, which takes photographs, is in `frost`."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from jaxvision.errors import DataError
from jaxvision.trust.corruption import Corruption, Pixels, add_top_left, in_colours_of, unit
from jaxvision.trust.corruption_blur import centre_zoomed, motion_blurred


class Snow(NamedTuple):
    """Snow: mean and deviation of the noise that makes flakes, how large and how rare they are, how they fall."""

    mean: float
    deviation: float
    zoom: float
    threshold: float
    radius: int
    sigma: float
    visible: float
    """Fraction of the image that stays as it was; the rest is whitened."""
    trimmed: bool = False
    """Whether the noise, enlarged, is cut to its middle, and to whole grey levels before and after the blur: CIFAR-10-C's."""


def _flakes(rng: np.random.Generator, image: Pixels, snow: Snow) -> tuple[np.ndarray, float]:
    """Noise for each pixel and the angle of the fall, in degrees."""
    return rng.normal(snow.mean, snow.deviation, image.shape[:2]), rng.uniform(-135, -45)


def _snowed(image: Pixels, snow: Snow, draws: tuple[np.ndarray, float]) -> np.ndarray:
    noise, angle = draws
    layer = centre_zoomed(noise[..., None], snow.zoom, snow.trimmed)
    layer = np.where(layer < snow.threshold, 0, np.clip(layer, 0, 1))
    layer = np.floor(layer * 255) / 255 if snow.trimmed else layer
    layer = motion_blurred(layer, snow.radius, snow.sigma, angle)[: image.shape[0], : image.shape[1]]
    levels = np.floor(layer * 255) if snow.trimmed else np.round(layer * 255)
    layer = levels / 255
    clear = unit(image).astype(np.float32)
    grey = clear @ np.array([0.299, 0.587, 0.114], np.float32) if image.shape[2] == 3 else clear[..., 0]
    white = np.maximum(clear, grey[..., None] * 1.5 + 0.5)
    seen = (snow.visible * clear + (1 - snow.visible) * white).astype(np.float64)
    add_top_left(seen, layer + np.rot90(layer, 2))
    return seen * 255


def _heights(rng: np.random.Generator, image: Pixels, fog: tuple[float, float]) -> list[np.ndarray]:
    """Numbers from -1 to 1 for each grid of a height map with room for the image, the coarsest first."""
    del fog
    side = 2 ** (max(image.shape) - 1).bit_length()
    grids = [2**level for level in range(side.bit_length() - 1)]
    return [rng.uniform(-1, 1, (grid, grid)) for grid in grids for _ in range(3)]


def _fogged(image: Pixels, fog: tuple[float, float], draws: list[np.ndarray]) -> np.ndarray:
    thickness, decay = fog
    clear = unit(image)
    brightest = clear.max()
    layer = _height_map(draws, decay)[: image.shape[0], : image.shape[1], None]
    return np.clip((clear + thickness * layer) * brightest / (brightest + thickness), 0, 1) * 255


def _height_map(draws: list[np.ndarray], decay: float) -> Float[np.ndarray, "s s"]:
    """Fractal heights, 0 to 1, by diamonds and squares: each point is the mean of four around it and a random change."""
    side = 2 * len(draws[-1])
    heights, change = np.zeros((side, side), np.float32), 100.0
    numbers: Iterator[np.ndarray] = iter(draws)
    step = side
    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        squares = corners + np.roll(corners, -1, 0)
        squares += np.roll(squares, -1, 1)
        heights[half::step, half::step] = squares / 4 + change**2 * next(numbers)
        middles = heights[half::step, half::step]
        above = corners + np.roll(corners, -1, 1) + middles + np.roll(middles, 1, 0)
        heights[::step, half::step] = above / 4 + change**2 * next(numbers)
        beside = corners + np.roll(corners, -1, 0) + middles + np.roll(middles, 1, 1)
        heights[half::step, ::step] = beside / 4 + change**2 * next(numbers)
        step, change = half, change / decay
    heights -= heights.min()
    return heights / heights.max()


class Drops(NamedTuple):
    """Drops: mean and deviation of the noise that they are made of, its blur, how rare, how strong, and of what."""

    mean: float
    deviation: float
    sigma: float
    threshold: float
    strength: float
    """Opacity of water; blur of mud, in pixels."""
    mud: bool


WATER, MUD = np.asarray([175, 238, 238]) / 255, np.asarray([63, 42, 20]) / 255
"""Pale turquoise and brown, RGB, 0 to 1."""


def _liquid(rng: np.random.Generator, image: Pixels, drops: Drops) -> np.ndarray:
    return rng.normal(drops.mean, drops.deviation, image.shape[:2])


def _spattered(image: Pixels, drops: Drops, noise: np.ndarray) -> np.ndarray:
    layer = ndimage.gaussian_filter(noise, drops.sigma, mode="nearest")
    layer = np.where(layer < drops.threshold, 0, layer)
    if not drops.mud:
        opacity = drops.strength * _water(layer)[..., None]
        return (unit(image) + in_colours_of(image, opacity * WATER)) * 255
    opacity = ndimage.gaussian_filter((layer > drops.threshold).astype(np.float32), drops.strength, mode="nearest")
    opacity = np.where(opacity < 0.8, 0, opacity)[..., None]
    return (unit(image) * (1 - opacity) + in_colours_of(image, opacity * MUD)) * 255


def _water(layer: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Opacity of drops of water, 0 to 1: thicker from their border inwards, with a light from one side."""
    cv2 = opencv()
    wet = (layer * 255).astype(np.uint8)
    distance = np.minimum(cv2.distanceTransform(255 - cv2.Canny(wet, 50, 150), cv2.DIST_L2, 5), 20)
    distance = cv2.equalizeHist(cv2.blur(distance, (3, 3)).astype(np.uint8))
    light = np.asarray([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)
    lit = cv2.blur(cv2.filter2D(distance, cv2.CV_8U, light), (3, 3)).astype(np.float32)
    thick = wet * lit
    return thick / max(float(thick.max()), 1)


def opencv() -> Any:
    """The module of OpenCV. Raises DataError where it is not installed."""
    try:
        import cv2
    except ImportError:
        raise DataError("the water of spatter needs OpenCV: pip install 'jaxvision[proposals]'") from None
    return cv2


snow = Corruption(
    _flakes,
    _snowed,
    (
        Snow(0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        Snow(0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        Snow(0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        Snow(0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        Snow(0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    (
        Snow(0.1, 0.2, 1, 0.6, 8, 3, 0.95, trimmed=True),
        Snow(0.1, 0.2, 1, 0.5, 10, 4, 0.9, trimmed=True),
        Snow(0.15, 0.3, 1.75, 0.55, 10, 4, 0.9, trimmed=True),
        Snow(0.25, 0.3, 2.25, 0.6, 12, 6, 0.85, trimmed=True),
        Snow(0.3, 0.3, 1.25, 0.65, 14, 12, 0.8, trimmed=True),
    ),
)
fog = Corruption(
    _heights,
    _fogged,
    ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
)
spatter = Corruption(
    _liquid,
    _spattered,
    (
        Drops(0.65, 0.3, 4, 0.69, 0.6, False),
        Drops(0.65, 0.3, 3, 0.68, 0.6, False),
        Drops(0.65, 0.3, 2, 0.68, 0.5, False),
        Drops(0.65, 0.3, 1, 0.65, 1.5, True),
        Drops(0.67, 0.4, 1, 0.65, 1.5, True),
    ),
    (
        Drops(0.62, 0.1, 0.7, 0.7, 0.5, False),
        Drops(0.65, 0.1, 0.8, 0.7, 0.5, False),
        Drops(0.65, 0.3, 1, 0.69, 0.5, False),
        Drops(0.65, 0.1, 0.7, 0.69, 0.6, True),
        Drops(0.65, 0.1, 0.5, 0.68, 0.6, True),
    ),
)
