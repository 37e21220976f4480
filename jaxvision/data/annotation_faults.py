"""What is wrong with annotations that can be read: boxes, ids, images; and a copy without it."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from jaxvision.data.annotation_files import Box, Entry, Finding, Kind, Listing, Picture, other_size
from jaxvision.data.decode import decode
from jaxvision.data.placement import Size, stretch

ROUNDING = 0.05
"""Pixels that a box may lie outside its image: files are rounded to hundredths, or to a millionth of the image."""
WHOLE_IMAGE = stretch(8)
"""A placement that needs every pixel."""


def images(listing: Listing) -> list[Size | Finding]:
    """Of each image, decoded whole: its `(height, width)` upright, or what is wrong with it."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        return list(pool.map(_image, listing.pictures))


def _image(picture: Picture) -> Size | Finding:
    where = f"image {picture.id}"
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
    """All that is wrong with images, boxes and ids."""
    for picture, size in zip(listing.pictures, sizes, strict=True):
        if isinstance(size, Finding):
            yield size
        yield from _faulty_boxes(listing, picture, known_size(picture, size))
    yield from _faulty_ids(listing)


def known_size(picture: Picture, size: Size | Finding) -> Size | None:
    """Of the image, or as the annotations have it; None if neither says."""
    return picture.size if isinstance(size, Finding) else size


def _faulty_boxes(listing: Listing, picture: Picture, size: Size | None) -> Iterator[Finding]:
    first: dict[tuple[int, Box], str] = {}
    for entry in picture.entries:
        box = _pixels(listing, entry, size)
        text = f"box {' '.join(f'{side:.6g}' for side in box)} (x0 y0 x1 y1) of {picture.name}"

        def finding(kind: Kind, value: str, where: str = entry.where) -> Finding:
            return Finding(kind, picture.told_in, where, value)

        if has_no_area(box):
            yield finding(Kind.NO_AREA, f"{text} has no area")
        if size is not None and outside(box, size):
            yield finding(Kind.OUTSIDE, f"{text}, which is {size[1]}x{size[0]} (width x height)")
        if (entry.label, entry.box) in first:
            yield finding(
                Kind.DUPLICATE_BOX, f"{text} is that of {first[entry.label, entry.box]}, of the same category"
            )
        first.setdefault((entry.label, entry.box), entry.where)


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
    """The listing as COCO JSON: images and boxes at fault left out, boxes cut to their image, annotations numbered from 1."""
    changes: Counter[str] = Counter()
    kept, found = [], []
    for picture, size in zip(listing.pictures, sizes, strict=True):
        if isinstance(size, Finding):
            changes[f"left out: {size.kind}"] += 1
            changes["left out: box of an image left out"] += len(picture.entries)
            continue
        kept.append({**picture.raw, "id": picture.id, "file_name": picture.name, "width": size[1], "height": size[0]})
        found += [(picture, entry, box) for entry, box in _sound(listing, picture, size, changes)]
    content = {
        **listing.raw,
        "images": kept,
        "annotations": [
            _annotation(number, listing.category_ids[entry.label], picture, entry, box)
            for number, (picture, entry, box) in enumerate(found, start=1)
        ],
        "categories": _categories(listing),
    }
    return Repaired(content, +changes)


def _sound(listing: Listing, picture: Picture, size: Size, changes: Counter[str]) -> Iterator[tuple[Entry, Box]]:
    """The boxes that stay, in pixels, cut."""
    seen: set[tuple[int, Box]] = set()
    for entry in picture.entries:
        whole = _pixels(listing, entry, size)
        box = _cut(whole, size)
        if has_no_area(whole):
            changes["left out: zero area"] += 1
        elif has_no_area(box):
            changes["left out: box wholly outside its image"] += 1
        elif (entry.label, box) in seen:
            changes["left out: duplicate box"] += 1
        else:
            changes["cut to the image: box outside"] += outside(whole, size)
            yield entry, box
        seen.add((entry.label, box))


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
        "area": (x1 - x0) * (y1 - y0) if entry.area is None else entry.area,
        "iscrowd": int(entry.ignore),
    }


def _categories(listing: Listing) -> list[dict[str, Any]]:
    told: dict[int, dict[str, Any]] = {}
    for each in listing.raw.get("categories", ()):
        if isinstance(each, dict) and each.get("id") in listing.category_ids:
            told.setdefault(each["id"], each)
    named = zip(listing.category_ids, listing.classes, strict=True)
    return [told.get(id, {"id": id, "name": name}) for id, name in named]
