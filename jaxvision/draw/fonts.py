"""Fonts that names in any script are drawn with: matplotlib's own, and for what it lacks any other that is installed."""

from __future__ import annotations

import logging
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib import font_manager
    from matplotlib.figure import Figure


logger = logging.getLogger(__name__)
MAIN = "DejaVu Sans"
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
PLACEHOLDERS = "Last Resort"
"""Fonts of this name have a box for every sign."""


class Font(NamedTuple):
    """An installed font."""

    family: str
    path: str


def drawable(text: str) -> str:
    """`text` with the signs that no installed font has replaced, which is said once: no name stops a picture."""
    missing = frozenset(sign for sign in text if sign != "\n" and font_of(sign) is None)
    if missing:
        _tell(missing)
    return "".join(REPLACEMENT if sign in missing else sign for sign in text)


def font_of(sign: str) -> Font | None:
    """The font that a sign is drawn with; None if there is none."""
    return next((font for font in _fonts() if ord(sign) in _signs(font)), None)


def runs(text: str) -> list[tuple[Font, str]]:
    """The text, already `drawable`, in pieces that one font draws."""
    pieces = groupby(text, lambda sign: font_of(sign) or _fonts()[0])
    return [(font, "".join(signs)) for font, signs in pieces]


def advance(sign: str) -> float:
    """Width of one sign, as a multiple of the font size."""
    return _advance(sign, font_of(sign) or _fonts()[0])


def give_fonts(figure: Figure) -> None:
    """Lets every text of the figure be drawn with the fonts that its signs need."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        families = dict.fromkeys(font.family for font, _ in runs(text.get_text()))
        if [*families] not in ([], [MAIN]):
            text.set_fontfamily([MAIN, *(name for name in families if name != MAIN)])


@cache
def _tell(missing: frozenset[str]) -> None:
    names = " ".join(f"U+{ord(sign):04X}" for sign in sorted(missing)[:5]) + (" ..." if len(missing) > 5 else "")
    logger.warning(
        "no installed font has %s (%s): drawn as %s in pictures; install one, such as Noto Sans of that script",
        " ".join(sorted(missing)[:5]).encode("utf-8", "replace").decode(),
        names,
        REPLACEMENT,
    )


@cache
def _fonts() -> tuple[Font, ...]:
    """Matplotlib's own font, then the others, upright sans-serif ones first."""
    from matplotlib import font_manager

    others = sorted(font_manager.fontManager.ttflist, key=_plainness)
    known = {each.name: Font(each.name, each.fname) for each in reversed(others)}
    known.pop(MAIN, None)
    names = dict.fromkeys(each.name for each in others if each.name in known and PLACEHOLDERS not in each.name)
    return (Font(MAIN, font_manager.findfont(MAIN)), *(known[name] for name in names))


def _plainness(entry: font_manager.FontEntry) -> tuple:
    weight = entry.weight if isinstance(entry.weight, int) else 400
    return "Sans" not in entry.name, entry.style != "normal", abs(weight - 400), entry.name, entry.fname


@cache
def _signs(font: Font) -> frozenset[int]:
    """Code points of a font; none of one that can't be opened, or has only bitmaps."""
    from matplotlib.ft2font import FT2Font

    try:
        opened = FT2Font(font.path)
        return frozenset(opened.get_charmap()) if opened.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()


@cache
def _advance(sign: str, font: Font) -> float:
    from matplotlib.ft2font import FT2Font, LoadFlags

    opened = FT2Font(font.path)
    opened.set_size(100, 72)
    return opened.load_char(ord(sign), LoadFlags.NO_HINTING).linearHoriAdvance / 65536 / 100


def forget() -> None:
    """Looks for fonts anew: for those that were installed since."""
    for known in (_tell, _fonts, _signs, _advance):
        known.cache_clear()
