"""COCO panoptic JSON (arXiv:1801.00868): a PNG of segment ids for each image, and what each segment is."""

import mmap
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvision.errors import shown
from jaxvision.formats import coco
from jaxvision.formats.annotation import (
    AnnotatedImage,
    AnnotatedObject,
    FaultKind,
    Finding,
    Listing,
    Report,
    number,
    numbers,
    refuse,
)
from jaxvision.formats.class_maps import Segment, ids
from jaxvision.formats.files import content, is_inside, most_bytes, regular
from jaxvision.formats.fingerprint import digest
from jaxvision.formats.image_file import Size, read
from jaxvision.machine.folders import spelled

FORMAT = "COCO panoptic JSON"
MARK = b'"segments_info"'
UNSTATED = "which segments_info does not speak of"
LARGEST_ID = (1 << 24) - 1


class Categories(NamedTuple):
    """Label k is the category `ids[k]`, called `names[k]`."""

    ids: tuple[int, ...]
    names: tuple[str, ...]
    things: tuple[bool, ...]
    """Whether its objects are counted; of stuff, an image has one segment a class."""


def categories(json: str | PathLike) -> Categories:
    """The categories that labels 0, 1, ... stand for, in the order of their ids."""
    found = coco.read_content(json)
    names = coco.category_names(found, str(json), refuse)
    things = {each["id"]: bool(each.get("isthing", 1)) for each in found["categories"]}
    return Categories(tuple(names), tuple(names.values()), tuple(things[id] for id in names))


def is_panoptic(json: Path) -> bool:
    """Whether a JSON file speaks of segments."""
    try:
        with regular(json) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return len(text) <= most_bytes() and text.find(MARK) >= 0
    except (OSError, ValueError):  # ValueError: an empty file, or no regular one
        return False


def read_listing(
    json: str | PathLike,
    images: str | PathLike | None = None,
    maps: str | PathLike | None = None,
    report: Report = refuse,
) -> Listing:
    """A panoptic file: the images that it has an annotation of, in order of their id, their segments as objects.

    `images` is their folder, `maps` that of the PNGs; None looks for the first as `coco.read_listing` does, and takes the
    folder of the name of the file for the second. Raises ValueError for a file that is no such JSON.
    """
    path, file, found = Path(json), str(json), coco.read_content(json)
    names = coco.category_names(found, file, report)
    plain = path.with_name(f"{path.stem.removeprefix('panoptic_')}.json")
    folder = Path(images) if images is not None else coco.likely_folder(plain, found)
    map_folder = Path(maps) if maps is not None else path.with_suffix("")
    by_id = {image.id: image for image in coco.listed_images(found, folder, file, report)}
    labels = {id: label for label, id in enumerate(names)}
    read: dict[int, AnnotatedImage] = {}
    for place, annotation in enumerate(found["annotations"]):
        where = f"annotation number {place}"
        problem = _problem(annotation, by_id, read, map_folder)
        if problem is not None:
            report(Finding(problem[0], file, where, problem[1]))
            continue
        image = by_id[annotation["image_id"]]
        segments = list(_segments(annotation, image, labels, report))
        file_of_map = spelled(map_folder, annotation["file_name"])
        read[image.id] = image._replace(objects=segments, map=file_of_map, raw={**image.raw, "panoptic": annotation})
    for id in sorted(by_id.keys() - read.keys()):
        report(Finding(FaultKind.NO_MAP, file, f"image {id}", f"{by_id[id].name} has no annotation"))
    ordered = [read[id] for id in sorted(read)]
    return Listing(FORMAT, folder, tuple(names.values()), tuple(names), ordered, digest(content(json)), raw=found)


def _problem(
    annotation: Any, images: Mapping[int, AnnotatedImage], read: Mapping[int, AnnotatedImage], folder: Path
) -> tuple[FaultKind, str] | None:
    """Why the annotation of an image can't be used."""
    if not isinstance(annotation, Mapping) or not isinstance(annotation.get("segments_info"), list):
        return FaultKind.MALFORMED, f"is {shown(annotation)}; it needs a list `segments_info`"
    id, name = annotation.get("image_id"), annotation.get("file_name")
    if not coco.is_id(id) or id not in images:
        return FaultKind.UNKNOWN_IMAGE, f"image_id is {shown(id)}, and no image has this id"
    if id in read:
        return FaultKind.DUPLICATE_IMAGE, f"image {id} has an annotation before this one"
    if not isinstance(name, str) or "\0" in name or not name.strip() or not is_inside(folder / name, folder):
        return FaultKind.MALFORMED, f"file_name is {shown(name)}; allowed is the name of a file in {folder}"
    return None


def _segments(
    annotation: Mapping[str, Any], image: AnnotatedImage, labels: Mapping[int, int], report: Report
) -> Iterator[AnnotatedObject]:
    seen: set[int] = set()
    for each in annotation["segments_info"]:
        id = each.get("id") if isinstance(each, Mapping) else None
        where = f"image {image.id}: segment {shown(id, 20)}"
        problem = _segment_problem(each, labels, seen)
        if problem is not None:
            report(Finding(problem[0], image.annotation_file, where, problem[1]))
            continue
        seen.add(each["id"])
        x, y, width, height = each["bbox"]
        area = each.get("area")
        yield AnnotatedObject(
            where,
            labels[each["category_id"]],
            (x, y, x + width, y + height),
            bool(each.get("iscrowd")),
            None if area is None else float(area),
            each["id"],
            each,
        )


def _segment_problem(each: Any, labels: Mapping[int, int], seen: set[int]) -> tuple[FaultKind, str] | None:
    if not isinstance(each, Mapping) or not coco.is_id(each.get("id")) or not 0 < each["id"] <= LARGEST_ID:
        return FaultKind.MALFORMED, f"is {shown(each)}; its id is to be a whole number from 1 to {LARGEST_ID:,}"
    if each["id"] in seen:
        return FaultKind.DUPLICATE_ID, "two segments of the image have this id"
    if not coco.is_id(each.get("category_id")) or each["category_id"] not in labels:
        return (
            FaultKind.UNKNOWN_CATEGORY,
            f"category_id is {shown(each.get('category_id'))}, and no category has this id",
        )
    sides, area = numbers(each.get("bbox"), 4), each.get("area")
    if sides is None or min(sides[2:]) < 0:
        allowed = "four finite numbers, x y width height, no side below 0"
        return FaultKind.MALFORMED, f"bbox is {shown(each.get('bbox'))}; allowed are {allowed}"
    if each.get("iscrowd") not in (None, 0, 1):
        return FaultKind.MALFORMED, f"iscrowd is {shown(each['iscrowd'])}; allowed are 0 and 1"
    if area is not None and (number(area) is None or area < 0):
        return FaultKind.MALFORMED, f"area is {shown(area)}; allowed is a finite number, not below 0"
    return None


def segments(image: AnnotatedImage) -> list[Segment]:
    """The segments of an image, by their ids."""
    return [Segment(each.id, each.label, each.ignore) for each in image.objects if each.id is not None]


def segment_ids(image: AnnotatedImage, size: Size) -> np.ndarray:
    """The ids of the pixels of an image of a panoptic listing. Raises BadImage for a map that can't be used."""
    assert image.map is not None
    return ids(read(image.map), size)


def disagreement(image: AnnotatedImage, pixels: np.ndarray) -> str | None:
    """How the ids of a panoptic map differ from those that are stated; None if they do not."""
    present, stated = set(np.unique(pixels).tolist()) - {0}, {each.id for each in image.objects}
    for id in sorted(present - stated):
        return f"{image.map} has pixels of id {id}, {UNSTATED}"
    for id in sorted(each for each in stated - present if each is not None):
        return f"{image.map} has no pixel of id {id}, of which segments_info speaks"
    return None
