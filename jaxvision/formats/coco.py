"""COCO instances JSON (arXiv:1405.0312; https://cocodataset.org/#format-data)."""

import json as json_format
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from jaxvision.errors import shown
from jaxvision.formats import rle
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
    unlisted,
)
from jaxvision.formats.files import content as file_content
from jaxvision.formats.files import is_folder, is_inside, visible
from jaxvision.formats.fingerprint import digest
from jaxvision.formats.image_file import MAX_SIDE, Size, is_possible
from jaxvision.machine.folders import spelled

FORMAT = "COCO JSON"
LISTS = ("images", "annotations", "categories")
LOOKED_FOR = 16
"""Images by which their folder is known."""
SEARCHED = 200
"""Folders in which a file is looked for."""
KEYS = ("image_id", "category_id", "bbox", "iscrowd", "area")
"""What a source needs of an annotation, the last two if they are there."""


class Categories(NamedTuple):
    """Label k is the category `ids[k]`, called `names[k]`."""

    ids: tuple[int, ...]
    names: tuple[str, ...]


def categories(json: str | PathLike) -> Categories:
    """The categories that labels 0, 1, ... stand for: to write results."""
    names = category_names(read_content(json), str(json), refuse)
    return Categories(tuple(names), tuple(names.values()))


def image_ids(json: str | PathLike) -> list[int]:
    """The id of every image, in the order of `read_listing`."""
    return sorted(image.id for image in listed_images(read_content(json), Path(json).parent, str(json), refuse))


def read_listing(json: str | PathLike, images: str | PathLike | None = None, report: Report = refuse) -> Listing:
    """A COCO file: images in order of their id. Raises ValueError for a file that is no such JSON.

    `images` is their folder; None looks for it: beside the file, in `images/`, in a folder of the name of the file or of its
    split (`val2017/` for `annotations/instances_val2017.json`). A file name may be absolute or go up, as long as it leads to
    a place below this folder or that of the dataset; others are reported, and not read. Of images that share an id, the first
    has the annotations of all.
    """
    file, content = str(json), read_content(json)
    names = category_names(content, file, report)
    folder = Path(images) if images is not None else likely_folder(Path(json), content)
    images_read = listed_images(content, folder, file, report)
    labels = {id: label for label, id in enumerate(names)}
    report_here, by_id = _reporter(report, file), {image.id: image for image in reversed(images_read)}
    for place, annotation in enumerate(content["annotations"]):
        _add(annotation, place, by_id, names, labels, report_here)
    ordered = sorted(images_read, key=lambda image: image.id)
    fingerprint = digest(file_content(json))
    ids, classes = tuple(names), tuple(names.values())
    left_out = unlisted(folder, ordered, f"not in {Path(json).name}")
    return Listing(FORMAT, folder, classes, ids, ordered, fingerprint, raw=content, left_out=left_out)


def likely_folder(json: Path, content: Mapping[str, Any]) -> Path:
    """Where the images are: of the likely folders the first that has one of the first images, or that is there at all."""
    stem, above = json.stem, json.parent.parent
    likely = (
        json.with_suffix(""),
        above / stem.split("_")[-1],
        json.parent / "images",
        json.parent,
        above / "images",
        *(place / "images" / name for place in (json.parent, above) for name in (stem, stem.split("_")[-1])),
    )
    paths = _first_names(content)
    holding = (place for place in likely if any(os.path.isfile(place / name) for name in paths))
    return next(holding, next((place for place in likely if place.is_dir()), json.parent))


def _first_names(content: Mapping[str, Any]) -> list[str]:
    """The file names of the first images."""
    names = [each.get("file_name") for each in content["images"][:LOOKED_FOR] if isinstance(each, Mapping)]
    return [name for name in names if isinstance(name, str) and _is_path(name)]


def advice(json: Path, content: Mapping[str, Any]) -> str:
    """What to do where none of the images is in the folder taken: which folder of the dataset holds one of the first."""
    names, folders = _first_names(content), _folders(_dataset(json)[0])
    for name in names:
        for folder in folders:
            if os.path.isfile(folder / name):
                return f"; {shown(name)[1:-1]} is in {folder}: give --images={folder}"
    for name in names:
        for folder in folders:
            if os.path.isfile(folder / os.path.basename(name)):
                value = f"its file_name is {shown(name)}: put the file names right, or move the images"
                return f"; {shown(os.path.basename(name))[1:-1]} is in {folder}, but {value}"
    return "; is it --images=DIR?"


def _folders(top: Path) -> list[Path]:
    """A folder and the first of those below it, the nearest first; no hidden ones."""
    found = [top]
    for folder in found:
        try:
            below = [Path(each.path) for each in visible(folder) if is_folder(each)]
        except OSError:
            continue
        found += below[: SEARCHED - len(found)]
    return found


ReportHere = Callable[[FaultKind, str, str], None]


def _reporter(report: Report, file: str) -> ReportHere:
    return lambda kind, where, value: report(Finding(kind, file, where, value))


def read_content(json: str | PathLike) -> dict[str, Any]:
    """The content of a file that has the lists of COCO. Raises ValueError for another, FileNotFoundError if there is none."""
    try:
        data = file_content(json)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {json}") from None
    try:
        content = json_format.loads(data)
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{json} is no JSON: {str(error) or 'there is not enough memory for it'}") from None
    for name in LISTS:
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise ValueError(
                f"{json} is no COCO file of instances: it has no list {name!r} (needed are {', '.join(LISTS)})"
            )
    return content


def category_names(content: dict[str, Any], file: str, report: Report) -> dict[int, str]:
    """Id to name, in order of id."""
    report_here, found = _reporter(report, file), {}
    for place, each in enumerate(content["categories"]):
        if not isinstance(each, Mapping) or not is_id(each.get("id")) or not isinstance(each.get("name"), str):
            report_here(
                FaultKind.MALFORMED,
                f"category number {place}",
                f"is {shown(each)}; it needs a whole number `id` and a `name`",
            )
        elif each["id"] in found:
            report_here(
                FaultKind.MALFORMED,
                f"category {each['id']}",
                f"two have this id: {shown(found[each['id']])}, {shown(each['name'])}",
            )
        else:
            found[each["id"]] = each["name"]
    return dict(sorted(found.items()))


def listed_images(content: dict[str, Any], folder: Path, file: str, report: Report) -> list[AnnotatedImage]:
    """The images in the order of the file; one that is listed twice, once."""
    report_here, found = _reporter(report, file), list[AnnotatedImage]()
    named: dict[int, dict[str, None]] = {}
    for place, each in enumerate(content["images"]):
        if not isinstance(each, Mapping) or not is_id(each.get("id")) or not isinstance(each.get("file_name"), str):
            report_here(
                FaultKind.MALFORMED,
                f"image number {place}",
                f"is {shown(each)}; it needs a whole number `id` and a `file_name`",
            )
            continue
        id, name = each["id"], each["file_name"]
        others = named.setdefault(id, {})
        problem = _naming_problem(name, others, (folder, *_dataset(Path(file))))
        if problem is not None:
            report_here(problem[0], f"image {id}", problem[1])
        if problem is None or problem[0] is FaultKind.DUPLICATE_IMAGE:
            others[name] = None
            found.append(AnnotatedImage(name, spelled(folder, name), file, id, _size(each, report_here), [], each))
    return found


def _dataset(json: Path) -> tuple[Path, ...]:
    """The folder of the dataset that a file is of: its own, or the one above its `annotations/`."""
    return (json.parent.parent,) if json.absolute().parent.name == "annotations" else (json.parent,)


def _naming_problem(name: str, others: Collection[str], folders: Sequence[Path]) -> tuple[FaultKind, str] | None:
    """What is wrong with the file name of an image in the first of the folders, after others of the same id."""
    if not _is_path(name):
        return (
            FaultKind.MALFORMED,
            f"file_name is {shown(name)}; allowed is the path of a file below the folder of the images",
        )
    if (".." in name or os.path.isabs(name)) and not any(is_inside(folders[0] / name, each) for each in folders):
        value = f"file_name {shown(name)} leads out of {folders[0]}; name a folder of images that holds it (--images)"
        return FaultKind.MALFORMED, value
    if name in others:
        return FaultKind.REPEATED_IMAGE, f"{shown(name)[1:-1]} is listed twice with this id"
    if others:
        return FaultKind.DUPLICATE_IMAGE, f"two images have this id: {next(iter(others))}, {name}"
    return None


def _is_path(name: str) -> bool:
    """Whether a file can have the name."""
    try:
        return bool(name.strip()) and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def _size(image: Mapping[str, Any], report_here: ReportHere) -> Size | None:
    height, width = image.get("height"), image.get("width")
    if is_id(height) and is_id(width) and is_possible((height, width)):
        return height, width
    if height is not None or width is not None:
        value = (
            f"height is {shown(height)} and width {shown(width)}; allowed are whole numbers above 0, up to {MAX_SIDE:,}"
        )
        report_here(FaultKind.NO_SIZE, f"image {image['id']}", value)
    return None


def _add(
    annotation: Any,
    place: int,
    images: Mapping[int, AnnotatedImage],
    names: Mapping[int, str],
    labels: Mapping[int, int],
    report_here: ReportHere,
) -> None:
    """Gives the annotation to its image, or says why it can't be used."""
    if not isinstance(annotation, Mapping):
        return report_here(FaultKind.MALFORMED, f"annotation number {place}", f"is {shown(annotation)}, no JSON object")
    id = annotation.get("id")
    where = f"annotation number {place}" if id is None else f"annotation {id}"
    problem = _problem(annotation, images, names)
    if problem is not None:
        return report_here(problem[0], where, problem[1])
    x, y, width, height = annotation["bbox"]
    area = annotation.get("area")
    entry = AnnotatedObject(
        where,
        label=labels[annotation["category_id"]],
        box=(x, y, x + width, y + height),
        ignore=bool(annotation.get("iscrowd")),
        area=None if area is None else float(area),
        id=id if is_id(id) else None,
        raw=annotation,
    )
    images[annotation["image_id"]].objects.append(entry)


def _problem(
    annotation: Mapping[str, Any], images: Mapping[int, AnnotatedImage], names: Mapping[int, str]
) -> tuple[FaultKind, str] | None:
    """Why the annotation can't be used."""
    image, category, box, crowd, area = (annotation.get(key) for key in KEYS)
    if not is_id(image) or image not in images:
        return FaultKind.UNKNOWN_IMAGE, f"image_id is {shown(image)}, and no image has this id"
    if not is_id(category) or category not in names:
        listed = ", ".join(f"{id} ({name})" for id, name in list(names.items())[:8]) or "none"
        more = ", ..." if len(names) > 8 else ""
        return FaultKind.UNKNOWN_CATEGORY, f"category_id is {shown(category)}; allowed are {listed}{more}"
    sides = numbers(box, 4)
    if sides is None or min(sides[2:]) < 0:
        allowed = "four finite numbers, x y width height, no side below 0"
        return FaultKind.MALFORMED, f"bbox is {shown(box)}; allowed are {allowed}"
    if crowd not in (None, 0, 1):
        return FaultKind.MALFORMED, f"iscrowd is {shown(crowd)}; allowed are 0 and 1"
    measured = number(area)
    if area is not None and (measured is None or measured < 0):
        return FaultKind.MALFORMED, f"area is {shown(area)}; allowed is a finite number, not below 0"
    return None


def is_id(value: object) -> TypeGuard[int]:
    """Whether it is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def compact_segmentation(entry: AnnotatedObject, file: str) -> tuple[str, Any]:
    """Where the object stands in the file, and its segmentation as `rle.compact` has it. Raises ValueError for none."""
    try:
        return entry.where, rle.compact(entry.raw.get("segmentation"))
    except ValueError as error:
        raise ValueError(f"{file}: {entry.where}: {error}") from None
