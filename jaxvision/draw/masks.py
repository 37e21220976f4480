"""Masks and class maps in the pixels of an image, with contours, and a legend."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image, ImageDraw

from jaxvision.draw.fonts import drawable
from jaxvision.draw.lettering import extent, write
from jaxvision.draw.palette import BLACK, levels
from jaxvision.draw.style import INK, LONGEST
from jaxvision.masks import runs
from jaxvision.masks.runs import Runs

OPACITY = 115
"""How much of a colour stays over the image inside a contour, of 255."""
CLEAR = 190
"""How much of the colour of a class stays over a grey copy of the image, so that no colour of an object is taken for it."""
ROWS = 256
"""Rows of an image that are painted at a time."""
LEGEND = 12
"""Most entries of a legend; those beyond are counted."""


def with_masks(
    pixels: UInt8[np.ndarray, "h w 3"], masks: Sequence[Runs], colours: Sequence[str]
) -> UInt8[np.ndarray, "h w 3"]:
    """The image with masks of its size painted over, small ones last, each with a contour in the full colour."""
    picture, thick = pixels.copy(), thickness(pixels)
    order = np.argsort([-runs.area(mask) for mask in masks], kind="stable")
    for number in map(int, order):
        x0, y0, x1, y1 = runs.box(masks[number]).astype(int)
        if x1 > x0:
            on = np.pad(runs.decode(masks[number])[y0:y1, x0:x1], 1)
            window, colour = picture[y0:y1, x0:x1], levels([colours[number]])[0]
            _paint(window, on[1:-1, 1:-1], colour, OPACITY)
            _paint(window, on[1:-1, 1:-1] & ~_eroded(on, thick)[1:-1, 1:-1], colour, 255)
    return picture


def greyed(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The image in light grey, for colours to stand over."""
    return np.repeat((100 + 0.4 * pixels.mean(-1)).astype(np.uint8)[..., None], 3, -1)


def with_classes(
    pixels: UInt8[np.ndarray, "h w 3"],
    labels: Int[np.ndarray, "h w"],
    colours: Sequence[str],
    opacity: int = OPACITY,
) -> UInt8[np.ndarray, "h w 3"]:
    """The image with the colour of each pixel's class over it, in full along the borders between classes.

    What is black, and pixels of labels beyond the colours, stay as they are.

    Args:
      pixels: the image.
      labels: the class of each pixel.
      colours: of the classes.
      opacity: how much of a colour stays over the image inside the borders, 0 to 255.
    """
    picture, thick, table = pixels.copy(), thickness(pixels), levels(colours)
    shown = np.append(np.array([colour != BLACK for colour in colours], bool), False)
    labels = np.where((labels >= 0) & (labels < len(colours)), labels, len(colours)).astype(np.int32)
    borders = _borders(labels, thick)
    table = np.append(table, [[0, 0, 0]], 0).astype(np.uint8)
    for start in range(0, len(pixels), ROWS):
        part = slice(start, start + ROWS)
        weight = np.where(borders[part], 255, opacity) * shown[labels[part]]
        picture[part] = _mixed(picture[part], table[labels[part]], weight[..., None])
    return picture


def with_legend(picture: Image.Image, entries: Sequence[tuple[str, str]]) -> Image.Image:
    """The picture with texts and their colours in lines below it, on white; nothing without an entry."""
    lines = [(drawable(" ".join(text.split())[:LONGEST]), colour) for text, colour in entries[:LEGEND]]
    if not lines:
        return picture
    if len(entries) > LEGEND:
        lines.append((f"{len(entries) - LEGEND} more", ""))
    size = max(12, round(min(picture.size) / 40))
    places = _flowed(lines, size, picture.size[0])
    step = round(1.5 * size)
    below = places[-1][1] + round(0.6 * size) + step
    whole = Image.new("RGB", (picture.size[0], picture.size[1] + below), "white")
    whole.paste(picture.convert("RGB"))
    draw = ImageDraw.Draw(whole)
    for (text, colour), (x, y) in zip(lines, places, strict=True):
        top = picture.size[1] + 0.5 * size + y
        if colour:
            draw.rectangle((x, top, x + size, top + size), fill=colour, outline=INK)
        write(draw, x + (1.4 * size if colour else 0), top + size, text, size, INK)
    return whole


def _flowed(lines: Sequence[tuple[str, str]], size: int, wide: int) -> list[tuple[int, int]]:
    """Where each entry of a legend stands, from left to right and down, so that it ends inside if it is not too long."""
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    margin = x = round(0.5 * size)
    y, places = 0, []
    for text, colour in lines:
        length = extent(draw, text, size)[2] + (1.4 * size if colour else 0)
        if x > margin and x + length + margin > wide:
            x, y = margin, y + round(1.5 * size)
        places.append((x, y))
        x += round(length + 1.2 * size)
    return places


def thickness(pixels: UInt8[np.ndarray, "h w 3"]) -> int:
    """Width of a contour in pixels, as an image of this size asks for."""
    return max(1, round(min(pixels.shape[:2]) / 300))


def _paint(window: UInt8[np.ndarray, "h w 3"], on: Bool[np.ndarray, "h w"], colour: np.ndarray, opacity: int) -> None:
    window[on] = _mixed(window[on], colour, np.asarray(opacity))


def _mixed(pixels: np.ndarray, colour: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Colours over pixels; opacity is 0 to 255."""
    under, over = pixels.astype(np.uint32), colour.astype(np.uint32)
    weight = opacity.astype(np.uint32)
    return ((under * (255 - weight) + over * weight + 127) // 255).astype(np.uint8)


def _eroded(on: Bool[np.ndarray, "h w"], thick: int) -> Bool[np.ndarray, "h w"]:
    from scipy.ndimage import minimum_filter

    return minimum_filter(on, 2 * thick + 1, mode="constant", cval=0)


def _borders(labels: Int[np.ndarray, "h w"], thick: int) -> Bool[np.ndarray, "h w"]:
    from scipy.ndimage import maximum_filter, minimum_filter

    side = thick + thick % 2 + 1
    return maximum_filter(labels, side, mode="nearest") != minimum_filter(labels, side, mode="nearest")
