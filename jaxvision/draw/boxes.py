"""Boxes on images, in a colour for each class: as part of a figure, or in the pixels themselves."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw, ImageFont

from jaxvision.draw.style import BLUE, GREEN, ORANGE, PURPLE, VERMILLION, drawable

COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE)
"""Colours of the classes of objects, again from the start after the last."""


def colour_of(label: Any) -> str:
    """The colour of a class."""
    return COLOURS[int(label) % len(COLOURS)]


def draw_box(
    axes: Axes, box: Float[np.ndarray, "4"], text: str, colour: str, *, dashed: bool = False, size: float = 5
) -> None:
    """A box, in pixels of the image that the axes show, and its text, if any, of this size in points on a label above it."""
    x0, y0, x1, y1 = np.asarray(box, np.float64) - 0.5  # a pixel is drawn around its number
    line: dict[str, Any] = {"edgecolor": colour, "linestyle": "--" if dashed else "-", "linewidth": 1.2}
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, **line))
    if text:
        label = {"facecolor": colour, "edgecolor": "none", "pad": 0.6}
        style: dict[str, Any] = {"va": "bottom", "clip_on": True, "parse_math": False, "bbox": label}
        axes.text(x0, y0, drawable(text), fontsize=size, color="white", **style)


def with_boxes(
    pixels: UInt8[np.ndarray, "h w 3"], boxes: Float[np.ndarray, "n 4"], texts: Sequence[str], colours: Sequence[str]
) -> Image.Image:
    """The image with boxes drawn into its pixels, the first on top; lines and texts are as large as its size asks for."""
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    short = min(picture.size)
    line, font = max(1, round(short / 250)), _font(max(9, round(short / 40)))
    for box, text, colour in list(zip(boxes, texts, colours, strict=True))[::-1]:
        x0, y0, x1, y1 = (float(side) for side in box)
        draw.rectangle((x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)), outline=colour, width=line)
        _write(draw, drawable(text), (x0, y0), font, colour, picture.size)
    return picture


def _write(
    draw: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    font: ImageFont.FreeTypeFont,
    colour: str,
    size: tuple[int, int],
) -> None:
    """Draws white text on a label above the corner, moved to lie inside the image."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    x = max(min(corner[0], size[0] - width), 0)
    y = corner[1] - height if corner[1] >= height else corner[1]
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + 2 - left, y + 2 - top), text, fill="white", font=font)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)
