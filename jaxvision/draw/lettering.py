"""Text written into the pixels of an image, in any script that an installed font has."""

from functools import cache

from PIL import ImageDraw, ImageFont

from jaxvision.draw.fonts import runs


def extent(draw: ImageDraw.ImageDraw, line: str, size: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the ink of a line whose baseline begins at 0, 0."""
    boxes, x = [], 0.0
    for font, piece in runs(line):
        boxes.append(draw.textbbox((x, 0), piece, font=_font(font.path, size), anchor="ls"))
        x += draw.textlength(piece, font=_font(font.path, size))
    return tuple(pick(box[side] for box in boxes) for side, pick in enumerate((min, min, max, max)))  # pyright: ignore


def write(draw: ImageDraw.ImageDraw, x: float, y: float, line: str, size: int, fill: str = "white") -> None:
    """Writes a line whose baseline begins at x, y, each piece with the font that has its signs."""
    for font, piece in runs(line):
        draw.text((x, y), piece, fill=fill, font=_font(font.path, size), anchor="ls")
        x += draw.textlength(piece, font=_font(font.path, size))


@cache
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
