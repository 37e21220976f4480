"""Figures as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jaxvision.draw.fonts import give_fonts
from jaxvision.errors import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save(figure: Figure, path: str | Path, *, dpi: float = 150) -> None:
    """Writes `figure` as PNG, at once or not at all: a reader never sees half a picture, and the old one stays until then.

    Missing folders are made.

    Raises:
      ValueError: a file name that does not end in .png.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"pictures are written as .png, not {path.suffix or 'without an ending'}: {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    give_fonts(figure)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=dpi)
