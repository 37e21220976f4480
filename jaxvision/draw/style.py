"""What all pictures share: colours that colour-blind readers tell apart, and text that always can be drawn."""

from jaxvision.draw.fonts import advance, drawable

BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
"""The palette of Okabe and Ito (Color Universal Design, 2008)."""
RED, YELLOW, CYAN = "#FF0000", "#FFEE00", "#00E5FF"
"""Colours of errors, which no class has, so that none means two things on one page."""
INK, MUTED, RULE, NOTHING = "#1B1F24", "#5B6470", "#E3E6EA", "#E8E8E8"
"""Text, text that stays behind, grid lines, and the absence of data."""

LONGEST = 400
"""Characters of a text that are measured: as many from its beginning as from its end, if it has more."""


def shorten(text: str, width: float, size: float) -> str:
    """`text` on one line of at most `width` inches at this font size, an ellipsis in the place of its middle.

    The middle, because long class names differ at their ends as often as at their beginnings.
    """
    text = " ".join(text.split())
    text = drawable(text if len(text) <= LONGEST else text[: LONGEST // 2] + text[-LONGEST // 2 :])
    kept = len(text)
    short = text
    while kept > 2 and text_width(short, size) > width:
        kept -= 1
        short = f"{text[: kept - kept // 2].rstrip()}…{text[len(text) - kept // 2 :].lstrip()}"
    return short


def text_width(text: str, size: float) -> float:
    """Inches that a line takes at this font size (points), with a little room for the rounding of signs to pixels."""
    return 1.04 * sum(map(advance, text)) * size / 72
