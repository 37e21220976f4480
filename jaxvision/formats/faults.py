"""What is wrong with annotations that can be read: boxes, ids, images."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jaxvision.errors import amount, shown
from jaxvision.formats import doubts, mask_faults, panoptic, rle
from jaxvision.formats.annotation import AnnotatedImage, AnnotatedObject, Box, FaultKind, Finding, Listing, repeated
from jaxvision.formats.image_file import Size, decoded_size, read, size_mismatch
from jaxvision.machine.limits import cores

ROUNDING = 0.05
"""Pixels that a box may lie outside its image: files are rounded to hundredths, or to a millionth of the image."""


def image_sizes(listing: Listing) -> list[Size | Finding]:
    """`(height, width)` of each image, upright and decoded whole, or why it can't be used."""
    names: dict[int, list[str]] = {}
    for image in listing.images:
        names.setdefault(image.id, []).append(image.name)
    with ThreadPoolExecutor(min(cores(), 8)) as pool:
        return list(pool.map(lambda image: _image(image, names[image.id]), listing.images))


def _image(image: AnnotatedImage, names: Sequence[str]) -> Size | Finding:
    where = f"image {image.id}"
    if len(names) > 1:
        some_names = f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        value = f"{amount(len(names), 'image')} have this id, and its annotations could be of each: {some_names}"
        return Finding(FaultKind.DUPLICATE_IMAGE, image.annotation_file, where, value)
    try:
        if not os.path.exists(image.file):
            return Finding(FaultKind.MISSING, image.annotation_file, where, f"there is no file {image.file}")
        data = read(image.file)
        size = decoded_size(data)
    except ValueError as error:
        listed = f"{where} of {image.annotation_file}" if image.raw else ""
        return Finding(FaultKind.UNREADABLE, str(image.file), listed, str(error).removeprefix(f"{image.file} "))
    value = None if image.size is None else size_mismatch(image.name, image.size, size, data)
    return size if value is None else Finding(FaultKind.OTHER_SIZE, image.annotation_file, where, value)


def faults(listing: Listing, sizes: Sequence[Size | Finding]) -> Iterator[Finding]:
    """All that is wrong with images, boxes, segmentations, categories and ids; images that share an id are reported first."""
    yield from _ambiguous(listing)
    masks, fractions = mask_faults.has_masks(listing), doubts.in_fractions(listing)
    for image, size in zip(listing.images, sizes, strict=True):
        if isinstance(size, Finding) and size.kind is FaultKind.DUPLICATE_IMAGE:
            continue
        if isinstance(size, Finding):
            yield size
        yield from _faulty_boxes(listing, image, known_size(image, size))
        if not fractions:
            yield from _in_fractions(listing, image)
        yield from mask_faults.faults(image, known_size(image, size), masks)
    yield from _faulty_ids(listing)


def known_size(image: AnnotatedImage, size: Size | Finding) -> Size | None:
    """Size of the image, or that of its annotations; None if neither says."""
    return image.size if isinstance(size, Finding) else size


def _ambiguous(listing: Listing) -> Iterator[Finding]:
    """Names that are those of two categories, files that are those of two images."""
    annotation_file = listing.images[0].annotation_file if listing.raw and listing.images else str(listing.folder)
    for name in repeated(listing.classes):
        named = zip(listing.category_ids, listing.classes, strict=True)
        ids = [str(id) for id, each in named if each == name]
        where = f"categories {', '.join(ids[:8])}{', ...' if len(ids) > 8 else ''}"
        yield Finding(FaultKind.DUPLICATE_CATEGORY, annotation_file, where, f"all have the name {shown(name)}")
    first: dict[str, AnnotatedImage] = {}
    for image in listing.images:
        same = first.setdefault(os.path.normpath(image.name), image)
        if same.id != image.id:
            value = f"{image.name} is the file of image {same.id}, too"
            yield Finding(FaultKind.SAME_FILE, image.annotation_file, f"image {image.id}", value)


class Judged(NamedTuple):
    """An object, its box in pixels whole and cut to the image, and an earlier object that is the same, if there is one."""

    entry: AnnotatedObject
    whole: Box
    cut: Box
    twin: AnnotatedObject | None


def judged(listing: Listing, image: AnnotatedImage, size: Size | None) -> Iterator[Judged]:
    """Duplicates are objects of one category, box (cut to the image, if it is in it at all), crowd flag and segmentation."""
    seen: dict[tuple[int, Box, bool], list[AnnotatedObject]] = {}
    for entry in image.objects:
        whole = pixels(listing, entry, size)
        cut = whole if size is None else cut_to(size, whole)
        alike = seen.setdefault((entry.label, whole if has_no_area(cut) else cut, entry.ignore), [])
        twin = next((each for each in alike if segmentation(each) == segmentation(entry)), None)
        alike.append(entry)
        yield Judged(entry, whole, cut, twin)


def segmentation(entry: AnnotatedObject) -> Any:
    """The object's segmentation as its file has it; None for none."""
    return entry.raw.get("segmentation") or None


def _faulty_boxes(listing: Listing, image: AnnotatedImage, size: Size | None) -> Iterator[Finding]:
    for entry, box, _, twin in judged(listing, image, size):
        text = f"box {' '.join(f'{side:.6g}' for side in box)} (x0 y0 x1 y1) of {image.name}"

        def finding(kind: FaultKind, value: str, where: str = entry.where) -> Finding:
            return Finding(kind, image.annotation_file, where, value)

        if has_no_area(box):
            yield finding(FaultKind.NO_AREA, f"{text} has no area")
        if size is not None and outside(box, size):
            yield finding(FaultKind.OUTSIDE, f"{text}, which is {size[1]}x{size[0]} (width x height)")
        if twin is not None:
            same = "is" if entry.box == twin.box else "is, cut to the image,"
            yield finding(FaultKind.DUPLICATE_BOX, f"{text} {same} that of {twin.where}, of the same category")


def box_in_fractions(listing: Listing, entry: AnnotatedObject) -> bool:
    """Whether the box of a format in pixels lies in the first of them."""
    return not listing.relative and rle.look_like_fractions(np.asarray(entry.box))


def _in_fractions(listing: Listing, image: AnnotatedImage) -> Iterator[Finding]:
    for entry in image.objects:
        if box_in_fractions(listing, entry):
            text = f"box {' '.join(f'{side:.6g}' for side in entry.box)} (x0 y0 x1 y1) of {image.name}"
            value = f"{text} looks like fractions of the image's sides; expected are pixels"
            yield Finding(FaultKind.IN_FRACTIONS, image.annotation_file, entry.where, value)


def pixels(listing: Listing, entry: AnnotatedObject, size: Size | None) -> Box:
    """The box in pixels; in fractions of the sides still where these are not known."""
    if not listing.relative or size is None:
        return entry.box
    (height, width), (x0, y0, x1, y1) = size, entry.box
    return x0 * width, y0 * height, x1 * width, y1 * height


def cut_to(size: Size, box: Box) -> Box:
    """The part of the box inside an image of this size; without area where there is none."""
    height, width = size
    x0, x1 = (min(max(side, 0), width) for side in box[::2])
    y0, y1 = (min(max(side, 0), height) for side in box[1::2])
    return x0, y0, x1, y1


def has_no_area(box: Box) -> bool:
    """Whether a side of it is zero."""
    return box[2] <= box[0] or box[3] <= box[1]


def outside(box: Box, size: Size) -> bool:
    """Whether a part of the box lies outside the image."""
    height, width = size
    return min(box[:2]) < -ROUNDING or box[2] > width + ROUNDING or box[3] > height + ROUNDING


def _faulty_ids(listing: Listing) -> Iterator[Finding]:
    """Faulty ids of a format that has ids: pycocotools takes a match with id 0 for none, and knows one of two equal ids."""
    if not listing.raw or listing.format == panoptic.FORMAT:
        return
    first: dict[int, str] = {}
    for image in listing.images:
        here = f"image {image.id} ({image.name})"
        for entry in image.objects:
            if entry.id is None:
                value = f"of {here}: id is {shown(entry.raw.get('id'))}; allowed are whole numbers from 1"
                yield Finding(FaultKind.NO_ID, image.annotation_file, entry.where, value)
                continue
            if entry.id == 0:
                value = f"of {here}: an evaluation may lose a match with it; allowed are whole numbers from 1"
                yield Finding(FaultKind.ZERO_ID, image.annotation_file, entry.where, value)
            if entry.id in first:
                value = f"of {here}: one of {first[entry.id]} has this id"
                yield Finding(FaultKind.DUPLICATE_ID, image.annotation_file, entry.where, value)
            first.setdefault(entry.id, here)
