"""What is wrong with annotations that can be read: boxes, ids, images; and a copy without it."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from jaxvision.errors import amount, shown
from jaxvision.formats import panoptic, rle
from jaxvision.formats.annotation import AnnotatedImage, AnnotatedObject, Box, FaultKind, Finding, Listing, repeated
from jaxvision.formats.image_file import Size, decoded_size, read, size_mismatch
from jaxvision.machine.limits import cores

ROUNDING = 0.05
"""Pixels that a box may lie outside its image: files are rounded to hundredths, or to a millionth of the image."""
CROWD = "a crowd (iscrowd 1), which pycocotools matches by intersection over the detection's area"


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
        text = str(error).removeprefix(f"{image.file} ")
        return Finding(FaultKind.UNREADABLE, image.annotation_file, where, f"{image.file}: {text}")
    value = None if image.size is None else size_mismatch(image.name, image.size, size, data)
    return size if value is None else Finding(FaultKind.OTHER_SIZE, image.annotation_file, where, value)


def faults(listing: Listing, sizes: Sequence[Size | Finding]) -> Iterator[Finding]:
    """All that is wrong with images, boxes, segmentations, categories and ids; images that share an id are reported first."""
    yield from _ambiguous(listing)
    for image, size in zip(listing.images, sizes, strict=True):
        if isinstance(size, Finding) and size.kind is FaultKind.DUPLICATE_IMAGE:
            continue
        if isinstance(size, Finding):
            yield size
        yield from _faulty_boxes(listing, image, known_size(image, size))
        yield from _faulty_segmentations(image, known_size(image, size))
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


class _Judged(NamedTuple):
    """An object, its box in pixels whole and cut to the image, and an earlier object that is the same, if there is one."""

    entry: AnnotatedObject
    whole: Box
    cut: Box
    twin: AnnotatedObject | None


def _judged(listing: Listing, image: AnnotatedImage, size: Size | None) -> Iterator[_Judged]:
    """Duplicates are objects of one category, box (cut to the image, if it is in it at all), crowd flag and segmentation."""
    seen: dict[tuple[int, Box, bool], list[AnnotatedObject]] = {}
    for entry in image.objects:
        whole = _pixels(listing, entry, size)
        cut = whole if size is None else _cut(whole, size)
        alike = seen.setdefault((entry.label, whole if has_no_area(cut) else cut, entry.ignore), [])
        twin = next((each for each in alike if _segmentation(each) == _segmentation(entry)), None)
        alike.append(entry)
        yield _Judged(entry, whole, cut, twin)


def _segmentation(entry: AnnotatedObject) -> Any:
    return entry.raw.get("segmentation") or None


def _faulty_boxes(listing: Listing, image: AnnotatedImage, size: Size | None) -> Iterator[Finding]:
    for entry, box, _, twin in _judged(listing, image, size):
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


def _faulty_segmentations(image: AnnotatedImage, size: Size | None) -> Iterator[Finding]:
    for entry in image.objects:
        segmentation = entry.raw.get("segmentation")
        problem = rle.fault(segmentation, size)
        if problem is not None:
            yield Finding(FaultKind.SEGMENTATION, image.annotation_file, entry.where, f"of {image.name}: {problem}")
        elif segmentation and size is not None:
            beyond = rle.beyond(segmentation, size, entry.box)
            if beyond is not None:
                yield Finding(FaultKind.BEYOND_BOX, image.annotation_file, entry.where, f"of {image.name}: {beyond}")


def _pixels(listing: Listing, entry: AnnotatedObject, size: Size | None) -> Box:
    """The box in pixels; in fractions of the sides still where these are not known."""
    if not listing.relative or size is None:
        return entry.box
    (height, width), (x0, y0, x1, y1) = size, entry.box
    return x0 * width, y0 * height, x1 * width, y1 * height


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


class Repaired(NamedTuple):
    """A copy without faults."""

    content: dict[str, Any]
    """COCO JSON."""
    changes: Mapping[str, int]
    """What was done, and how often."""


def repaired(listing: Listing, sizes: Sequence[Size | Finding]) -> Repaired:
    """The listing as COCO JSON: images and boxes at fault left out, boxes cut to their image, annotations numbered from 1.

    Segmentations lose polygons of less than three points, and are left out if they are still broken. Categories of one
    name, images of one file, and masks outside their boxes stay: which of them is meant is not known.
    """
    changes: Counter[str] = Counter()
    kept: list[AnnotatedImage] = []
    written: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    beyond: list[Finding] = []
    for image, size in zip(listing.images, sizes, strict=True):
        if isinstance(size, Finding):
            changes[f"left out: {size.kind}"] += 1
            changes["left out: box of an image left out"] += len(image.objects)
            continue
        kept.append(image)
        beyond += (each for each in _faulty_segmentations(image, size) if each.kind is FaultKind.BEYOND_BOX)
        written.append(_written(image, size, changes))
        found += _annotations(listing, image, size, len(found) + 1, changes)
    for finding in (*_ambiguous(listing._replace(images=kept)), *beyond):
        changes[f"left as it is: {finding.kind}"] += 1
    content = {**listing.raw, "images": written, "annotations": found, "categories": _categories(listing)}
    return Repaired(content, +changes)


def _written(image: AnnotatedImage, size: Size, changes: Counter[str]) -> dict[str, Any]:
    stated = [image.raw.get(side) for side in ("height", "width")]
    changes[f"put right: {FaultKind.NO_SIZE}"] += image.size is None and stated != [None, None]
    return {**image.raw, "id": image.id, "file_name": image.name, "width": size[1], "height": size[0]}


def _annotations(
    listing: Listing, image: AnnotatedImage, size: Size, number: int, changes: Counter[str]
) -> list[dict[str, Any]]:
    """Annotations of the boxes that stay, numbered from there."""
    sound = enumerate(_sound(listing, image, size, changes), start=number)
    return [
        _annotation(n, listing.category_ids[entry.label], image, _with_sound_mask(entry, size, changes), box)
        for n, (entry, box) in sound
    ]


def _sound(
    listing: Listing, image: AnnotatedImage, size: Size, changes: Counter[str]
) -> Iterator[tuple[AnnotatedObject, Box]]:
    """The boxes that stay, in pixels, cut."""
    for entry, whole, cut, twin in _judged(listing, image, size):
        if has_no_area(whole):
            changes["left out: zero area"] += 1
        elif has_no_area(cut):
            changes["left out: box wholly outside its image"] += 1
        elif twin is not None:
            changes["left out: duplicate box"] += 1
        else:
            changes["cut to the image: box outside"] += outside(whole, size)
            changes[f"written as {CROWD}: difficult object"] += entry.ignore and "iscrowd" not in entry.raw
            yield entry, cut


def _with_sound_mask(entry: AnnotatedObject, size: Size, changes: Counter[str]) -> AnnotatedObject:
    """The object with its segmentation mended, or without it."""
    given = entry.raw.get("segmentation")
    if rle.fault(given, size) is None:
        return entry
    repaired = rle.repaired(given, size)
    changes[f"{'left out' if repaired is None else 'mended'}: {FaultKind.SEGMENTATION}"] += 1
    rest = {key: value for key, value in entry.raw.items() if key != "segmentation"}
    return entry._replace(raw=rest if repaired is None else {**rest, "segmentation": repaired})


def _cut(box: Box, size: Size) -> Box:
    height, width = size
    x0, x1 = (min(max(side, 0), width) for side in box[::2])
    y0, y1 = (min(max(side, 0), height) for side in box[1::2])
    return x0, y0, x1, y1


def _annotation(number: int, category: int, image: AnnotatedImage, entry: AnnotatedObject, box: Box) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    as_it_was = box == entry.box and "bbox" in entry.raw
    return {
        **entry.raw,
        "id": number,
        "image_id": image.id,
        "category_id": category,
        "bbox": entry.raw["bbox"] if as_it_was else [x0, y0, x1 - x0, y1 - y0],
        "area": _area(entry, box),
        "iscrowd": int(entry.ignore),
    }


def _area(entry: AnnotatedObject, box: Box) -> float:
    """Area as annotated; without a mask that it is of, no more than a box that was cut has left."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    if entry.area is None:
        return area
    return entry.area if box == entry.box or _segmentation(entry) else min(entry.area, area)


def _categories(listing: Listing) -> list[dict[str, Any]]:
    stated: dict[int, dict[str, Any]] = {}
    for each in listing.raw.get("categories", ()):
        if isinstance(each, dict) and each.get("id") in listing.category_ids:
            stated.setdefault(each["id"], each)
    named = zip(listing.category_ids, listing.classes, strict=True)
    return [stated.get(id, {"id": id, "name": name}) for id, name in named]
