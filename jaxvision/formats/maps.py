"""Datasets of class maps: a folder of mask images, Pascal VOC's segmentation, Cityscapes."""

import os
from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvision.errors import DataError, nearest
from jaxvision.formats import voc, yolo
from jaxvision.formats.annotation import (
    AnnotatedImage,
    FaultKind,
    Finding,
    Listing,
    Meaning,
    Report,
    numbered,
    refuse,
    stating,
)
from jaxvision.formats.class_maps import Segment, most_frequent
from jaxvision.formats.files import sorted_out
from jaxvision.formats.fingerprint import digest
from jaxvision.formats.image_file import SUFFIXES
from jaxvision.formats.text import read_lines

FOLDER, VOC_MAPS, CITYSCAPES = "folder of maps", "Pascal VOC segmentation", "Cityscapes"
BACKGROUND = "background"
VOC = numbered((BACKGROUND, *voc.VOC_CLASSES))
"""Palette indices of VOC; 255, along the outlines and around what is difficult, is no class."""
CITYSCAPES_CLASSES = (
    *(
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
    ),
    *("sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The id of each class in `labelIds` and `instanceIds`; the others up to 33 are not evaluated, and so no class."""
CITYSCAPES_THINGS = CITYSCAPES_CLASSES[11:]
INSTANCES = 1000
"""In `instanceIds`, the id of a class times this, plus the number of the instance; less is a group, or stuff."""
LARGEST_CITYSCAPES_ID = 33
PETS = Meaning(("pet", BACKGROUND), {1: 0, 2: 1, 3: None})
"""Trimaps of Oxford-IIIT Pet; the border of the pet is no class."""
TRAIN_IDS = numbered(CITYSCAPES_CLASSES)
LABEL_IDS = Meaning(
    CITYSCAPES_CLASSES,
    {id: CITYSCAPES_IDS.index(id) if id in CITYSCAPES_IDS else None for id in (*range(LARGEST_CITYSCAPES_ID + 1), 255)},
)


def is_folder(path: Path) -> bool:
    """Whether a folder holds images and maps of them."""
    return (path / "images").is_dir() and (path / "masks").is_dir()


def read_folder(
    root: str | PathLike,
    classes: Sequence[str] | None = None,
    void: int | None = 255,
    values: Mapping[int, int | None] | None = None,
    report: Report = refuse,
) -> Listing:
    """The images below `images/` in the order of their paths, and the map of each, of the same path below `masks/`.

    The endings of the two may differ. Values of pixels are the classes, in the order of their names, from 0, unless `values`
    says the class of each. `classes=None` takes the names of `classes.txt`, one a line.

    Raises:
      DataError: if there are no names of classes.
      FileNotFoundError: if a folder is not there.
    """
    root = Path(root)
    for each in (root / "images", root / "masks"):
        if not each.is_dir():
            raise FileNotFoundError(f"there is no folder {each}")
    if classes is None:
        if not (root / "classes.txt").is_file():
            raise DataError(
                f"{root} has no classes.txt: name the classes in the order of their values, --classes=A,B,..."
            )
        classes = yolo.read_classes(root / "classes.txt")
    images, maps = (_by_stem(root / name, report) for name in ("images", "masks"))
    orphans = sorted(maps.keys() - images.keys())
    added = _added(orphans, images.keys() - maps.keys())
    if added is not None:
        report(Finding(FaultKind.NO_IMAGE, str(root / "masks"), "", _renaming(added, maps[orphans[0]], len(orphans))))
        maps |= {_without(added, stem): maps[stem] for stem in orphans}
    for stem in orphans if added is None else ():
        report(
            Finding(FaultKind.NO_IMAGE, str(maps[stem]), "", f"there is no image of its name below {root / 'images'}")
        )
    listed = [
        _image(file, root / "images", maps.get(stem, root / "masks" / f"{stem}.png"), place)
        for place, (stem, file) in enumerate(sorted(images.items()), start=1)
    ]
    meaning = numbered(classes, void) if values is None else stating(classes, values)
    return _listing(FOLDER, root / "images", meaning, listed)


class _Added(NamedTuple):
    """What the names of masks have before and after those of their images."""

    before: str
    after: str


def _added(masks: Sequence[str], images: Collection[str]) -> _Added | None:
    """What all of these masks have in addition to the name of an image, set off by a mark; None if there is no such thing."""
    if not masks:
        return None
    name = os.path.basename(masks[0])
    spans = ((start, stop) for start in range(len(name)) for stop in range(start + 1, len(name) + 1))
    for start, stop in sorted(spans, key=lambda span: span[0] - span[1]):
        added = _Added(name[:start], name[stop:])
        set_off = not added.before[-1:].isalnum() and not added.after[:1].isalnum()
        if set_off and all(_without(added, each) in images for each in masks):
            return added
    return None


def _without(added: _Added, stem: str) -> str | None:
    """The path of a mask without what is added to its name; None if it is not."""
    folder, name = os.path.split(stem)
    whole = name.startswith(added.before) and name.endswith(added.after) and len(name) > len(added.before + added.after)
    return os.path.join(folder, name.removeprefix(added.before).removesuffix(added.after)) if whole else None


def _renaming(added: _Added, first: Path, count: int) -> str:
    parts = [f"begin with {added.before!r}"] * bool(added.before) + [f"end in {added.after!r}"] * bool(added.after)
    new = f"{os.path.basename(str(_without(added, first.stem)))}{first.suffix}"
    all_masks = f"all {count:,} masks without an image" if count > 1 else "the one mask without an image"
    return f"{all_masks} {' and '.join(parts)}: rename {first.name} to {new}" + ", and the others so" * (count > 1)


def _by_stem(folder: Path, report: Report) -> dict[str, Path]:
    """The image files below a folder by their path in it, without its ending."""
    found: dict[str, Path] = {}
    for entry in sorted_out(folder, SUFFIXES).used:
        stem = os.path.splitext(os.path.relpath(entry.path, folder))[0]
        if stem in found:
            value = f"{found[stem].name} has the same name but for its ending; allowed is one of them"
            report(Finding(FaultKind.TWO_FILES, entry.path, "", value))
        found.setdefault(stem, Path(entry.path))
    return found


def _image(file: Path, folder: Path, map: Path, place: int, instances: Path | None = None) -> AnnotatedImage:
    name = os.path.relpath(file, folder)
    return AnnotatedImage(name, file, str(map), place, None, [], map=map, instances=instances)


def _listing(format: str, folder: Path, meaning: Meaning, images: list[AnnotatedImage]) -> Listing:
    sizes = [str(_bytes(file)) for each in images for file in (each.map, each.instances) if file is not None]
    numbers, classes = tuple(range(1, len(meaning.classes) + 1)), meaning.classes
    return Listing(format, folder, classes, numbers, images, digest(repr(meaning), *sizes), meaning=meaning)


def _bytes(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1


def voc_split(year: Path, split: str) -> list[str]:
    """The names that `ImageSets/Segmentation/<split>.txt` lists. Raises FileNotFoundError if there is none."""
    path = year / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not path.is_file():
        raise FileNotFoundError(f"there is no split {split!r}: {path}{nearest(split, voc_splits(year))}")
    return [line.strip() for line in read_lines(path) if line.strip()]


def voc_splits(year: Path) -> list[str]:
    """The splits of `ImageSets/Segmentation`."""
    return sorted(each.stem for each in (year / "ImageSets" / "Segmentation").glob("*.txt") if each.name[0] != ".")


def voc_names(year: Path) -> list[str]:
    """The names that have a map of classes, sorted."""
    return sorted(each.stem for each in (year / "SegmentationClass").glob("*.png") if each.name[0] != ".")


def read_voc(year: Path, names: Sequence[str], meaning: Meaning = VOC) -> Listing:
    """The images of these names in `JPEGImages`, and their maps in `SegmentationClass` and `SegmentationObject`."""
    files, listed = voc.image_files(year), []
    for place, name in enumerate(names, start=1):
        image = year / "JPEGImages" / files.get(name, [f"{name}.jpg"])[0]
        map, instances = (year / folder / f"{name}.png" for folder in ("SegmentationClass", "SegmentationObject"))
        listed.append(_image(image, year / "JPEGImages", map, place, instances))
    return _listing(VOC_MAPS, year / "JPEGImages", meaning, listed)


def with_voc_maps(boxes: Listing, maps: Listing) -> Listing:
    """The listing of a folder's boxes, its images with their maps, those that have maps alone after the others."""
    by_name = {image.name: image for image in maps.images}
    images = [
        image._replace(map=by_name[image.name].map, instances=by_name[image.name].instances)
        if image.name in by_name
        else image
        for image in boxes.images
    ]
    alone = [image for name, image in by_name.items() if name not in {each.name for each in boxes.images}]
    numbered_alone = [image._replace(id=len(images) + place) for place, image in enumerate(alone, start=1)]
    return boxes._replace(
        images=[*images, *numbered_alone],
        classes=boxes.classes or maps.classes,
        category_ids=boxes.category_ids or maps.category_ids,
        meaning=maps.meaning,
    )


def voc_segments(instances: np.ndarray, labels: np.ndarray, valid: np.ndarray) -> list[Segment]:
    """The objects of VOC's map of objects, each of the class that most of its pixels have; background and void are none."""
    found = []
    for number in np.unique(instances).tolist():
        if number in (0, 255):
            continue
        label = most_frequent(labels, valid & (instances == number))
        found += [] if label is None or label == 0 else [Segment(number, label)]
    return found


def is_cityscapes(path: Path) -> bool:
    """Whether a folder holds Cityscapes."""
    return (path / "leftImg8bit").is_dir() and any((path / name).is_dir() for name in ("gtFine", "gtCoarse"))


def cityscapes_splits(root: Path, annotations: str = "gtFine") -> list[str]:
    """The splits that there are annotations of."""
    place = root / annotations
    return (
        sorted(each.name for each in place.iterdir() if each.is_dir() and each.name[0] != ".") if place.is_dir() else []
    )


def read_cityscapes(root: str | PathLike, split: str, annotations: str = "gtFine", ids: str = "labelIds") -> Listing:
    """The images below `leftImg8bit/<split>` in the order of their paths, and their maps below `<annotations>/<split>`.

    Raises:
      FileNotFoundError: if a folder is not there.
    """
    root = Path(root)
    images, maps = root / "leftImg8bit" / split, root / annotations / split
    for each in (images, maps):
        if not each.is_dir():
            raise FileNotFoundError(f"there is no folder {each}{nearest(split, cityscapes_splits(root, annotations))}")
    listed = []
    for name in sorted(os.path.relpath(entry.path, images) for entry in sorted_out(images, ("_leftimg8bit.png",)).used):
        begin = maps / name.removesuffix("_leftImg8bit.png")
        files = (begin.with_name(f"{begin.name}_{annotations}_{kind}.png") for kind in (ids, "instanceIds"))
        listed.append(_image(images / name, images, next(files), len(listed) + 1, next(files)))
    return _listing(CITYSCAPES, images, LABEL_IDS if ids == "labelIds" else TRAIN_IDS, listed)


def cityscapes_segments(instances: np.ndarray) -> list[Segment]:
    """The objects of `instanceIds`; a group of things that were not told apart is to be ignored, stuff and void are none."""
    things = {id: label for label, id in enumerate(CITYSCAPES_IDS) if CITYSCAPES_CLASSES[label] in CITYSCAPES_THINGS}
    found = []
    for number in np.unique(instances).tolist():
        id = number // INSTANCES if number >= INSTANCES else number
        if id in things:
            found.append(Segment(number, things[id], number < INSTANCES))
    return found


def strange_instances(instances: np.ndarray) -> list[int]:
    """Values of `instanceIds` that are of no class of Cityscapes, evaluated or not."""
    ids = {number: number // INSTANCES if number >= INSTANCES else number for number in np.unique(instances).tolist()}
    return [number for number, id in ids.items() if id > LARGEST_CITYSCAPES_ID and number != 255]
