"""What is wrong with the maps of a dataset: files, sizes, values without a meaning, segments without an annotation."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np

from jaxvision.errors import amount
from jaxvision.formats import maps, panoptic
from jaxvision.formats.annotation import AnnotatedImage, AnnotatedObject, FaultKind, Finding, Listing
from jaxvision.formats.class_maps import SHOWN, BadMap, Table, classes, extents, ranges, table, values
from jaxvision.formats.image_file import BadImage, Size, read
from jaxvision.formats.rle import BESIDE
from jaxvision.machine.limits import cores

WHITE = 255
"""The value of what is on in a mask of black and white."""


def faults(listing: Listing, sizes: Sequence[Size | Finding]) -> Iterator[Finding]:
    """All that is wrong with the maps of the images that have one; `sizes` are those of the images, as in `faults.faults`."""
    known = None if listing.meaning is None else table(listing.meaning)

    def found(image: AnnotatedImage, size: Size | Finding) -> list[Finding]:
        if image.map is None or isinstance(size, Finding):
            return []
        if known is None:
            return list(_panoptic(image, size))
        return [*_classes(listing, image, size, known), *_instances(listing, image, size)]

    pairs = zip(listing.images, sizes, strict=True)
    usable = [(image, size) for image, size in pairs if not isinstance(size, Finding)]
    doubt = None if known is None else foreground_lost(usable, known)
    with ThreadPoolExecutor(min(cores(), 8)) as pool:
        for each in chain.from_iterable(pool.map(found, listing.images, sizes)):
            if doubt is None or each.kind is not FaultKind.BLACK_AND_WHITE:
                yield each
    if doubt is not None:
        yield Finding(FaultKind.MAP_LABEL, str(folder(listing)), "", doubt)


def folder(listing: Listing) -> Path:
    """The folder that holds all maps of a listing; that of the images where there are none."""
    places = {str(image.map.parent) for image in listing.images if image.map is not None}
    return Path(os.path.commonpath(places)) if places else listing.folder


def foreground_lost(images: Sequence[tuple[AnnotatedImage, Size]], known: Table) -> str | None:
    """What to say where maps have the first class and what is void, and nothing else: as a rule, black and white ones."""
    first = void = 0
    for image, size in images:
        if image.map is None:
            continue
        try:
            pixels = values(read(image.map), size)
            labels, valid = classes(pixels, known)
        except BadImage:
            continue
        if (valid & (labels > 0)).any():
            return None
        first, void = first + int(valid.sum()), void + int((~valid).sum())
    if not first or not void:
        return None
    return (
        f"none of the maps has a class but the first, and {void / (first + void):.0%} of their pixels are void; of masks in"
        " black and white, --values 0:0,255:1 of formats.check, in Python values={0: 0, 255: 1} says that 255 is the second"
        " class"
    )


def _classes(listing: Listing, image: AnnotatedImage, size: Size, known: Table) -> Iterator[Finding]:
    """Faults of the map of classes; those of Cityscapes are void as a whole where its test split is."""
    assert image.map is not None
    try:
        pixels = values(read(image.map), size)
        labels, valid = classes(pixels, known)
    except BadImage as error:
        yield _finding(image, image.map, error)
        return
    if not valid.any():
        if listing.format != maps.CITYSCAPES:
            value = f"none of its pixels has a class; they are {ranges(np.unique(pixels))}, which is void"
            yield Finding(FaultKind.ALL_VOID, str(image.map), "", value)
    elif not (labels[valid] > 0).any() and (pixels[~valid] == WHITE).any():
        count = amount(int(np.count_nonzero(pixels == WHITE)), "pixel")
        void = f"has {count} of {WHITE}, which is void, and no class but the first"
        first = "" if listing.meaning is None else f" ({listing.meaning.classes[0]})"
        value = f"{void}{first}; is {WHITE} a class?"
        yield Finding(FaultKind.BLACK_AND_WHITE, str(image.map), "", value)


def _instances(listing: Listing, image: AnnotatedImage, size: Size) -> Iterator[Finding]:
    """Faults of the map of objects, where there are such maps."""
    if image.instances is None or not image.instances.parent.is_dir():
        return
    try:
        found = values(read(image.instances), size)
    except BadImage as error:
        yield _finding(image, image.instances, error)
        return
    strange = maps.strange_instances(found) if listing.format == maps.CITYSCAPES else []
    if strange:
        named = ", ".join(map(str, strange[:SHOWN])) + (", ..." if len(strange) > SHOWN else "")
        allowed = (
            f"allowed are 0 to {maps.LARGEST_CITYSCAPES_ID}, and these times {maps.INSTANCES} plus a number below that"
        )
        yield Finding(FaultKind.MAP_LABEL, str(image.instances), "", f"has pixels of value {named}; {allowed}")


def _finding(image: AnnotatedImage, file: Path, error: BadImage) -> Finding:
    if isinstance(error, BadMap):
        return Finding(error.kind, str(file), "", str(error))
    text = f"there is no such file, the map of {image.file}"
    if os.path.exists(file):
        text = str(error).removeprefix(f"{file} ")
    return Finding(FaultKind.NO_MAP, str(file), "", text)


def _panoptic(image: AnnotatedImage, size: Size) -> Iterator[Finding]:
    """Faults of the file of ids, and of what is said of its segments."""
    where = f"image {image.id}"
    try:
        pixels = panoptic.segment_ids(image, size)
    except BadImage as error:
        broken = isinstance(error, BadMap)
        value = f"{image.map} {error}" if broken else str(error)
        yield Finding(error.kind if broken else FaultKind.NO_MAP, image.annotation_file, where, value)
        return
    present = set(np.unique(pixels).tolist()) - {0}
    stated = {each.id: each for each in image.objects}
    if not present and not stated:
        yield Finding(
            FaultKind.ALL_VOID, image.annotation_file, where, f"{image.map} has no segment, nor segments_info"
        )
    for id in sorted(present - stated.keys()):
        count = amount(int(np.count_nonzero(pixels == id)), "pixel")
        value = f"{image.map} has {count} of id {id}, {panoptic.UNSTATED}"
        yield Finding(FaultKind.NO_SEGMENT, image.annotation_file, where, value)
    for id, each in stated.items():
        if id not in present:
            value = f"{image.map} has no pixel of this id"
            yield Finding(FaultKind.NO_PIXEL, image.annotation_file, each.where, value)
    for each, box in _boxes(image, pixels):
        if max(np.max(np.asarray(each.box[:2]) - box[:2]), np.max(box[2:] - np.asarray(each.box[2:]))) > BESIDE:
            mask, stated_box = (" ".join(f"{side:.6g}" for side in sides) for sides in (box, each.box))
            value = f"its pixels lie in {mask} (x0 y0 x1 y1), its box is {stated_box}"
            yield Finding(FaultKind.BEYOND_BOX, image.annotation_file, each.where, value)


def _boxes(image: AnnotatedImage, pixels: np.ndarray) -> Iterator[tuple[AnnotatedObject, np.ndarray]]:
    boxes, areas = extents(pixels, panoptic.segments(image))
    return ((each, box) for each, box, area in zip(image.objects, boxes, areas, strict=True) if area)
