"""A copy of a dataset of objects without what is wrong with it, as far as that can be known."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxvision.formats import coco, doubts, faults, mask_faults, rle
from jaxvision.formats.annotation import AnnotatedImage, AnnotatedObject, Box, FaultKind, Finding, Listing
from jaxvision.formats.image_file import Size
from jaxvision.masks.runs import area

CROWD = "a crowd (iscrowd 1), which pycocotools matches by intersection over the detection's area"


class Repaired(NamedTuple):
    """A copy without faults."""

    content: dict[str, Any]
    """COCO JSON."""
    changes: Mapping[str, int]
    """What was done, and how often."""


class _Mended(NamedTuple):
    """An image, the size of its file, and its objects, each with why its mask can't be used, None where it can."""

    image: AnnotatedImage
    size: Size
    objects: list[tuple[AnnotatedObject, FaultKind | None]]


def repaired(listing: Listing, sizes: Sequence[Size | Finding]) -> Repaired:
    """The listing as COCO JSON: images and boxes at fault left out, boxes cut to their image, annotations numbered from 1.

    Segmentations lose polygons of less than three points. Where an object has a mask that can be used then, those without
    are left out, whole; where none has, all stay, without. Duplicates are judged afterwards. Categories of one name, images
    of one file, and masks outside their boxes stay: which of them is meant is not known (`remaining`).
    """
    changes: Counter[str] = Counter()
    kept: list[_Mended] = []
    fractions = doubts.in_fractions(listing)
    for image, size in zip(listing.images, sizes, strict=True):
        if isinstance(size, Finding):
            changes[f"left out: {size.kind}"] += 1
            changes["left out: box of an image left out"] += len(image.objects)
            continue
        in_pixels = [each for each in image.objects if fractions or not faults.box_in_fractions(listing, each)]
        changes[f"left out: {FaultKind.IN_FRACTIONS}"] += len(image.objects) - len(in_pixels)
        kept.append(_Mended(image, size, [_mended(each, size, changes) for each in in_pixels]))
    masks = any(
        reason is None and _has_area(listing, entry, each.size) for each in kept for entry, reason in each.objects
    )
    written: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for each in kept:
        written.append(_written(each.image, each.size, changes))
        objects = _with_masks(each.objects, changes) if masks else _without_masks(each.objects, changes)
        found += _annotations(listing, each.image._replace(objects=objects), each.size, len(found) + 1, changes)
    content = {**listing.raw, "images": written, "annotations": found, "categories": _categories(listing)}
    return Repaired(content, +changes)


def remaining(json: Path, images: Path) -> dict[FaultKind, int]:
    """How many faults of each kind a copy has still; of its images the sizes that it says, which are theirs."""
    found: list[Finding] = []
    listing = coco.read_listing(json, images, found.append)
    sizes = [image.size or (0, 0) for image in listing.images]
    found += [*doubts.doubts(listing, sizes), *faults.faults(listing, sizes)]
    return Counter(each.kind for each in found)


def _has_area(listing: Listing, entry: AnnotatedObject, size: Size) -> bool:
    """Whether its box has an area in the image."""
    return not faults.has_no_area(faults.cut_to(size, faults.pixels(listing, entry, size)))


def _mended(entry: AnnotatedObject, size: Size, changes: Counter[str]) -> tuple[AnnotatedObject, FaultKind | None]:
    """The object with its segmentation mended, its area that of its mask, and why the mask can't be used."""
    trimmed = entry._replace(raw={**entry.raw, "segmentation": rle.trimmed(entry.raw.get("segmentation"))})
    try:
        mask = mask_faults.read(entry, size)
    except mask_faults.Unusable as error:
        if error.kind is not FaultKind.SEGMENTATION or trimmed.raw == entry.raw:
            return entry, error.kind
        mended, useless = _mended(trimmed, size, changes)
        changes[f"mended: {FaultKind.SEGMENTATION}"] += useless is None
        return (mended, None) if useless is None else (entry, error.kind)
    if mask is not None and mask_faults.has_strange_area(entry, mask):
        changes[f"put right: {FaultKind.MASK_AREA}"] += 1
        entry = entry._replace(area=float(area(mask.runs)))
    return entry, None


def _with_masks(
    objects: Sequence[tuple[AnnotatedObject, FaultKind | None]], changes: Counter[str]
) -> list[AnnotatedObject]:
    """The objects whose mask can be used."""
    changes.update(f"left out: {reason}" for _, reason in objects if reason is not None)
    return [entry for entry, reason in objects if reason is None]


def _without_masks(
    objects: Sequence[tuple[AnnotatedObject, FaultKind | None]], changes: Counter[str]
) -> list[AnnotatedObject]:
    """The objects of a dataset in which no mask can be used, as boxes."""
    changes.update(
        f"left out, its box stays: {reason}" for _, reason in objects if reason not in (None, FaultKind.NO_MASK)
    )
    return [
        entry._replace(raw={key: value for key, value in entry.raw.items() if key != "segmentation"})
        if reason is not FaultKind.NO_MASK
        else entry
        for entry, reason in objects
    ]


def _written(image: AnnotatedImage, size: Size, changes: Counter[str]) -> dict[str, Any]:
    stated = [image.raw.get(side) for side in ("height", "width")]
    changes[f"put right: {FaultKind.NO_SIZE}"] += image.size is None and stated != [None, None]
    return {**image.raw, "id": image.id, "file_name": image.name, "width": size[1], "height": size[0]}


def _annotations(
    listing: Listing, image: AnnotatedImage, size: Size, number: int, changes: Counter[str]
) -> list[dict[str, Any]]:
    """Annotations of the boxes that stay, numbered from there."""
    sound = enumerate(_sound(listing, image, size, changes), start=number)
    return [_annotation(n, listing.category_ids[entry.label], image, entry, box) for n, (entry, box) in sound]


def _sound(
    listing: Listing, image: AnnotatedImage, size: Size, changes: Counter[str]
) -> Iterator[tuple[AnnotatedObject, Box]]:
    """The boxes that stay, in pixels, cut."""
    for entry, whole, cut, twin in faults.judged(listing, image, size):
        if faults.has_no_area(whole):
            changes["left out: zero area"] += 1
        elif faults.has_no_area(cut):
            changes["left out: box wholly outside its image"] += 1
        elif twin is not None:
            changes["left out: duplicate box"] += 1
        else:
            changes["cut to the image: box outside"] += faults.outside(whole, size)
            changes[f"written as {CROWD}: difficult object"] += entry.ignore and "iscrowd" not in entry.raw
            yield entry, cut


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
    return entry.area if box == entry.box or faults.segmentation(entry) else min(entry.area, area)


def _categories(listing: Listing) -> list[dict[str, Any]]:
    stated: dict[int, dict[str, Any]] = {}
    for each in listing.raw.get("categories", ()):
        if isinstance(each, dict) and each.get("id") in listing.category_ids:
            stated.setdefault(each["id"], each)
    named = zip(listing.category_ids, listing.classes, strict=True)
    return [stated.get(id, {"id": id, "name": name}) for id, name in named]
