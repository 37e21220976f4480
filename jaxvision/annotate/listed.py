"""Annotated images as `formats.open` lists them, in the form that loses nothing, and predictions of files for them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxvision.errors import DataError, amount, damage
from jaxvision.formats import rle
from jaxvision.formats.annotation import AnnotatedImage, AnnotatedObject, Box, Listing, numbers
from jaxvision.formats.image_file import Size, upright_size
from jaxvision.formats.labelled import LabelledImage, LabelledObject, Segmentation
from jaxvision.masks.runs import of_coco


def images_of(listing: Listing) -> Iterator[LabelledImage]:
    """The images of a listing with their objects, boxes and masks in pixels.

    Their names and order are those of a source of the listing, by which folds are made (`annotate.folds`) and files found;
    `formats.converting.read` names and orders images as the file does, knows no split and no image files, and refuses more.

    Raises:
      DataError: for an image whose size neither its annotations nor the file tell.
    """
    for image in listing.images:
        size = image.size or (upright_size(image.file) if image.file.is_file() else None)
        if size is None:
            raise DataError(f"{image.file}: it can't be read, and {image.annotation_file} does not state its size")
        objects = tuple(_object(each, listing, image, size) for each in image.objects)
        yield LabelledImage(image.name, size, objects, image.id)


def _object(each: AnnotatedObject, listing: Listing, image: AnnotatedImage, size: Size) -> LabelledObject:
    scale = (size[1], size[0], size[1], size[0]) if listing.relative else (1, 1, 1, 1)
    x0, y0, x1, y1 = (side * factor for side, factor in zip(each.box, scale, strict=True))
    crowd = bool(each.raw.get("iscrowd", False))
    return LabelledObject(
        listing.classes[each.label],
        (x0, y0, x1, y1),
        _segmentation(each.raw.get("segmentation"), size, f"{image.annotation_file}: {each.where}"),
        crowd=crowd,
        difficult=each.ignore and not crowd,
        id=each.id,
    )


def _segmentation(given: object, size: Size, where: str) -> Segmentation | None:
    if not given:
        return None
    try:
        return rle.runs(rle.compact(given), size)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None


def read_predictions(path: Path) -> dict[str, tuple[LabelledObject, ...]]:
    """Predictions of a `.jsonl` or `.json` file, as `jaxvision.predict` writes them, by the paths of the image files.

    Raises:
      DataError: for another file, one that is damaged, or two predictions for one image.
    """
    if path.suffix not in (".jsonl", ".json"):
        raise DataError(f"{path}: predictions are .jsonl or .json, as python -m jaxvision.predict writes them")
    with damage(path):
        text = path.read_text(encoding="utf-8")
        records = map(json.loads, filter(str.strip, text.splitlines())) if path.suffix == ".jsonl" else _coco(text)
        found: dict[str, tuple[LabelledObject, ...]] = {}
        for record in records:
            if record["file"] in found:
                raise DataError(f"{path} has two predictions for {record['file']}")
            found[record["file"]] = tuple(map(predicted, record["objects"]))
        return found


def _coco(text: str) -> Iterator[Mapping[str, Any]]:
    """A file like COCO's annotations as records of images."""
    content = json.loads(text)
    names = {each["id"]: each["name"] for each in content["categories"]}
    records = {each["id"]: {"file": each["file_name"], "objects": []} for each in content["images"]}
    for each in content["annotations"]:
        x, y, width, height = each["bbox"]
        told = {"label": names[each["category_id"]], "box": [x, y, x + width, y + height]}
        records[each["image_id"]]["objects"].append({**each, **told})
    yield from records.values()


def predicted(told: Mapping[str, Any]) -> LabelledObject:
    """An object of a record of predictions (`run.records`).

    Raises:
      ValueError: for a box that is not four numbers.
    """
    corners = numbers(told["box"], 4)
    if corners is None:
        raise ValueError(f"box is {told['box']!r}; allowed are four finite numbers")
    mask = told.get("segmentation")
    segmentation = of_coco(mask) if isinstance(mask, dict) else tuple(map(tuple, mask)) if mask else None
    box: Box = (corners[0], corners[1], corners[2], corners[3])
    return LabelledObject(str(told["label"]), box, segmentation, float(told["score"]))


def by_name(images: Iterable[AnnotatedImage], files: Iterable[Path]) -> dict[str, tuple[LabelledObject, ...]]:
    """Predictions of several files, by the names of these images: each of the first file that has its path.

    A path is an image's where both are one file, or where it ends in its name.

    Raises:
      DataError: where two files have predictions for an image, or none of them for any.
    """
    images, found = list(images), {}
    for file in files:
        read = read_predictions(file)
        exact = {_resolved(path): objects for path, objects in read.items()}
        tails = _tails(read)
        for image in images:
            objects = exact.get(_resolved(image.file), tails.get(image.name))
            if objects is None:
                continue
            if image.name in found:
                raise DataError(f"{file}: predictions for {image.name}, of which another file has some, too")
            found[image.name] = objects
    if not found:
        raise DataError(f"the predictions are of none of {amount(len(images), 'image')}, the first {images[0].name}")
    return found


def _resolved(path: str | Path) -> str:
    return str(Path(path).absolute())


def _tails(read: Mapping[str, tuple[LabelledObject, ...]]) -> dict[str, tuple[LabelledObject, ...]]:
    """Predictions by every end of their path that no other path has."""
    tails: dict[str, tuple[LabelledObject, ...] | None] = {}
    for path, objects in read.items():
        parts = Path(path).parts
        for first in range(len(parts)):
            tail = "/".join(parts[first:])
            tails[tail] = None if tail in tails else objects
    return {tail: objects for tail, objects in tails.items() if objects is not None}
