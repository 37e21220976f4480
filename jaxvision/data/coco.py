"""COCO instances JSON as a source of objects (arXiv:1405.0312; https://cocodataset.org/#format-data)."""

import json as json_format
import os
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from jaxvision.data import annotation_files, segmentation
from jaxvision.data.annotation_files import Entry, Finding, Kind, Listing, Picture, Tell, number, numbers, refuse
from jaxvision.data.placement import Size
from jaxvision.data.source import Source, digest

FORM = "COCO JSON"
LISTS = ("images", "annotations", "categories")
KEYS = ("image_id", "category_id", "bbox", "iscrowd", "area")
"""What a source needs of an annotation, the last two if they are there."""


class Categories(NamedTuple):
    """Label k is the category `ids[k]`, called `names[k]`."""

    ids: tuple[int, ...]
    names: tuple[str, ...]


def source(json: str | PathLike, images: str | PathLike, *, masks: bool = False) -> Source:
    """The images of a COCO file and their objects, in order of image id.

    Labels are the categories in order of their id, from 0; crowds are to be ignored; areas are as annotated. Boxes are as
    they stand: of no area, or a little outside the image. `masks` are made of polygons or run lengths, as pycocotools does.
    An image's name is its `file_name`, a path below the folder `images`. One whose upright size is not the one that the
    file states can't be used: a pipeline skips it, or ends.

    Raises:
      ValueError: for what can't be used, with file, id and value: no JSON of this form, an annotation of an unknown image
        or category, a box that is not four numbers, a mask that is none.
      FileNotFoundError: if the file or an image is not there.
    """
    listing = read_listing(json, images, refuse)
    return annotation_files.source(str(json), listing, _masks(listing, str(json)) if masks else None)


def categories(json: str | PathLike) -> Categories:
    """What the labels of `source` are in the file: to write results."""
    names = _categories(_content(json), str(json), refuse)
    return Categories(tuple(names), tuple(names.values()))


def image_ids(json: str | PathLike) -> list[int]:
    """The id of every image, in the order of `source`."""
    return sorted(picture.id for picture in _pictures(_content(json), Path(), str(json), refuse))


def read_listing(json: str | PathLike, images: str | PathLike, tell: Tell) -> Listing:
    """All that the file says; images in order of their id. Raises ValueError for a file that is no such JSON.

    Of images that share an id, the first has the annotations of all.
    """
    file, content = str(json), _content(json)
    names = _categories(content, file, tell)
    pictures = _pictures(content, Path(images), file, tell)
    labels = {id: label for label, id in enumerate(names)}
    say, by_id = _teller(tell, file), {picture.id: picture for picture in reversed(pictures)}
    for place, annotation in enumerate(content["annotations"]):
        _add(annotation, place, by_id, names, labels, say)
    ordered = sorted(pictures, key=lambda picture: picture.id)
    fingerprint = digest(Path(json).read_bytes())
    ids, classes = tuple(names), tuple(names.values())
    return Listing(FORM, Path(images), classes, ids, ordered, fingerprint, raw=content)


Say = Callable[[Kind, str, str], None]


def _teller(tell: Tell, file: str) -> Say:
    return lambda kind, where, value: tell(Finding(kind, file, where, value))


def _content(json: str | PathLike) -> dict[str, Any]:
    try:
        content = json_format.loads(Path(json).read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {json}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{json} is no JSON: {error}") from None
    for name in LISTS:
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise ValueError(
                f"{json} is no COCO file of instances: it has no list {name!r} (needed are {', '.join(LISTS)})"
            )
    return content


def _categories(content: dict[str, Any], file: str, tell: Tell) -> dict[int, str]:
    """Id to name, in order of id."""
    say, found = _teller(tell, file), {}
    for place, each in enumerate(content["categories"]):
        if not isinstance(each, Mapping) or not _is_id(each.get("id")) or not isinstance(each.get("name"), str):
            say(Kind.MALFORMED, f"category number {place}", f"is {each!r}; it needs a whole number `id` and a `name`")
        elif each["id"] in found:
            say(Kind.MALFORMED, f"category {each['id']}", f"two have this id: {found[each['id']]!r}, {each['name']!r}")
        else:
            found[each["id"]] = each["name"]
    return dict(sorted(found.items()))


def _pictures(content: dict[str, Any], folder: Path, file: str, tell: Tell) -> list[Picture]:
    """In the order of the file; an image that is listed twice, once."""
    say, found = _teller(tell, file), list[Picture]()
    named: dict[int, list[str]] = {}
    for place, each in enumerate(content["images"]):
        if not isinstance(each, Mapping) or not _is_id(each.get("id")) or not isinstance(each.get("file_name"), str):
            say(Kind.MALFORMED, f"image number {place}", f"is {each!r}; it needs a whole number `id` and a `file_name`")
            continue
        id, name = each["id"], each["file_name"]
        others = named.setdefault(id, [])
        problem = _naming_problem(name, others)
        if problem is not None:
            say(problem[0], f"image {id}", problem[1])
        if problem is None or problem[0] is Kind.DUPLICATE_IMAGE:
            others.append(name)
            found.append(Picture(name, folder / name, file, id, _size(each, say), [], each))
    return found


def _naming_problem(name: str, others: Sequence[str]) -> tuple[Kind, str] | None:
    """What is wrong with the file name of an image, after others of the same id."""
    if not _is_path(name):
        return Kind.MALFORMED, f"file_name is {name!r}; allowed is the path of a file below the folder of the images"
    if name in others:
        return Kind.REPEATED_IMAGE, f"{name} is listed twice with this id"
    if others:
        return Kind.DUPLICATE_IMAGE, f"two images have this id: {others[0]}, {name}"
    return None


def _is_path(name: str) -> bool:
    """Whether a file can have the name."""
    try:
        return bool(name.strip()) and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def _size(image: Mapping[str, Any], say: Say) -> Size | None:
    height, width = image.get("height"), image.get("width")
    if _is_id(height) and _is_id(width) and min(height, width) > 0:
        return height, width
    if height is not None or width is not None:
        value = f"height is {height!r} and width {width!r}; allowed are whole numbers above 0"
        say(Kind.NO_SIZE, f"image {image['id']}", value)
    return None


def _add(
    annotation: Any,
    place: int,
    pictures: Mapping[int, Picture],
    names: Mapping[int, str],
    labels: Mapping[int, int],
    say: Say,
) -> None:
    """Gives the annotation to its image, or says why it can't be used."""
    if not isinstance(annotation, Mapping):
        return say(Kind.MALFORMED, f"annotation number {place}", f"is {annotation!r}, no JSON object")
    id = annotation.get("id")
    where = f"annotation number {place}" if id is None else f"annotation {id}"
    problem = _problem(annotation, pictures, names)
    if problem is not None:
        return say(problem[0], where, problem[1])
    x, y, width, height = annotation["bbox"]
    area = annotation.get("area")
    entry = Entry(
        where,
        label=labels[annotation["category_id"]],
        box=(x, y, x + width, y + height),
        ignore=bool(annotation.get("iscrowd")),
        area=None if area is None else float(area),
        id=id if _is_id(id) else None,
        raw=annotation,
    )
    pictures[annotation["image_id"]].entries.append(entry)


def _problem(
    annotation: Mapping[str, Any], pictures: Mapping[int, Picture], names: Mapping[int, str]
) -> tuple[Kind, str] | None:
    """Why the annotation can't be used."""
    image, category, box, crowd, area = (annotation.get(key) for key in KEYS)
    if not _is_id(image) or image not in pictures:
        return Kind.UNKNOWN_IMAGE, f"image_id is {image!r}, and no image has this id"
    if not _is_id(category) or category not in names:
        listed = ", ".join(f"{id} ({name})" for id, name in list(names.items())[:8]) or "none"
        more = ", ..." if len(names) > 8 else ""
        return Kind.UNKNOWN_CATEGORY, f"category_id is {category!r}; allowed are {listed}{more}"
    sides = numbers(box, 4)
    if sides is None or min(sides[2:]) < 0:
        allowed = "four finite numbers, x y width height, no side below 0"
        return Kind.MALFORMED, f"bbox is {box!r}; allowed are {allowed}"
    if crowd not in (None, 0, 1):
        return Kind.MALFORMED, f"iscrowd is {crowd!r}; allowed are 0 and 1"
    measured = number(area)
    if area is not None and (measured is None or measured < 0):
        return Kind.MALFORMED, f"area is {area!r}; allowed is a finite number, not below 0"
    return None


def _is_id(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _masks(listing: Listing, file: str) -> annotation_files.Masks:
    """Masks, made when they are asked for."""
    segmentations: list[list[Any]] = []
    sizes: list[Size] = []
    for picture in listing.pictures:
        if picture.size is None and picture.entries:
            raise ValueError(f"{file}: image {picture.id}: masks need its height and width, and it has none")
        sizes.append(picture.size or (1, 1))
        segmentations.append([_compact(each, file) for each in picture.entries])

    def masks(index: int) -> np.ndarray:
        size = sizes[index]
        found = np.zeros((len(segmentations[index]), *size), bool)
        for mask, (where, compacted) in zip(found, segmentations[index], strict=True):
            try:
                mask[:] = segmentation.decoded(compacted, size)
            except ValueError as error:
                raise ValueError(f"{file}: {where}: {error}") from None
        return found

    return masks


def _compact(entry: Entry, file: str) -> tuple[str, Any]:
    try:
        return entry.where, segmentation.compact(entry.raw.get("segmentation"))
    except ValueError as error:
        raise ValueError(f"{file}: {entry.where}: {error}") from None
