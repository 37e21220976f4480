"""Sources of objects from annotation files: COCO JSON, Pascal VOC, YOLO text, or whichever of them a path is.

objects.open("my_dataset")  # recognised: the training split, its own classes
objects.coco("train.json", "train/")  # the file, the folder of its images
objects.yolo("data.yaml", "train")  # YOLO, Ultralytics, Roboflow
objects.voc("VOC2007", "train", classes=CLASSES)

Give `target=target.objects(rows)` to the streams; of more objects in an image than rows the largest stay.
"""

import math
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvision.data.source import Annotations, Example, Mask, Source, annotations, no_labels, of_file
from jaxvision.errors import nearest
from jaxvision.formats import coco as coco_format
from jaxvision.formats import doubts, opening, rle
from jaxvision.formats import voc as voc_format
from jaxvision.formats import yolo as yolo_format
from jaxvision.formats.annotation import AnnotatedImage, AnnotatedObject, Listing
from jaxvision.formats.fingerprint import digest
from jaxvision.formats.image_file import Size, size_mismatch, upright_size
from jaxvision.formats.voc import VOC_CLASSES
from jaxvision.machine.folders import local
from jaxvision.masks.runs import Runs

Masks = Callable[[int], Sequence[Mask]]
"""The masks of the objects in the image of this index."""


def open(
    path: str | PathLike,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    images: str | PathLike | None = None,
) -> Source:
    """The objects of a dataset from its path alone: COCO, VOC or YOLO, a file or a folder.

    `formats.open` says what is recognised. `split=None` takes the training split where the dataset is divided, else all
    of it. `classes=None` takes those of the dataset; for the second of two files that belong together, give the classes of
    the first: `open("val.json", classes=open("train.json").classes)`. `images` is the folder of the images of a COCO file,
    where they lie elsewhere; None looks for it (`formats.coco.read_listing`).

    Raises:
      DataError: for what is no dataset known, a split that is not there, an object of none of the classes.
      ValueError: for annotations that can't be used, with file, place and value.
      FileNotFoundError: if the path, or an image, is not there.
    """
    known = opening.splits(path)
    if split is None and known:
        split = opening.named_split("train", known, path)
    listing = opening.open(path, split, images=images, classes=classes)
    if classes is None:
        listing = opening.without_root_category(listing)
    return listing_source(str(path) if split is None else f"{path} {split}", listing)


def coco(json: str | PathLike, images: str | PathLike | None = None, *, masks: bool = False) -> Source:
    """The images of a COCO file and their objects, in order of image id.

    Labels are the categories in order of their id, from 0; crowds are to be ignored; areas are as annotated. Boxes are as
    they stand: of no area, or a little outside the image. `masks` are run lengths, of polygons as pycocotools makes them.
    An image's name is its `file_name`, a path below the folder `images`
    (None: looked for, as `formats.coco.read_listing` says). One whose upright size is not the one that the file states can't
    be used: a pipeline skips it, or ends.

    Raises:
      ValueError: for what can't be used, with file, id and value: no JSON of this form, an annotation of an unknown image
        or category, a box that is not four numbers, a mask that is none.
      FileNotFoundError: if the file or an image is not there.
    """
    listing = coco_format.read_listing(json, images)
    return listing_source(str(json), listing, _masks(listing, str(json)) if masks else None)


def voc(root: str | PathLike, split: str, *, classes: Sequence[str] = VOC_CLASSES) -> Source:
    """The images that `ImageSets/Main/<split>.txt` lists, in its order, and their objects from `Annotations/*.xml`.

    `root` is the folder of a year (`VOC2007`), or one that holds a single such folder, below `VOCdevkit` or not. Corners in
    the files count pixels from 1, both of them inside: x0 and y0 become one less. Difficult objects are to be ignored. An
    image whose upright size is not the one that its file states can't be used: a pipeline skips it, or ends.

    Raises:
      ValueError: for what can't be used, with file, object and value; for an XML file with a DOCTYPE.
      FileNotFoundError: if the folder, the split, an annotation file or an image is not there.
    """
    year = voc_format.year_folder(root)
    names = voc_format.split_names(year, split)
    return listing_source(f"{year} {split}", voc_format.read_listing(year, names, classes))


def yolo_folder(images: str | PathLike, labels: str | PathLike, classes: Sequence[str]) -> Source:
    """The images below a folder, sorted by path, and their objects from `<labels>/<same path>.txt`.

    A text that is empty, or not there, says that the image has no object. Sizes come from the images, turned upright. Links
    to folders are followed; other files are counted in the source's `notes`.

    Raises:
      ValueError: for what can't be used, with file, line and value.
      FileNotFoundError: if a folder is not there.
    """
    found = yolo_format.in_folder(Path(images), Path(labels))
    return listing_source(str(images), yolo_format.read_listing(found, Path(images), classes))


def yolo(path: str | PathLike, split: str) -> Source:
    """A split (`"train"`, `"val"`) of the `data.yaml` that Ultralytics describes a dataset by.

    Texts lie where the last folder `images` of an image's path is called `labels`. Raises as `yolo_folder` does,
    and ValueError for a file that is no such description.
    """
    described = yolo_format.read_yaml(path)
    if split not in described.splits:
        raise ValueError(f"{path} has no split {split!r}{nearest(split, list(described.splits))}")
    found = yolo_format.listed(described.splits[split], described.root)
    return listing_source(f"{path} {split}", yolo_format.read_listing(found, described.root, described.classes))


def listing_source(what: str, listing: Listing, masks: Masks | None = None) -> Source:
    """The source of a listing that was read without a finding.

    An image whose upright size is not the one that its file of annotations states has a `fault`: the boxes would lie
    elsewhere. What is no image is handed on: to decode it says why.

    Raises:
      FileNotFoundError: if an image is not there.
      ValueError: if there is none.
    """
    if not listing.images:
        raise ValueError(f"{what} has no image")
    names, files = [each.name for each in listing.images], [each.file for each in listing.images]
    stated = [_Stated(each.size, each.annotation_file, each.id) for each in listing.images]
    sizes = file_sizes(listing.images)
    found = [annotated(each.objects) for each in listing.images]
    relative = listing.relative

    def placed(index: int, image: bytes | Path) -> Annotations:
        return _in_pixels(found[index], upright_size(image)) if relative else found[index]

    def read(indices: np.ndarray) -> list[Example]:
        examples = []
        for index in np.asarray(indices).tolist():
            example = of_file(files[index])
            if example.fault is not None:
                examples.append(example._replace(objects=annotations([], [])))
                continue
            image = example.image
            assert isinstance(image, bytes)
            fault, objects = _other_size(stated[index], names[index], image), placed(index, image)
            if masks is not None and fault is None:
                objects = objects._replace(masks=masks(index))
            examples.append(Example(image, objects=objects, fault=fault))
        return examples

    return Source(
        length=len(names),
        read=read,
        labels=no_labels(what),
        classes=listing.classes,
        name=lambda index: names[index],
        fingerprint=digest(listing.fingerprint, *listing.classes, *names, *map(str, sizes)),
        objects=lambda: [placed(index, file) for index, file in enumerate(files)],
        sizes=lambda: np.asarray(
            [each.size or upright_size(file) or (1, 1) for each, file in zip(stated, files, strict=True)]
        ),
        notes=doubts.notes(listing),
        doubts=tuple(map(str, doubts.doubts(listing, [each.size for each in listing.images]))),
        root=str(listing.folder) if all(listing.folder / each.name == each.file for each in listing.images) else "",
    )


class _Stated(NamedTuple):
    """What is said of the size of an image, where, and under which id."""

    size: Size | None
    file: str
    id: int


def _other_size(stated: _Stated, name: str, image: bytes) -> str | None:
    """What to say where the size is known, and is not that of the image."""
    value = None if stated.size is None else size_mismatch(name, stated.size, upright_size(image), image)
    if value is None:
        return None
    return (
        f"{stated.file}: image {stated.id}: {value}, so its boxes would lie elsewhere; python -m jaxvision.formats.check"
        " names all such images, and --repaired=OUT.json writes a copy without them"
    )


def file_sizes(images: Sequence[AnnotatedImage]) -> list[int]:
    """Bytes of each image. Raises FileNotFoundError if one is missing."""
    sizes, missing = [], []
    for image in images:
        try:
            sizes.append(image.file.stat().st_size)
        except OSError:
            missing.append(image)
    if missing:
        first = missing[0]
        raise FileNotFoundError(
            f"{first.annotation_file}: image {first.id}: there is no file {first.file} ({len(missing)} of {len(images)} are"
            " missing; where they lie elsewhere, --config.images=DIR says so; python -m jaxvision.formats.check names them"
            " all)"
        )
    return sizes


def annotated(objects: Sequence[AnnotatedObject]) -> Annotations:
    """The objects of an image as arrays, their areas as annotated."""
    boxes = np.asarray([each.box for each in objects], np.float32).reshape(-1, 4)
    found = annotations(boxes, [each.label for each in objects], [each.ignore for each in objects])
    stated = np.asarray([math.nan if each.area is None else each.area for each in objects], np.float32)
    return found._replace(area=np.where(np.isnan(stated), found.area, stated))


def _in_pixels(relative: Annotations, size: Size | None) -> Annotations:
    """The objects of an image of this size; none where it has none, because it can't be read."""
    if size is None:
        return annotations([], [])
    boxes = relative.boxes.astype(np.float64) * [size[1], size[0], size[1], size[0]]
    return annotations(boxes, relative.labels, relative.ignore)


def _masks(listing: Listing, file: str) -> Masks:
    """Masks, made when they are asked for."""
    segmentations: list[list[Any]] = []
    sizes: list[Size] = []
    for image in listing.images:
        if image.size is None and image.objects:
            raise ValueError(f"{file}: image {image.id}: masks need its height and width, and it has none")
        sizes.append(image.size or (1, 1))
        segmentations.append([coco_format.compact_segmentation(each, file) for each in image.objects])

    def masks(index: int) -> list[Runs]:
        return [_runs(file, where, compacted, sizes[index]) for where, compacted in segmentations[index]]

    return masks


def _runs(file: str, where: str, compacted: Any, size: Size) -> Runs:
    try:
        return rle.runs(compacted, size)
    except ValueError as error:
        raise ValueError(f"{file}: {where}: {error}") from None


def coco_split(folder: str | PathLike, split: str, *, masks: bool = False) -> Source:
    """A split, `"train2017"`, of COCO as it is distributed: `annotations/instances_<split>.json` and `<split>/`.

    `masks` is as for `coco`, and so is what is raised.
    """
    folder = local(folder)
    return coco(folder / f"annotations/instances_{split}.json", folder / split, masks=masks)
