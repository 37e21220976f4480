"""Pascal VOC folders (Everingham et al., IJCV 2010; the devkit's `PASreadrecord`)."""

import os
from collections.abc import Iterable, Sequence, Set
from os import PathLike
from pathlib import Path
from xml.etree import ElementTree

from jaxvision.errors import DataError, amount, nearest, shown
from jaxvision.formats import xml_file
from jaxvision.formats.annotation import (
    AnnotatedImage,
    AnnotatedObject,
    FaultKind,
    Finding,
    Listing,
    Report,
    number_in,
    refuse,
    repeated,
    unlisted,
)
from jaxvision.formats.decimals import shifted
from jaxvision.formats.files import content, is_inside
from jaxvision.formats.fingerprint import digest
from jaxvision.formats.image_file import SUFFIXES, Size, is_possible
from jaxvision.formats.text import read_lines

FORMAT = "Pascal VOC"
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
CORNERS = ("xmin", "ymin", "xmax", "ymax")
MAX_BYTES = 1 << 22
"""Bytes of an annotation file; a larger one is refused unread."""
FLAGS = ("-1", "0", "1")
"""After an id in the list of a class: not there, difficult, there."""


def year_folder(root: str | PathLike) -> Path:
    """The folder with `JPEGImages` and annotations. Raises FileNotFoundError or ValueError unless there is just one."""
    root = Path(root)
    found = [path for path in year_candidates(root) if is_year(path)]
    if not found:
        raise FileNotFoundError(f"{root} is no VOC folder: it holds no Annotations and JPEGImages")
    if len(found) > 1:
        raise ValueError(f"{root} holds several VOC folders, name one: {', '.join(map(str, sorted(found)))}")
    return found[0]


def year_candidates(root: Path) -> list[Path]:
    """Where the folder of a year may be: here, or below."""
    return [root, *root.glob("VOC*"), *root.glob("VOCdevkit/VOC*")]


def is_year(path: Path) -> bool:
    """Whether a folder is that of a VOC year."""
    annotated = any((path / name).is_dir() for name in ("Annotations", "SegmentationClass"))
    return annotated and (path / "JPEGImages").is_dir()


def annotated(year: Path) -> list[str]:
    """The names that have an annotation file, sorted; hidden files don't count."""
    return sorted(path.stem for path in (year / "Annotations").glob("*.xml") if not path.name.startswith("."))


def image_files(year: Path) -> dict[str, list[str]]:
    """The files of images of each name, sorted: there should be one. Hidden files don't count."""
    found: dict[str, list[str]] = {}
    for file in sorted(entry.name for entry in os.scandir(year / "JPEGImages")):
        if file.lower().endswith(SUFFIXES) and not file.startswith("."):
            found.setdefault(Path(file).stem, []).append(file)
    return found


def splits(year: Path) -> dict[str, list[str]]:
    """The ids of each split; the lists of single classes (`cat_train.txt`: a flag after each id) don't count."""
    known = set(annotated(year))
    files = sorted((year / "ImageSets" / "Main").glob("*.txt"))
    return {file.stem: _ids(file, known) for file in files if file.name[0] != "." and not _of_one_class(file, known)}


def split_names(year: Path, split: str) -> list[str]:
    """The ids of a split, in its order. Raises FileNotFoundError if the split or one of its annotation files is not there."""
    path = year / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        raise FileNotFoundError(f"there is no split {split!r}: {path}{nearest(split, sorted(splits(year)))}")
    names = _ids(path, set(annotated(year)))
    for name in names:
        if not is_inside(year / "Annotations" / name, year / "Annotations"):
            raise DataError(
                f"{path}: {shown(name)} leads out of {year / 'Annotations'}; allowed are names of files in it"
            )
        if not (year / "Annotations" / f"{name}.xml").is_file():
            raise FileNotFoundError(f"{path}: {name}: there is no file {year / 'Annotations' / name}.xml")
    return names


def class_names(year: Path) -> tuple[str, ...]:
    """The names of all objects of the folder, sorted; files that can't be read have none."""
    return tuple(sorted({name for each in annotated(year) for name in _names_in(year / "Annotations" / f"{each}.xml")}))


def _names_in(path: Path) -> set[str]:
    try:
        root = parsed(content(path, MAX_BYTES))
    except ValueError:
        return set()
    return {name for node in root.findall("object") if (name := (node.findtext("name") or "").strip())}


def _of_one_class(path: Path, known: Set[str]) -> bool:
    return "_" in path.stem and all(_id(line, known) != line for line in _lines(path))


def _ids(path: Path, known: Set[str]) -> list[str]:
    return [_id(line, known) for line in _lines(path)]


def _lines(path: Path) -> list[str]:
    lines = (line.strip() for line in read_lines(path))
    return [line for line in lines if line]


def _id(line: str, known: Set[str]) -> str:
    """The id that a line names: all of it, or, unless that is known, all before a flag."""
    name, *flag = line.rsplit(maxsplit=1)
    return name if line not in known and flag and flag[0] in FLAGS else line


def read_listing(year: Path, names: Iterable[str], classes: Sequence[str], report: Report = refuse) -> Listing:
    """What the annotation files of these names say. Raises ValueError for a class that is named twice."""
    if repeated(classes):
        raise ValueError(f"classes has {repeated(classes)[0]!r} twice, allowed is once: {', '.join(classes)}")
    labels = {name: label for label, name in enumerate(classes)}
    files, found, contents = image_files(year), [], []
    for place, name in enumerate(names, start=1):
        path = year / "Annotations" / f"{name}.xml"
        contents.append(_content(path, report))
        image = _image(contents[-1], path, files.get(name, [f"{name}.jpg"]), place, labels, report)
        found += [] if image is None else [image]
    ids, images = tuple(range(1, len(labels) + 1)), year / "JPEGImages"
    left_out = unlisted(images, found, "not listed")
    return Listing(
        FORMAT, images, tuple(classes), ids, found, digest(*(each or b"" for each in contents)), left_out=left_out
    )


def _content(path: Path, report: Report) -> bytes | None:
    try:
        return content(path, MAX_BYTES)
    except DataError as error:
        return report(Finding(FaultKind.MALFORMED, str(path), "", str(error).removeprefix(f"{path} ")))


def _image(
    data: bytes | None, path: Path, images: Sequence[str], place: int, labels: dict[str, int], report: Report
) -> AnnotatedImage | None:
    """The image that an annotation file is of; None, with the reason reported, if it can't be used."""
    if data is None:
        return None
    try:
        root = parsed(data)
    except ValueError as error:
        return report(Finding(FaultKind.MALFORMED, str(path), "", str(error)))
    if len(images) > 1:
        value = f"{amount(len(images), 'image')} have its name: {', '.join(images)}; allowed is one"
        return report(Finding(FaultKind.TWO_FILES, str(path), "", value))
    file = path.parent.parent / "JPEGImages" / images[0]
    return AnnotatedImage(
        images[0], file, str(path), place, stated_size(root), objects_in(root, str(path), labels, report)
    )


def parsed(data: bytes) -> ElementTree.Element:
    """The annotation. Raises ValueError for what is no such XML."""
    return xml_file.parsed(data, "annotation", "VOC annotation")


def stated_size(root: ElementTree.Element) -> Size | None:
    """`(height, width)`, if it is there."""
    height, width = (int(number_in(root.findtext(f"size/{side}")) or 0) for side in ("height", "width"))
    return (height, width) if is_possible((height, width)) else None


def objects_in(root: ElementTree.Element, file: str, labels: dict[str, int], report: Report) -> list[AnnotatedObject]:
    """The objects of an annotation, in its order; what can't be used is reported."""
    nodes = enumerate(root.findall("object"), start=1)
    objects = (_object(each, f"object {number}", file, labels, report) for number, each in nodes)
    return [each for each in objects if each is not None]


def _object(
    node: ElementTree.Element, where: str, file: str, labels: dict[str, int], report: Report
) -> AnnotatedObject | None:
    name = (node.findtext("name") or "").strip()
    if name not in labels:
        value = f"name is {shown(name)}{nearest(name[:200], list(labels))}"
        report(Finding(FaultKind.UNKNOWN_CATEGORY, file, where, value))
        return None
    texts = {corner: node.findtext(f"bndbox/{corner}") for corner in CORNERS}
    x0, y0, x1, y1 = (number_in(text) for text in texts.values())
    if x0 is None or y0 is None or x1 is None or y1 is None or x1 < x0 - 1 or y1 < y0 - 1:
        corners = ", ".join(f"{corner} {text and shown(text, 40)[1:-1]}" for corner, text in texts.items())
        allowed = "four finite numbers, no maximum below its minimum"
        report(Finding(FaultKind.MALFORMED, file, where, f"bndbox is {corners}; allowed are {allowed}"))
        return None
    difficult = (node.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        report(Finding(FaultKind.MALFORMED, file, where, f"difficult is {shown(difficult)}; allowed are 0 and 1"))
        return None
    left, top = (shifted(texts[corner] or "", -1) for corner in CORNERS[:2])
    return AnnotatedObject(where, labels[name], (left, top, x1, y1), difficult == "1")
