"""Corruptions by processing: light, colour, waves, coarse pixels, compression."""

import io
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image
from scipy import ndimage

from jaxvision.trust.corruption import Corruption, Pixels, nothing, unit


def _brighter(image: Pixels, amount: float, draws: None) -> np.ndarray:
    """The value of HSV raised, which is the largest of red, green and blue; hue and saturation stay."""
    del draws
    colour = unit(image)
    value = colour.max(-1, keepdims=True)
    raised = np.minimum(value + amount, 1)
    return np.where(value > 0, colour * raised / np.where(value > 0, value, 1), raised) * 255


def _flatter(image: Pixels, factor: float, draws: None) -> np.ndarray:
    del draws
    colour = unit(image)
    mean = colour.mean((0, 1), keepdims=True)
    return np.clip((colour - mean) * factor + mean, 0, 1) * 255


def _saturated(image: Pixels, constants: tuple[float, float], draws: None) -> np.ndarray:
    """The saturation of HSV scaled and shifted; grey pixels of an RGB image become red, a grey image stays as it is."""
    del draws
    if image.shape[2] == 1:
        return image
    factor, shift = constants
    colour = unit(image)
    value = colour.max(-1, keepdims=True)
    below = value - colour
    chroma = below.max(-1, keepdims=True)
    saturation = chroma / np.where(value > 0, value, 1)
    hue = np.where(chroma > 0, below / np.where(chroma > 0, chroma, 1), [0.0, 1.0, 1.0])
    return value * (1 - hue * np.clip(saturation * factor + shift, 0, 1)) * 255


class Waves(NamedTuple):
    """Waves, in fractions of the sides of the image.

    How far pixels are moved at most before the smoothing, its deviation, and how far the corners of a triangle are moved.
    """

    amount: float
    sigma: float
    corners: float


def _movements(rng: np.random.Generator, image: Pixels, waves: Waves) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers from -1 to 1 for the three corners, if they are moved, and for each pixel along x and along y."""
    corners = rng.uniform(-1, 1, (3, 2)) if waves.corners else np.zeros((3, 2))
    return corners, rng.uniform(-1, 1, image.shape[:2]), rng.uniform(-1, 1, image.shape[:2])


def _waved(image: Pixels, waves: Waves, draws: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    corners, *along = draws
    height, width = image.shape[:2]
    tilted = unit(image).astype(np.float32)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    if waves.corners:
        tilted = _sampled(tilted, *_tilt(corners * waves.corners * height, x, y), "mirror")
    sigma = (waves.sigma * height, waves.sigma * width)
    dx, dy = (ndimage.gaussian_filter(n, sigma, mode="reflect", truncate=3) * waves.amount * height for n in along)
    return _sampled(tilted, y + dy, x + dx, "reflect") * 255


def _tilt(moves: Float[np.ndarray, "3 2"], x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel, at x and y, comes from (y, x) in the affine map that moves three corners around the centre."""
    height, width = x.shape
    centre, reach = np.asarray([width // 2, height // 2]), min(height, width) // 3
    before = centre + reach * np.asarray([[1, 1], [1, -1], [-1, -1]])
    after = np.column_stack([before + moves, np.ones(3)])
    back = np.linalg.solve(after, before)
    source = np.stack([x, y, np.ones_like(x)], -1) @ back
    return source[..., 1], source[..., 0]


def _sampled(image: np.ndarray, y: np.ndarray, x: np.ndarray, border: str) -> np.ndarray:
    channels = [ndimage.map_coordinates(image[..., c], (y, x), order=1, mode=border) for c in range(image.shape[2])]
    return np.stack(channels, -1)


class Pixelate(NamedTuple):
    """Coarse pixels: the side of the small image as a fraction, and whether it is enlarged by areas or the nearest pixel."""

    fraction: float
    by_area: bool = False


def _pixelated(image: Pixels, constants: Pixelate, draws: None) -> np.ndarray:
    del draws
    height, width = image.shape[:2]
    small = (max(1, int(width * constants.fraction)), max(1, int(height * constants.fraction)))
    enlarge = Image.Resampling.BOX if constants.by_area else Image.Resampling.NEAREST
    picture = _picture(image).resize(small, Image.Resampling.BOX).resize((width, height), enlarge)
    return np.asarray(picture).reshape(image.shape)


def _compressed(image: Pixels, quality: int, draws: None) -> np.ndarray:
    del draws
    file = io.BytesIO()
    _picture(image).convert("RGB").save(file, "JPEG", quality=quality)
    with Image.open(file) as read:
        return np.asarray(read.convert("RGB" if image.shape[2] == 3 else "L")).reshape(image.shape)


def _picture(image: Pixels) -> Image.Image:
    return Image.fromarray(image if image.shape[2] == 3 else image[..., 0])


brightness = Corruption(nothing, _brighter, (0.1, 0.2, 0.3, 0.4, 0.5), (0.05, 0.1, 0.15, 0.2, 0.3))
contrast = Corruption(nothing, _flatter, (0.4, 0.3, 0.2, 0.1, 0.05), (0.75, 0.5, 0.4, 0.3, 0.15))
saturate = Corruption(
    nothing,
    _saturated,
    ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
)
elastic_transform = Corruption(
    _movements,
    _waved,
    tuple(Waves(250 * 0.005 * strength, 0.01, 0) for strength in (0.05, 0.065, 0.085, 0.1, 0.12)),
    (
        Waves(0, 0, 0.08),
        Waves(0.05, 0.2, 0.07),
        Waves(0.08, 0.06, 0.06),
        Waves(0.1, 0.04, 0.05),
        Waves(0.1, 0.03, 0.03),
    ),
)
pixelate = Corruption(
    nothing,
    _pixelated,
    tuple(map(Pixelate, (0.6, 0.5, 0.4, 0.3, 0.25))),
    tuple(Pixelate(fraction, by_area=True) for fraction in (0.95, 0.9, 0.85, 0.75, 0.65)),
)
jpeg_compression = Corruption(nothing, _compressed, (25, 18, 15, 10, 7), (80, 65, 58, 50, 40))
