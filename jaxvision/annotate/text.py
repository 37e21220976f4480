"""Text in images: read by RapidOCR (Apache-2.0; its models are inside the package), and given to the objects it lies on.

Each line of text is found once an image, cut out along its own corners, and read upright and upside down; the reading of
higher confidence counts. RapidOCR has a classifier of directions of its own, which is left out: it guesses from shape alone.
One engine finds and another reads: an option that is given in a call, such as no detection, sticks to RapidOCR's object.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from jaxvision.annotate.records import Annotation
from jaxvision.annotate.regions import region
from jaxvision.errors import ConfigError
from jaxvision.machine.limits import cores

CONFIDENCE = 0.8
"""Confidence from which on a reading counts."""
CHARACTERS = 2
"""Letters or digits that a text has at least. A lone one is as often a form: a ring is read as O, a triangle as V."""
INSIDE = 0.5
"""Fraction of a text's area that lies on an object which it is given to."""
GRID = 16
"""Points along and across a text by which that fraction is measured."""


class Text(NamedTuple):
    """Line of text in an image."""

    text: str
    confidence: float
    """From 0 to 1."""
    corners: Float[np.ndarray, "4 2"]
    """x y in pixels of the image, clockwise around the text, from the upper left one as the image is held."""


Read = Callable[[UInt8[np.ndarray, "h w 3"]], list[Text]]
"""From the pixels of an upright image to the texts in it, from top to bottom."""


def reader() -> Read:
    """What reads the texts of images. The models are loaded at the first image.

    Raises:
      ConfigError: if RapidOCR or what runs its models is not installed.
    """
    finding, reading = _engines()

    def read(pixels: UInt8[np.ndarray, "h w 3"]) -> list[Text]:
        image = np.ascontiguousarray(pixels[..., ::-1])  # blue first
        boxes = finding(image).boxes
        if boxes is None or not len(boxes):
            return []
        crops = finding.crop_text_regions(image, np.asarray(boxes, np.float32))
        turned = [np.ascontiguousarray(crop[::-1, ::-1]) for crop in crops]
        found = reading.recognize_txt([*crops, *turned])
        readings = list(zip(found.txts, map(float, found.scores), strict=True))
        best = [max(both, key=lambda each: each[1]) for both in zip(readings, readings[len(crops) :], strict=False)]
        return [Text(line, sure, np.asarray(box, np.float64)) for (line, sure), box in zip(best, boxes, strict=True)]

    return read


@functools.cache
def _engines() -> tuple[Any, Any]:
    """What finds lines of text, and what reads them."""
    try:
        import onnxruntime  # noqa: F401  # pyright: ignore[reportMissingImports]
        from rapidocr import RapidOCR  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        needed = "the attributes 'text' are read by rapidocr and onnxruntime"
        raise ConfigError(f"{needed}, which can't be had ({error}): pip install 'jaxvision[text]'") from None
    quiet = {
        "Global.log_level": "error",
        "Global.use_cls": False,
        "EngineConfig.onnxruntime.intra_op_num_threads": cores(),
    }
    return RapidOCR(params=quiet | {"Global.use_rec": False}), RapidOCR(params=quiet | {"Global.use_det": False})


def counts(found: Text) -> bool:
    """Whether a reading is text, and sure enough."""
    return found.confidence >= CONFIDENCE and sum(map(str.isalnum, found.text)) >= CHARACTERS


def texts_of(texts: Sequence[Text], objects: Sequence[Annotation], size: tuple[int, int]) -> list[tuple[str, ...]]:
    """The texts on each object, in their order: those of which half lies in its mask, or its box where it has none.

    Args:
      texts: those of an image.
      objects: those of the same image.
      size: height and width of the image.
    """
    return [tuple(each.text.strip() for each in texts if _inside(each, found, size) >= INSIDE) for found in objects]


def _inside(text: Text, found: Annotation, size: tuple[int, int]) -> float:
    """The fraction of the text that lies on an object."""
    place = region(found, size)
    if place is None:
        return 0.0
    across = (np.arange(GRID) + 0.5) / GRID
    x, y = np.floor(_blend(text.corners, across[:, None], across[None, :])).astype(int)
    rows, columns = place.rows, place.columns
    within = (rows.start <= y) & (y < rows.stop) & (columns.start <= x) & (x < columns.stop)
    if place.mask is not None:
        within[within] = place.mask[y[within] - rows.start, x[within] - columns.start]
    return float(within.mean())


def _blend(corners: Float[np.ndarray, "4 2"], along: np.ndarray, down: np.ndarray) -> Float[np.ndarray, "2 n m"]:
    """Points x y of a quadrilateral, by their fractions of the way along and down it."""
    weights = (1 - along) * (1 - down), along * (1 - down), along * down, (1 - along) * down
    return np.einsum("kd,knm->dnm", corners, np.stack(weights))
