"""What is wrong with annotations that can be read: boxes, ids, images; and a copy without it."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from jaxvision.data import segmentation
from jaxvision.data.annotation_files import Box, Entry, Finding, Kind, Listing, Picture, other_size, repeated
from jaxvision.data.decode import decode
from jaxvision.data.placement import Size, stretch

ROUNDING = 0.05
"""Pixels that a box may lie outside its image: files are rounded to hundredths, or to a millionth of the image."""
CROWD = "a crowd (iscrowd 1), which pycocotools matches by another overlap"
WHOLE_IMAGE = stretch(8)
"""A placement that needs every pixel."""


def images(listing: Listing) -> list[Size | Finding]:
    """Of each image, decoded whole: its `(height, width)` upright, or why it can't be used."""
    names: dict[int, list[str]] = {}
    for picture in listing.pictures:
        names.setdefault(picture.id, []).append(picture.name)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        return list(pool.map(lambda picture: _image(picture, names[picture.id]), listing.pictures))


def _image(picture: Picture, names: Sequence[str]) -> Size | Finding:
    where = f"image {picture.id}"
    if len(names) > 1:
        value = f"{len(names)} images have this id, and its annotations could be of each: {', '.join(names)}"
        return Finding(Kind.DUPLICATE_IMAGE, picture.told_in, where, value)
    try:
        data = picture.file.read_bytes()
        size = decode(data, WHOLE_IMAGE).original_size
    except FileNotFoundError:
        return Finding(Kind.MISSING, picture.told_in, where, f"there is no file {picture.file}")
    except (OSError, ValueError) as error:
        return Finding(Kind.UNREADABLE, picture.told_in, where, f"{picture.file}: {error}")
    value = None if picture.size is None else other_size(picture.name, picture.size, size, data)
    return size if value is None else Finding(Kind.OTHER_SIZE, picture.told_in, where, value)


def faults(listing: Listing, sizes: Sequence[Size | Finding]) -> Iterator[Finding]:
    """All that is wrong with images, boxes, segmentations, categories and ids; but images that share an id, told before."""
    yield from _ambiguous(listing)
    for picture, size in zip(listing.pictures, sizes, strict=True):
        if isinstance(size, Finding) and size.kind is Kind.DUPLICATE_IMAGE:
            continue
        if isinstance(size, Finding):
            yield size
        yield from _faulty_boxes(listing, picture, known_size(picture, size))
        yield from _faulty_segmentations(picture, known_size(picture, size))
    yield from _faulty_ids(listing)


def known_size(picture: Picture, size: Size | Finding) -> Size | None:
    """Of the image, or as the annotations have it; None if neither says."""
    return picture.size if isinstance(size, Finding) else size


def _ambiguous(listing: Listing) -> Iterator[Finding]:
    """Names that are those of two categories, files that are those of two images."""
    told_in = listing.pictures[0].told_in if listing.raw and listing.pictures else str(listing.folder)
    for name in repeated(listing.classes):
        named = zip(listing.category_ids, listing.classes, strict=True)
        ids = ", ".join(str(id) for id, each in named if each == name)
        yield Finding(Kind.DUPLICATE_CATEGORY, told_in, f"categories {ids}", f"all have the name {name!r}")
    first: dict[str, Picture] = {}
    for picture in listing.pictures:
        same = first.setdefault(os.path.normpath(picture.name), picture)
        if same.id != picture.id:
            value = f"{picture.name} is the file of image {same.id}, too"
            yield Finding(Kind.SAME_FILE, picture.told_in, f"image {picture.id}", value)


class _Judged(NamedTuple):
    """An object, its box in pixels whole and cut to the image, and an earlier object that is the same, if there is one."""

    entry: Entry
    whole: Box
    cut: Box
    twin: Entry | None


def _judged(listing: Listing, picture: Picture, size: Size | None) -> Iterator[_Judged]:
    """The same are objects of one category, box (cut to the image, where it is in it at all), crowd flag and segmentation."""
    seen: dict[tuple[int, Box, bool], list[Entry]] = {}
    for entry in picture.entries:
        whole = _pixels(listing, entry, size)
        cut = whole if size is None else _cut(whole, size)
        alike = seen.setdefault((entry.label, whole if has_no_area(cut) else cut, entry.ignore), [])
        twin = next((each for each in alike if _segmentation(each) == _segmentation(entry)), None)
        alike.append(entry)
        yield _Judged(entry, whole, cut, twin)


def _segmentation(entry: Entry) -> Any:
    return entry.raw.get("segmentation") or None


def _faulty_boxes(listing: Listing, picture: Picture, size: Size | None) -> Iterator[Finding]:
    for entry, box, _, twin in _judged(listing, picture, size):
        text = f"box {' '.join(f'{side:.6g}' for side in box)} (x0 y0 x1 y1) of {picture.name}"

        def finding(kind: Kind, value: str, where: str = entry.where) -> Finding:
            return Finding(kind, picture.told_in, where, value)

        if has_no_area(box):
            yield finding(Kind.NO_AREA, f"{text} has no area")
        if size is not None and outside(box, size):
            yield finding(Kind.OUTSIDE, f"{text}, which is {size[1]}x{size[0]} (width x height)")
        if twin is not None:
            same = "is" if entry.box == twin.box else "is, cut to the image,"
            yield finding(Kind.DUPLICATE_BOX, f"{text} {same} that of {twin.where}, of the same category")


def _faulty_segmentations(picture: Picture, size: Size | None) -> Iterator[Finding]:
    for entry in picture.entries:
        problem = segmentation.fault(entry.raw.get("segmentation"), size)
        if problem is not None:
            yield Finding(Kind.SEGMENTATION, picture.told_in, entry.where, f"of {picture.name}: {problem}")


def _pixels(listing: Listing, entry: Entry, size: Size | None) -> Box:
    """The box in pixels; in shares of the sides still where these are not known."""
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
    """Of a form that has ids: pycocotools takes a match with id 0 for none, and of two with the same id knows one."""
    if not listing.raw:
        return
    first: dict[int, str] = {}
    for picture in listing.pictures:
        here = f"image {picture.id} ({picture.name})"
        for entry in picture.entries:
            if entry.id is None:
                value = f"of {here}: id is {entry.raw.get('id')!r}; allowed are whole numbers from 1"
                yield Finding(Kind.NO_ID, picture.told_in, entry.where, value)
                continue
            if entry.id == 0:
                value = f"of {here}: an evaluation may lose a match with it; allowed are whole numbers from 1"
                yield Finding(Kind.ZERO_ID, picture.told_in, entry.where, value)
            if entry.id in first:
                value = f"of {here}: one of {first[entry.id]} has this id"
                yield Finding(Kind.DUPLICATE_ID, picture.told_in, entry.where, value)
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
    name, and images of one file, stay: which of them is meant is not known.
    """
    changes: Counter[str] = Counter()
    kept: list[Picture] = []
    written: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for picture, size in zip(listing.pictures, sizes, strict=True):
        if isinstance(size, Finding):
            changes[f"left out: {size.kind}"] += 1
            changes["left out: box of an image left out"] += len(picture.entries)
            continue
        kept.append(picture)
        written.append(_written(picture, size, changes))
        found += _annotations(listing, picture, size, len(found) + 1, changes)
    for finding in _ambiguous(listing._replace(pictures=kept)):
        changes[f"left as it is: {finding.kind}"] += 1
    content = {**listing.raw, "images": written, "annotations": found, "categories": _categories(listing)}
    return Repaired(content, +changes)


def _written(picture: Picture, size: Size, changes: Counter[str]) -> dict[str, Any]:
    told = [picture.raw.get(side) for side in ("height", "width")]
    changes[f"put right: {Kind.NO_SIZE}"] += picture.size is None and told != [None, None]
    return {**picture.raw, "id": picture.id, "file_name": picture.name, "width": size[1], "height": size[0]}


def _annotations(
    listing: Listing, picture: Picture, size: Size, number: int, changes: Counter[str]
) -> list[dict[str, Any]]:
    """Of the boxes that stay, numbered from there."""
    sound = enumerate(_sound(listing, picture, size, changes), start=number)
    return [
        _annotation(n, listing.category_ids[entry.label], picture, _with_sound_mask(entry, size, changes), box)
        for n, (entry, box) in sound
    ]


def _sound(listing: Listing, picture: Picture, size: Size, changes: Counter[str]) -> Iterator[tuple[Entry, Box]]:
    """The boxes that stay, in pixels, cut."""
    for entry, whole, cut, twin in _judged(listing, picture, size):
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


def _with_sound_mask(entry: Entry, size: Size, changes: Counter[str]) -> Entry:
    """The object with its segmentation mended, or without it."""
    told = entry.raw.get("segmentation")
    if segmentation.fault(told, size) is None:
        return entry
    mended = segmentation.mended(told, size)
    changes[f"{'left out' if mended is None else 'mended'}: {Kind.SEGMENTATION}"] += 1
    rest = {key: value for key, value in entry.raw.items() if key != "segmentation"}
    return entry._replace(raw=rest if mended is None else {**rest, "segmentation": mended})


def _cut(box: Box, size: Size) -> Box:
    height, width = size
    x0, x1 = (min(max(side, 0), width) for side in box[::2])
    y0, y1 = (min(max(side, 0), height) for side in box[1::2])
    return x0, y0, x1, y1


def _annotation(number: int, category: int, picture: Picture, entry: Entry, box: Box) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    as_it_was = box == entry.box and "bbox" in entry.raw
    return {
        **entry.raw,
        "id": number,
        "image_id": picture.id,
        "category_id": category,
        "bbox": entry.raw["bbox"] if as_it_was else [x0, y0, x1 - x0, y1 - y0],
        "area": _area(entry, box),
        "iscrowd": int(entry.ignore),
    }


def _area(entry: Entry, box: Box) -> float:
    """As annotated; without a mask that it is of, no more than a box that was cut has left."""
    there = (box[2] - box[0]) * (box[3] - box[1])
    if entry.area is None:
        return there
    return entry.area if box == entry.box or _segmentation(entry) else min(entry.area, there)


def _categories(listing: Listing) -> list[dict[str, Any]]:
    told: dict[int, dict[str, Any]] = {}
    for each in listing.raw.get("categories", ()):
        if isinstance(each, dict) and each.get("id") in listing.category_ids:
            told.setdefault(each["id"], each)
    named = zip(listing.category_ids, listing.classes, strict=True)
    return [told.get(id, {"id": id, "name": name}) for id, name in named]
