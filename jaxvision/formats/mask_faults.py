"""What is wrong with the masks of a COCO file: broken, absent, empty, beyond their box, in fractions, of another area."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxvision.errors import DataError, amount
from jaxvision.formats import rle, segmentation
from jaxvision.formats.annotation import AnnotatedImage, AnnotatedObject, FaultKind, Finding, Listing
from jaxvision.formats.image_file import Size
from jaxvision.masks.runs import Runs, area

PART = 0.5
"""The least part that the smaller of two areas is of the larger where both could be the mask's."""
SMALL = 10
"""Pixels by which areas may differ whatever they are: of a small mask most pixels lie on its border."""


class Unusable(DataError):
    """A mask that is none: the kind of its fault, and why."""

    def __init__(self, kind: FaultKind, text: str):
        """Takes both."""
        super().__init__(text)
        self.kind = kind


class Mask(NamedTuple):
    """A mask that can be used."""

    compacted: Any
    """What `rle.compact` gives."""
    runs: Runs


def has_masks(listing: Listing) -> bool:
    """Whether an object has a mask, sound or not."""
    return any(not rle.is_none(each.raw.get("segmentation")) for image in listing.images for each in image.objects)


def faults(image: AnnotatedImage, size: Size | None, masks: bool) -> Iterator[Finding]:
    """What is wrong with the masks of an image; without its size what can be said so. `masks`: whether others have one."""
    for entry in image.objects:
        for kind, value in _problems(entry, size, masks):
            yield Finding(kind, image.annotation_file, entry.where, f"of {image.name}: {value}")


def _problems(entry: AnnotatedObject, size: Size | None, masks: bool) -> Iterator[tuple[FaultKind, str]]:
    try:
        mask = read(entry, size)
    except Unusable as error:
        if _is_news(error.kind, entry, masks):
            yield error.kind, str(error)
        return
    if mask is None:
        return
    beyond = rle.beyond(mask.compacted, mask.runs, entry.box)
    if beyond is not None:
        yield FaultKind.BEYOND_BOX, beyond
    if has_strange_area(entry, mask):
        pixels = amount(area(mask.runs), "pixel")
        yield FaultKind.MASK_AREA, f"area is {entry.area:.6g}, its mask has {pixels}; allowed is half to twice as much"


def _is_news(kind: FaultKind, entry: AnnotatedObject, masks: bool) -> bool:
    """Whether the fault is not told already: of a file without masks, of a box in fractions like its mask."""
    if kind is FaultKind.IN_FRACTIONS:
        return not rle.look_like_fractions(np.asarray(entry.box))
    return masks or kind is not FaultKind.NO_MASK


def read(entry: AnnotatedObject, size: Size | None) -> Mask | None:
    """The mask of an object of an image of this size; None where that is not known. Raises Unusable for none."""
    given = entry.raw.get("segmentation")
    if rle.is_none(given):
        present = "segmentation is []" if given == [] else "there is no segmentation"
        raise Unusable(FaultKind.NO_MASK, f"{present}, and others of the file have one")
    try:
        compacted = rle.compact(given)
        runs = None if size is None else rle.runs(compacted, size)
    except ValueError as error:
        raise Unusable(FaultKind.SEGMENTATION, str(error)) from None
    if isinstance(compacted, list) and rle.look_like_fractions(np.concatenate(compacted)):
        value = "segmentation looks like fractions of the image's sides; expected are pixels"
        raise Unusable(FaultKind.IN_FRACTIONS, value)
    if runs is not None and not area(runs):
        raise Unusable(FaultKind.EMPTY_MASK, "segmentation covers no pixel of the image")
    return None if runs is None else Mask(compacted, runs)


def has_strange_area(entry: AnnotatedObject, mask: Mask) -> bool:
    """Whether the area that is stated can be neither that of its mask, nor that inside of polygons that leave the image."""
    measured = [float(area(mask.runs))]
    measured += [] if isinstance(mask.compacted, Mapping) else [segmentation.area(mask.compacted)]
    return entry.area is not None and all(_differ(entry.area, each) for each in measured)


def _differ(stated: float, measured: float) -> bool:
    return abs(stated - measured) > SMALL and min(stated, measured) < PART * max(stated, measured)
