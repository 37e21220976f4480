"""COCO instances JSON as a source of objects (arXiv:1405.0312; https://cocodataset.org/#format-data)."""

import json as json_format
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from jaxvision.data import annotation_files
from jaxvision.data.annotation_files import Entry, Finding, Kind, Listing, Picture, Tell, number, numbers, refuse
from jaxvision.data.placement import Size
from jaxvision.data.source import Source, digest

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
    An image's name is its `file_name`, a path below the folder `images`. To read one raises ValueError if its upright size
    is not the one that the file has of it.

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
    return sorted(_pictures(_content(json), Path(), str(json), refuse))


def read_listing(json: str | PathLike, images: str | PathLike, tell: Tell) -> Listing:
    """All that the file says; images in order of their id. Raises ValueError for a file that is no such JSON."""
    file, content = str(json), _content(json)
    names = _categories(content, file, tell)
    pictures = _pictures(content, Path(images), file, tell)
    labels = {id: label for label, id in enumerate(names)}
    say = _teller(tell, file)
    for place, annotation in enumerate(content["annotations"]):
        _add(annotation, place, pictures, names, labels, say)
    ordered = [pictures[id] for id in sorted(pictures)]
    fingerprint = digest(Path(json).read_bytes())
    ids, classes = tuple(names), tuple(names.values())
    return Listing("COCO JSON", Path(images), classes, ids, ordered, fingerprint, raw=content)


Say = Callable[[Kind, str, str], None]


def _teller(tell: Tell, file: str) -> Say:
    return lambda kind, where, value: tell(Finding(kind, file, where, value))


def _content(json: str | PathLike) -> dict[str, Any]:
    try:
        content = json_format.loads(Path(json).read_bytes())
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


def _pictures(content: dict[str, Any], folder: Path, file: str, tell: Tell) -> dict[int, Picture]:
    """By id."""
    say, found = _teller(tell, file), {}
    for place, each in enumerate(content["images"]):
        if not isinstance(each, Mapping) or not _is_id(each.get("id")) or not isinstance(each.get("file_name"), str):
            say(Kind.MALFORMED, f"image number {place}", f"is {each!r}; it needs a whole number `id` and a `file_name`")
            continue
        id, name = each["id"], each["file_name"]
        if id in found:
            say(Kind.DUPLICATE_IMAGE, f"image {id}", f"two images have this id: {found[id].name}, {name}")
            continue
        size = _size(each, say)
        found[id] = Picture(name, folder / name, file, id, size, [], each)
    return found


def _size(image: Mapping[str, Any], say: Say) -> Size | None:
    height, width = image.get("height"), image.get("width")
    if _is_id(height) and _is_id(width) and min(height, width) > 0:
        return height, width
    if height is not None or width is not None:
        value = f"height is {height!r} and width {width!r}; allowed are whole numbers above 0"
        say(Kind.MALFORMED, f"image {image['id']}", value)
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
        for mask, (where, segmentation) in zip(found, segmentations[index], strict=True):
            mask[:] = _mask(segmentation, size, f"{file}: {where}")
        return found

    return masks


def _compact(entry: Entry, file: str) -> tuple[str, Any]:
    """The segmentation, its polygons as arrays: a tenth of the memory of lists."""
    segmentation = entry.raw.get("segmentation")
    if isinstance(segmentation, Mapping) and "counts" in segmentation:
        return entry.where, segmentation
    if isinstance(segmentation, list) and segmentation:
        polygons = [_polygon(each) for each in segmentation]
        if all(each is not None for each in polygons):
            return entry.where, polygons
    text = repr(segmentation)
    shown = text if len(text) < 80 else f"{text[:77]}..."
    allowed = "polygons [[x, y, ...], ...] of three points or more, or run lengths {size, counts}"
    raise ValueError(f"{file}: {entry.where}: segmentation is {shown}; allowed are {allowed}")


def _polygon(values: object) -> np.ndarray | None:
    """Three points or more, `x y x y ...`; None if it is anything else."""
    if not isinstance(values, list) or len(values) < 6 or len(values) % 2:
        return None
    try:
        points = np.asarray(values)
    except ValueError:  # lists inside, of different lengths
        return None
    fine = points.ndim == 1 and points.dtype.kind in "iuf" and np.isfinite(points).all()
    return points.astype(np.float64) if fine else None


def _mask(segmentation: Any, size: Size, where: str) -> np.ndarray:
    """Bool `h w`. Raises ValueError for run lengths that are none of this size."""
    from hotcoco import mask  # pyright: ignore[reportMissingModuleSource]

    try:
        if isinstance(segmentation, list):
            return mask.decode(mask.merge(mask.frPyObjects([each.tolist() for each in segmentation], *size))) > 0
        found = mask.decode(segmentation)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{where}: segmentation: {error}") from None
    if found.shape != size:
        raise ValueError(f"{where}: segmentation is of {list(found.shape)} pixels, the image of {list(size)}")
    return found > 0
