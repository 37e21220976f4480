"""Boxes on images, in a colour for each class: as part of a figure, or in the pixels themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from jaxvision.draw.fonts import drawable
from jaxvision.draw.lettering import extent, write
from jaxvision.draw.palette import distinct
from jaxvision.draw.style import LONGEST, shorten, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Label = tuple[float, float, float, float]
"""`x0 y0 x1 y1` of a label."""


def colour_of(label: Any) -> str:
    """The colour of a class."""
    return distinct(int(label))


def draw_box(
    axes: Axes,
    box: Float[np.ndarray, " 4"],
    text: str,
    colour: str,
    *,
    dashed: bool = False,
    size: float = 5,
    taken: list[Label] | None = None,
    zorder: float = 1,
) -> None:
    """A box, in pixels of the image that the axes show, and its text, if any, of this size in points on a label above it.

    At the borders of the image the label is moved to lie in it; a text wider than the image is shortened.

    Args:
      axes: that show the image.
      box: `x0 y0 x1 y1`.
      text: of the label; empty for none.
      colour: of box and label.
      dashed: draws a broken line.
      size: of the text, in points.
      taken: where labels lie already, in points; a label that would meet one of them is left out, and others are added.
      zorder: boxes of a higher one lie above others.
    """
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = np.asarray(box, np.float64) - 0.5  # a pixel is drawn around its number
    line: dict[str, Any] = {"edgecolor": colour, "linestyle": "--" if dashed else "-", "linewidth": 1.2}
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, zorder=zorder, **line))
    if text:
        draw_label(axes, box, text, colour, size=size, taken=taken)


def draw_label(
    axes: Axes,
    box: Float[np.ndarray, " 4"],
    text: str,
    colour: str,
    *,
    size: float = 5,
    taken: list[Label] | None = None,
) -> None:
    """The label of a box alone, as `draw_box` has it."""
    x0, y0, _, _ = np.asarray(box, np.float64) - 0.5
    wide = _points(axes, *_far(axes))[0]
    text = shorten(text, (wide - 2) / 72, size)
    across, down = _points(axes, x0, y0)
    length, height = 72 * text_width(text, size) + 1.2, 1.4 * size
    fits, above = across + length <= wide, down >= height
    left = max(across, 0) if fits else wide - length
    label = (
        (left, down - height, left + length, down)
        if above
        else (left, max(down, 0), left + length, max(down, 0) + height)
    )
    if taken is not None:
        if any(_meet(label, other) for other in taken):
            return
        taken.append(label)
    style: dict[str, Any] = {"ha": "left" if fits else "right", "va": "bottom" if above else "top"}
    style |= {"clip_on": True, "parse_math": False, "bbox": {"facecolor": colour, "edgecolor": "none", "pad": 0.6}}
    x = max(x0, -0.5) if fits else _far(axes)[0]
    axes.text(x, max(y0, -0.5), text, fontsize=size, color="white", **style)


def _far(axes: Axes) -> tuple[float, float]:
    """The lower right corner of the axes, in pixels of their image."""
    return max(axes.get_xlim()), max(axes.get_ylim())


def _points(axes: Axes, x: float, y: float) -> tuple[float, float]:
    """How far a pixel of the image is from the left and the upper border of the axes, in points."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    sides = figure.get_size_inches() * axes.get_position().size * 72
    found = [
        (at - min(limits)) / abs(limits[1] - limits[0]) * side
        for at, limits, side in zip((x, y), (axes.get_xlim(), axes.get_ylim()), sides, strict=True)
    ]
    return found[0], found[1]


def with_boxes(
    pixels: UInt8[np.ndarray, "h w 3"],
    boxes: Float[np.ndarray, "n 4"],
    texts: Sequence[str],
    colours: Sequence[str],
    *,
    lines: bool = True,
) -> Image.Image:
    """The image with boxes drawn into its pixels, or with `lines=False` their labels alone, as large as its size asks for.

    A label stands where it hides no label of a box before, where there is such a place at the corners of its box.
    """
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    short = min(picture.size)
    thick, size = max(1, round(short / 250)), max(9, round(short / 40))
    for box, colour in list(zip(boxes, colours, strict=True))[::-1] if lines else ():
        x0, y0, x1, y1 = (float(side) for side in box)
        draw.rectangle((x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)), outline=colour, width=thick)
    labels: list[Label] = []
    for box, text, colour in zip(boxes, texts, colours, strict=True):
        line = drawable(" ".join(text.split())[:LONGEST])
        if not line:
            continue
        left, top, right, bottom = extent(draw, line, size)
        label = _free_place(box, (right - left + 4, bottom - top + 4), picture.size, labels)
        labels.append(label)
        draw.rectangle(label, fill=colour)
        write(draw, label[0] + 2 - left, label[1] + 2 - top, line, size)
    return picture


def _free_place(
    box: Float[np.ndarray, " 4"], label: tuple[float, float], size: tuple[int, int], taken: Sequence[Label]
) -> Label:
    """Where a label of this width and height stands: above a corner of the box, in it or below it, all inside the image."""
    (x0, y0, x1, y1), (width, height) = (float(side) for side in box), label

    def inside(x: float, y: float) -> Label:
        x, y = max(min(x, size[0] - width), 0), max(min(y, size[1] - height), 0)
        return x, y, x + width, y + height

    above = y0 - height if y0 >= height else y0
    places = [inside(x, y) for y in (above, y0, y1, y1 - height, y0 + height) for x in (x0, x1 - width)]
    return next((place for place in places if not any(_meet(place, other) for other in taken)), places[0])


def _meet(a: Label, b: Label) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
