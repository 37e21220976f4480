"""Datasets from any format into any other: which one a path holds, and how each is read and written."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from os import PathLike
from pathlib import Path
from typing import Literal

from jaxvision.errors import DataError, amount, raised_as
from jaxvision.formats import (
    coco_file,
    cvat,
    cvat_files,
    label_studio,
    label_studio_tasks,
    labelme,
    labelme_files,
    opening,
    voc_file,
    voc_folder,
    xml_file,
    yolo_file,
)
from jaxvision.formats import segmentation as masks_of
from jaxvision.formats.labelled import Dataset, LabelledObject, Loss
from jaxvision.formats.losses import Opened, Tally, told
from jaxvision.formats.opening import Layout
from jaxvision.machine.folders import local
from jaxvision.masks.runs import Runs

Masks = Literal["rle", "polygons"]


class Format(StrEnum):
    """Formats that are read and written."""

    COCO = "coco"
    VOC = "voc"
    YOLO = "yolo"
    LABELME = "labelme"
    CVAT = "cvat"
    LABEL_STUDIO = "label_studio"


NAMES = {
    Format.COCO: coco_file.NAME,
    Format.VOC: voc_file.NAME,
    Format.YOLO: yolo_file.NAME,
    Format.LABELME: labelme.NAME,
    Format.CVAT: cvat.NAME,
    Format.LABEL_STUDIO: label_studio.NAME,
}
"""What people call them."""
BY_LAYOUT = {
    Layout.COCO: Format.COCO,
    Layout.COCO_FOLDER: Format.COCO,
    Layout.YOLO_YAML: Format.YOLO,
    Layout.YOLO_FOLDER: Format.YOLO,
    Layout.VOC: Format.VOC,
}
KNOWN = f"{opening.KNOWN}, a CVAT .xml, files of labelme, tasks of Label Studio"


SUFFIXES = {Format.COCO: ".json", Format.CVAT: ".xml"}
"""Formats that are one file, and how its name ends."""


def recognise(path: str | PathLike) -> tuple[Format, Path]:
    """Which format it is, and the file or folder to read.

    Raises:
      DataError: for none, naming those that are known.
      FileNotFoundError: if nothing is there.
    """
    with raised_as(DataError):
        path = local(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    special = _in_folder(path) if path.is_dir() else _of_file(path)
    if special is not None:
        return special
    try:
        layout, found = opening.recognise(path)
    except DataError:
        if path.is_dir() and _has_labelme(path):
            return (Format.LABELME, path)
        raise DataError(f"{path} is no dataset known here: {KNOWN}") from None
    if layout not in BY_LAYOUT:
        raise DataError(f"{path} is {layout}, a class for every pixel; converted are boxes and masks of objects")
    if layout is Layout.COCO_FOLDER and any(map(labelme_files.is_labelme, sorted(path.glob("*.json")))):
        return (Format.LABELME, path)
    return (BY_LAYOUT[layout], found)


def _has_labelme(path: Path) -> bool:
    return (path / labelme.LABELS).is_file() or any(map(labelme_files.is_labelme, sorted(path.rglob("*.json"))))


def _in_folder(path: Path) -> tuple[Format, Path] | None:
    if (path / label_studio.TASKS).is_file():
        return (Format.LABEL_STUDIO, path)
    xml = path / "annotations.xml"
    return (Format.CVAT, xml) if xml.is_file() and xml_file.root_tag(xml) == "annotations" else None


def _of_file(path: Path) -> tuple[Format, Path] | None:
    if path.suffix.lower() == ".xml":
        if xml_file.root_tag(path) != "annotations":
            raise DataError(f"{path} is no CVAT XML: its root is no <annotations>; of VOC, name the folder")
        return (Format.CVAT, path)
    if path.suffix.lower() != ".json":
        return None
    with path.open("rb") as file:
        if file.read(1 << 12).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
            return (Format.LABEL_STUDIO, path)
    return (Format.LABELME, path) if labelme_files.is_labelme(path) else None


def read(path: str | PathLike, images: Path | None = None) -> tuple[Format, Opened]:
    """The format of a path, its dataset, and what of the file has no place in that.

    Args:
      path: the file or the folder.
      images: the folder of the images, where these are needed for their sizes and names, and are not where they are expected.

    Raises:
      DataError: for what is no dataset, and for what can't be used, with file and field.
      FileNotFoundError: if it, or what it names, is not there.
    """
    format, found = recognise(path)
    match format:
        case Format.COCO:
            file = found if found.is_file() else _only_file(found)
            return format, coco_file.read(file, images)
        case Format.VOC:
            return format, voc_folder.read(found)
        case Format.YOLO:
            return format, yolo_file.read(found, images)
        case Format.LABELME:
            return format, labelme_files.read(found, images)
        case Format.CVAT:
            return format, cvat_files.read(found)
        case Format.LABEL_STUDIO:
            return format, label_studio_tasks.read(found, images)


def _only_file(folder: Path) -> Path:
    files = opening.coco_files(folder)
    if len(files) > 1:
        raise DataError(f"{folder} has several COCO files, name one of them: {', '.join(map(str, files.values()))}")
    return next(iter(files.values()))


WRITERS: dict[Format, Callable[[Dataset, Path, bool], list[Loss]]] = {
    Format.COCO: coco_file.write,
    Format.VOC: voc_file.write,
    Format.YOLO: yolo_file.write,
    Format.CVAT: cvat.write,
    Format.LABEL_STUDIO: label_studio.write,
}


def write(
    dataset: Dataset,
    output: Path,
    format: Format,
    *,
    replace: bool = False,
    images: Path | None = None,
    masks: Masks | None = None,
) -> list[Loss]:
    """Writes the dataset: a file of COCO or CVAT, a folder of the others; returns what there is no place for.

    Args:
      dataset: the dataset.
      output: the file or the folder; one that is not empty is refused.
      format: the format.
      replace: whether what is there is replaced, if it is of the format.
      images: the folder of the images, which labelme's files name.
      masks: masks all as run lengths, or as polygons where they have no hole; None leaves them as they are.

    Raises:
      DataError: for what is there already, and for what the format can't hold at all.
    """
    suffix = SUFFIXES.get(format, output.suffix)
    if output.suffix.lower() != suffix and not output.is_dir():
        raise DataError(f"{output}: {NAMES[format]} is a file whose name ends in {suffix}; allowed is such a name")
    dataset, tally = with_masks(dataset, masks)
    if format is Format.LABELME:
        losses = labelme.write(dataset, output, replace, images)
    else:
        losses = WRITERS[format](dataset, output, replace)
    return sorted([*losses, *tally.losses()])


def lines(output: Path, format: Format, dataset: Dataset, losses: Sequence[Loss]) -> list[str]:
    """What to tell of a dataset that was written, and what its format has no place for."""
    objects = sum(len(image.objects) for image in dataset.images)
    written = f"{output}: {NAMES[format]}, {amount(len(dataset.images), 'image')}, {amount(objects, 'object')}"
    where = {Format.YOLO: "images", Format.VOC: "JPEGImages"}.get(format)
    beside = [f"the images are not copied: put or link them into {output / where}"] if where else []
    return [written, *beside, *([f"{NAMES[format]} has no place for: {told(losses)}"] if losses else [])]


def with_masks(dataset: Dataset, masks: Masks | None) -> tuple[Dataset, Tally]:
    """The dataset with all masks of one form, and counts of what could not be."""
    tally = Tally()
    if masks is None:
        return dataset, tally
    images = [
        image._replace(objects=tuple(_with_mask(each, image.size, masks, tally) for each in image.objects))
        for image in dataset.images
    ]
    return dataset._replace(images=images), tally


def _with_mask(each: LabelledObject, size: tuple[int, int], masks: Masks, tally: Tally) -> LabelledObject:
    if not each.segmentation or isinstance(each.segmentation, Runs) == (masks == "rle"):
        return each
    if masks == "rle":
        with raised_as(DataError):
            return each._replace(segmentation=masks_of.as_runs(each.segmentation, size))
    polygons = masks_of.as_polygons(each.segmentation)
    tally.note("polygon of a mask with a hole or without a pixel, which stays run lengths", not polygons)
    return each._replace(segmentation=polygons) if polygons else each
