"""Doubts about a dataset of objects as a whole: boxes in another convention, no objects, images without annotations.

Each could be meant, and hardly ever is: nothing is refused.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from jaxvision.errors import amount
from jaxvision.formats import voc
from jaxvision.formats.annotation import AnnotatedImage, FaultKind, Finding, Listing
from jaxvision.formats.image_file import Size

LEAVING = 0.1
"""The least part of the boxes that leave their image where corners stand in place of sides."""
LARGEST_FRACTION = 2.0
"""What a coordinate that is a fraction stays below, even where fractions are added up."""
CONVENTIONS = {True: "cx cy width height", False: "x y width height"}
"""What the numbers of a box are, of boxes in fractions and in pixels."""


def doubts(listing: Listing, sizes: Sequence[Size | None]) -> Iterator[Finding]:
    """What looks wrong; `sizes` are those of the images, `(height, width)`, None where they are not known."""
    unlabelled = set(listing.unlabelled)
    bare = [image for image in listing.images if image.name in unlabelled]
    if len(bare) * 2 > len(listing.images):
        yield _unlabelled(listing, bare)
    elif any(image.objects for image in listing.images):
        yield from _convention(listing, sizes)
    elif listing.images:
        file = listing.images[0].annotation_file if listing.raw else str(listing.folder)
        yield Finding(FaultKind.NO_OBJECTS, file, "", f"none of {amount(len(listing.images), 'image')} has an object")


def notes(listing: Listing) -> tuple[str, ...]:
    """What was left out, and how many images have no annotations, a line each."""
    bare = listing.unlabelled
    if not bare:
        return listing.left_out
    text = f"{listing.folder}: {len(bare):,} of {amount(len(listing.images), 'image')} without annotations, first {bare[0]}"
    return (*listing.left_out, text)


def _unlabelled(listing: Listing, bare: Sequence[AnnotatedImage]) -> Finding:
    having = len(listing.images) - len(bare)
    present = f"{having or 'none'} of {amount(len(listing.images), 'image')} {'have' if having > 1 else 'has'} a text"
    value = f"{present}, that of {bare[0].file} would be {bare[0].annotation_file}"
    return Finding(FaultKind.NO_LABELS, str(listing.folder), "", value)


def _convention(listing: Listing, sizes: Sequence[Size | None]) -> Iterator[Finding]:
    """Boxes that make more sense as corners, or as fractions of the sides."""
    entries = [(image, entry) for image in listing.images for entry in image.objects]
    extents = [
        (1.0, 1.0) if listing.relative else (np.nan, np.nan) if size is None else size[::-1]
        for image, size in zip(listing.images, sizes, strict=True)
        for _ in image.objects
    ]
    boxes, limits = np.asarray([entry.box for _, entry in entries], np.float64), np.asarray(extents, np.float64)
    stated = _as_stated(listing, boxes)

    def finding(kind: FaultKind, row: int, text: str) -> Finding:
        (image, entry), numbers = entries[row], " ".join(f"{side:.6g}" for side in stated[row])
        return Finding(kind, image.annotation_file, entry.where, f"{numbers} of {image.name}: {text}")

    if not listing.relative and _look_like_fractions(boxes):
        text = f"all {amount(len(boxes), 'box')} look like fractions of the image's sides; expected are pixels"
        yield finding(FaultKind.FRACTIONS, int(np.argmax((boxes % 1).any(1))), text)
    elif listing.format != voc.FORMAT and _look_like_corners(stated, boxes, limits):
        leaving = _leaving(boxes, limits)
        text = (
            f"all {amount(len(boxes), 'box')} look like corners, x0 y0 x1 y1; read as {CONVENTIONS[listing.relative]}, as"
            f" this format has them, {leaving.sum()} leave their image"
        )
        yield finding(FaultKind.CORNERS, int(np.argmax(leaving)), text)


def in_fractions(listing: Listing) -> bool:
    """Whether the boxes of a format in pixels look like fractions, all of them."""
    boxes = [entry.box for image in listing.images for entry in image.objects]
    return bool(boxes) and not listing.relative and _look_like_fractions(np.asarray(boxes, np.float64))


def _look_like_fractions(boxes: np.ndarray) -> bool:
    return bool(boxes.max() < LARGEST_FRACTION and (boxes % 1).any())


def _as_stated(listing: Listing, boxes: np.ndarray) -> np.ndarray:
    """The four numbers of each box in its file, `n 4`."""
    if listing.format == voc.FORMAT:
        return boxes + [1, 1, 0, 0]
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([boxes[:, :2] + sides / 2 if listing.relative else boxes[:, :2], sides], 1)


def _look_like_corners(stated: np.ndarray, boxes: np.ndarray, limits: np.ndarray) -> bool:
    """Whether all would be boxes inside their images as corners, and many are not as they are read."""
    as_corners = (stated[:, 2:] > stated[:, :2]).all() and not (stated[:, 2:] > limits * 1.01).any()
    return bool(as_corners and _leaving(boxes, limits).mean() >= LEAVING)


def _leaving(boxes: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Which boxes leave their images by more than a hundredth; none whose image has no known size."""
    beyond = 0.01 * limits
    return np.any((boxes[:, :2] < -beyond) | (boxes[:, 2:] > limits + beyond), axis=1)
