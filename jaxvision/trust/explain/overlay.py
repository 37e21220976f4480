"""Maps as pictures: the image as it is where the map is low, in the map's colours where it is high."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

SIDE = 320
"""Pixels of the shorter side that a smaller image is enlarged to, by whole factors."""
STRONGEST = 0.75
"""How much of a pixel's colour is that of the map, where it is highest."""
RANGE = (0.5, 0.99)
"""The quantiles of the values that are shown as none and as the highest.

Half of the pixels show the image alone, whatever the map's background is: that of RISE and D-RISE is far from 0. A single
pixel does not make all others dark.
"""


def overlay(
    image: UInt8[np.ndarray, "h w c"], map: Float[np.ndarray, "h w"], box: Float[np.ndarray, "4"] | None = None
) -> Image.Image:
    """The picture of a map on its image, and of the box that it explains, enlarged where the image is small."""
    factor = max(1, -(-SIDE // min(image.shape[:2])))
    pixels = np.repeat(image, 3, -1) if image.shape[-1] == 1 else image
    height, width = (side * factor for side in image.shape[:2])
    shown = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST), np.float32)
    values = np.repeat(np.repeat(scaled(map), factor, 0), factor, 1)
    weight = (STRONGEST * values)[..., None]
    mixed = (1 - weight) * shown + weight * _colours(values)
    picture = Image.fromarray(mixed.clip(0, 255).astype(np.uint8))
    if box is not None:
        corners = [side * factor for side in box]
        corners = [*corners[:2], max(corners[2] - 1, corners[0]), max(corners[3] - 1, corners[1])]
        ImageDraw.Draw(picture).rectangle(corners, outline=(255, 255, 255), width=max(2, min(height, width) // 160))
    return picture


def scaled(map: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Values from 0 to 1, between two quantiles; between the lowest and the highest where these are equal."""
    low, high = np.quantile(map, RANGE)
    if not high > low:
        low, high = map.min(), map.max()
    return ((map - low) / (high - low if high > low else 1)).clip(0, 1)


def _colours(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 3"]:
    from matplotlib import colormaps

    return colormaps["turbo"](0.35 + 0.6 * values)[..., :3] * 255
