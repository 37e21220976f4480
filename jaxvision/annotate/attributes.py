"""Attributes of objects that no detector tells: colour, shape, text, and what a trained head knows.

A finder looks at an image and its objects, and gives of each object what it found, by name. Every value is one that each
format between annotation tools can hold, as `formats.labelled.Value` says:

- `colour`: the basic term of most pixels; `colours`: all of at least a twentieth with their fractions, `red 0.62`, the
  largest first. Numbers by term would be eleven attributes an object, each to be declared in CVAT.
- `shape` of the mask, `corners` of what has straight sides, `aspect`, `orientation` of what is longer than wide, in degrees
  counterclockwise, `area` in pixels, `circularity`; objects without a mask, and tiny ones, have none of them.
- `text`: the lines of text on it, from top to bottom.
- those that a trained head knows, under their names in its training data.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxvision.annotate import colours, outlines, text
from jaxvision.annotate.records import Annotation
from jaxvision.annotate.regions import Region, region
from jaxvision.errors import ConfigError, nearest
from jaxvision.formats.labelled import Value

Attributes = Mapping[str, Value]
LEAST_COLOUR = 0.05
"""Fraction of the pixels from which on a colour is listed."""
LEAST_ASPECT = 1.05
"""Aspect from which on a long axis has a direction."""


class AttributeFinder(NamedTuple):
    """What finds attributes of objects."""

    name: str
    find: Callable[[UInt8[np.ndarray, "h w 3"], Sequence[Annotation]], list[Attributes]]
    """Attributes of each object, in order, by name; none where nothing was found. Pixels are those of the upright image."""
    digest: str = ""
    """Digest of the variables of a trained head: what is found changes with them."""


def finders(names: Sequence[str]) -> list[AttributeFinder]:
    """The finders of these names: colour, shape, text, or the workdir of a run that learned attributes.

    Raises:
      ConfigError: for a name that is none, a run of another task, and for text where what reads it is not installed.
    """
    return [_finder(name) for name in names]


def _finder(name: str) -> AttributeFinder:
    if name in _FINDERS:
        return _FINDERS[name]()
    if Path(name).is_dir():
        from jaxvision.annotate import labeller
        from jaxvision.annotate.learned import Learned

        head = Learned(name)
        return AttributeFinder(name, head.find, labeller.digest(head.model))
    raise ConfigError(f"there are no attributes {name!r}{nearest(name, tuple(_FINDERS))}; or name a workdir")


def _by_region(
    name: str, describe: Callable[[UInt8[np.ndarray, "h w 3"], Region], Attributes]
) -> Callable[[], AttributeFinder]:
    """A finder that looks at each object by itself; one without a pixel in the image has no attributes."""

    def find(pixels: UInt8[np.ndarray, "h w 3"], objects: Sequence[Annotation]) -> list[Attributes]:
        regions = [region(each, (pixels.shape[0], pixels.shape[1])) for each in objects]
        return [{} if each is None else describe(pixels, each) for each in regions]

    return lambda: AttributeFinder(name, find)


def _colour(pixels: UInt8[np.ndarray, "h w 3"], place: Region) -> Attributes:
    found = colours.fractions(pixels[place.rows, place.columns], place.mask)
    listed = tuple(f"{term} {part:.2f}" for term, part in found.items() if part >= LEAST_COLOUR)
    return {"colour": next(iter(found)), "colours": listed}


def _shape(pixels: UInt8[np.ndarray, "h w 3"], place: Region) -> Attributes:
    del pixels
    found = None if place.mask is None else outlines.described(place.mask)
    if found is None:
        return {}
    corners = {} if found.corners is None else {"corners": found.corners}
    turn = {"orientation": round(found.orientation, 1)} if found.aspect >= LEAST_ASPECT else {}
    measures = {"area": found.area, "circularity": round(found.circularity, 3)}
    return {"shape": found.shape, **corners, "aspect": round(found.aspect, 2), **turn, **measures}


def _text() -> AttributeFinder:
    read = text.reader()

    def find(pixels: UInt8[np.ndarray, "h w 3"], objects: Sequence[Annotation]) -> list[Attributes]:
        texts = [each for each in read(pixels) if text.counts(each)] if objects else []
        found = text.texts_of(texts, objects, (pixels.shape[0], pixels.shape[1]))
        return [{"text": each} if each else {} for each in found]

    return AttributeFinder("text", find)


_FINDERS: dict[str, Callable[[], AttributeFinder]] = {
    "colour": _by_region("colour", _colour),
    "shape": _by_region("shape", _shape),
    "text": _text,
}
