"""A dataset of objects from its path alone: COCO JSON, a Pascal VOC folder, a data.yaml or a folder of YOLO."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from jaxvision.errors import DataError, nearest, raised_as
from jaxvision.formats import coco, maps, panoptic, voc, yolo
from jaxvision.formats.annotation import Listing, Report, refuse
from jaxvision.machine.folders import local

ROBOFLOW = "_annotations.coco.json"
ALIASES = (("train", "training"), ("val", "valid", "validation"), ("test", "testing"))
"""Names that a split has in one dataset or another."""
KNOWN = (
    "a COCO .json, a folder of them, a data.yaml, a folder of VOC (Annotations/, JPEGImages/)"
    " or of YOLO (images/, labels/), and of maps: images/ and masks/, Cityscapes, a panoptic .json"
)


class Layout(StrEnum):
    """How a dataset lies on disk."""

    COCO = "COCO JSON"
    COCO_FOLDER = "a folder of COCO JSON files"
    YOLO_YAML = "YOLO data.yaml"
    YOLO_FOLDER = "YOLO folder"
    VOC = "Pascal VOC folder"
    PANOPTIC = "COCO panoptic JSON"
    MAP_FOLDER = "a folder of maps"
    CITYSCAPES = "Cityscapes"


OF_MAPS = (Layout.PANOPTIC, Layout.MAP_FOLDER, Layout.CITYSCAPES)
"""Layouts that `data.maps` reads, a class for every pixel."""


class Recognised(NamedTuple):
    """The layout of a dataset, and the file or folder to open."""

    layout: Layout
    path: Path


def recognise(path: str | PathLike) -> Recognised:
    """Which layout it is. Raises DataError for none, naming those that are known; FileNotFoundError if nothing is there."""
    with raised_as(DataError):
        path = local(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if path.suffix.lower() == ".json":
        return Recognised(Layout.PANOPTIC if panoptic.is_panoptic(path) else Layout.COCO, path)
    for name in (path, *(path / name for name in yolo.YAMLS)):
        if name.suffix.lower() in (".yaml", ".yml") and name.is_file():
            return Recognised(Layout.YOLO_YAML, name)
    if (path / "images").is_dir() and (path / "labels").is_dir():
        return Recognised(Layout.YOLO_FOLDER, path)
    if maps.is_folder(path):
        return Recognised(Layout.MAP_FOLDER, path)
    if maps.is_cityscapes(path):
        return Recognised(Layout.CITYSCAPES, path)
    if any(voc.is_year(each) for each in voc.year_candidates(path)):
        return Recognised(Layout.VOC, voc.year_folder(path))
    if coco_files(path):
        return Recognised(Layout.COCO_FOLDER, path)
    raise DataError(f"{path} is no dataset known here: {KNOWN}")


def coco_files(folder: Path) -> dict[str, Path]:
    """The COCO files of a folder by the name of their split: `train` for `train.json`, `instances_train2017.json`, ...

    They lie in it, in its `annotations/`, or are Roboflow's `train/_annotations.coco.json`.
    """
    places = folder.glob(f"*/{ROBOFLOW}"), folder.glob("*.json"), folder.glob("annotations/*.json")
    files = sorted(file for place in places for file in place if file.name[0] != "." and file.is_file())
    return {(file.parent.name if file.name == ROBOFLOW else file.stem): file for file in files if _is_split(file)}


def _is_split(file: Path) -> bool:
    """COCO has files of captions, keypoints, segments and of images without annotations beside those of instances."""
    return not file.stem.startswith(("captions_", "person_keypoints_", "image_info_", "panoptic_", "stuff_"))


def splits(path: str | PathLike) -> tuple[str, ...]:
    """The names of the splits of a dataset; none for a single file, or a folder that is not divided."""
    layout, path = recognise(path)
    match layout:
        case Layout.COCO_FOLDER:
            found = coco_files(path)
            return tuple(found) if len(found) > 1 else ()
        case Layout.YOLO_YAML:
            return _apart(yolo.read_yaml(path).splits)
        case Layout.YOLO_FOLDER:
            return _yolo_splits(path)
        case Layout.VOC:
            return tuple(voc.splits(path))
    return ()


def _apart(places: Mapping[str, list[Path]]) -> tuple[str, ...]:
    """The splits that are not the folders of one before them again, as Ultralytics' `val` often is."""
    return tuple(name for place, name in enumerate(places) if places[name] not in list(places.values())[:place])


def _yolo_splits(folder: Path) -> tuple[str, ...]:
    """`train`, `val` of `images/train` and `images/val`; other folders below `images` are no splits."""
    known = {name for names in ALIASES for name in names}
    return tuple(
        sorted(place.name for place in (folder / "images").iterdir() if place.is_dir() and place.name in known)
    )


def named_split(split: str, known: Sequence[str], path: object) -> str:
    """Which of the known splits is meant: the one of this name, or of another name for it.

    `val` is `valid`, too, or the only one that has it as a word: `instances_val2017`. Raises DataError if there is none.
    """
    names = next((names for names in ALIASES if split in names), (split,))
    for name in (split, *names):
        if name in known:
            return name
    having = [each for each in known if set(names) & set(_words(each))]
    if len(having) == 1:
        return having[0]
    if not known:
        raise DataError(f"{path} is not divided, so it has no split {split!r}")
    raise DataError(f"{path} has no split {split!r}{nearest(split, known)}")


def _words(text: str) -> list[str]:
    """`instances_val2017`: instances, val."""
    return [word.rstrip("0123456789") for word in text.lower().replace("-", "_").replace(".", "_").split("_")]


def open(
    path: str | PathLike,
    split: str | None = None,
    *,
    images: str | PathLike | None = None,
    classes: Sequence[str] | None = None,
    report: Report = refuse,
) -> Listing:
    """The annotations of a dataset, in whichever layout it is.

    Args:
      path: a COCO file, or the file or folder of a dataset.
      split: `"train"`, `"val"` (or `"valid"`), ...; None takes all of them.
      images: the folder of the images of a COCO file; None looks for it (`coco.read_listing`).
      classes: names of the classes in the order of their labels; None takes those of the dataset. YOLO texts have numbers
        alone, so they need a data.yaml, a classes.txt or this.
      report: what is done about what can't be used.

    Raises:
      DataError: for what is no dataset, for a split that it does not have, for a YOLO folder without names of classes.
      ValueError: from `refuse`, for annotations that can't be used.
      FileNotFoundError: if it, or what it names, is not there.
    """
    layout, found = recognise(path)
    if split is not None:
        split = named_split(split, splits(path), path)
    if layout in OF_MAPS:
        raise DataError(f"{path} is {layout}, a class for every pixel: a function of jaxvision.data.maps reads it")
    if images is not None and layout is not Layout.COCO:
        raise DataError(f"a folder of images is for a COCO file, and {path} is none")
    match layout:
        case Layout.COCO:
            listing = coco.read_listing(found, images, report)
        case Layout.COCO_FOLDER:
            listing = coco.read_listing(_one_file(found, split), None, report)
        case Layout.YOLO_YAML:
            listing = _described(found, split, report)
        case Layout.YOLO_FOLDER:
            listing = yolo.read_listing(*_yolo_folder(found, split, classes), report)
        case Layout.VOC:
            names = voc.annotated(found) if split is None else voc.split_names(found, split)
            listing = voc.read_listing(found, names, classes or voc.class_names(found), report)
    return listing if classes is None else relabelled(listing, classes, path)


def _one_file(folder: Path, split: str | None) -> Path:
    files = coco_files(folder)
    if split is None and len(files) > 1:
        raise DataError(f"{folder} has several COCO files, name one of them, or its split: {', '.join(files)}")
    return next(iter(files.values())) if split is None else files[split]


def _described(path: Path, split: str | None, report: Report) -> Listing:
    described = yolo.read_yaml(path)
    if not described.splits:
        raise DataError(f"{path} names no images: it has no train, val and test")
    places = [place for name, places in described.splits.items() if split in (None, name) for place in places]
    found = yolo.each_once(yolo.listed(places, described.root))
    return yolo.read_listing(found, described.root, described.classes, report)


def _yolo_folder(
    path: Path, split: str | None, classes: Sequence[str] | None
) -> tuple[yolo.Images, Path, Sequence[str]]:
    """Images with their texts, the folder of the images, the classes."""
    images, labels = path / "images" / (split or ""), path / "labels" / (split or "")
    return yolo.in_folder(images, labels), images, classes or folder_classes(path)


def folder_classes(path: Path) -> tuple[str, ...]:
    """The names of the `classes.txt` of a YOLO folder. Raises DataError if it has none."""
    for file in (path / "classes.txt", path / "labels" / "classes.txt"):
        if file.is_file() and (names := yolo.read_classes(file)):
            return names
    raise DataError(f"{path} has no data.yaml and no classes.txt: name the classes in their order, --classes=A,B,...")


def relabelled(listing: Listing, classes: Sequence[str], path: object) -> Listing:
    """The listing with these classes in this order. Raises DataError if an object is of none of them."""
    if tuple(classes) == listing.classes:
        return listing
    labels = {name: label for label, name in enumerate(classes)}
    used = {each.label for image in listing.images for each in image.objects}
    for label in sorted(used):
        if listing.classes[label] not in labels:
            raise DataError(
                f"{path} has objects of class {listing.classes[label]!r}{nearest(listing.classes[label], classes)}"
            )
    ids = dict(zip(listing.classes, listing.category_ids, strict=True))
    unused = iter(range(max(listing.category_ids, default=0) + 1, 1 << 62))
    return listing._replace(
        classes=tuple(classes),
        category_ids=tuple(ids[name] if name in ids else next(unused) for name in classes),
        images=[
            image._replace(objects=[each._replace(label=labels[listing.classes[each.label]]) for each in image.objects])
            for image in listing.images
        ],
    )


def without_root_category(listing: Listing) -> Listing:
    """A COCO listing without the category that Roboflow puts above the others: no object is of it."""
    above = {
        each.get("supercategory")
        for each in listing.raw.get("categories", ())
        if isinstance(each, dict) and each.get("supercategory") != each.get("name")
    }
    used = {each.label for image in listing.images for each in image.objects}
    kept = [name for label, name in enumerate(listing.classes) if name not in above or label in used]
    return listing if len(kept) in (0, len(listing.classes)) else relabelled(listing, kept, listing.folder)
