"""Pascal VOC folders as a source of objects (Everingham et al., IJCV 2010; the devkit's `PASreadrecord`)."""

import os
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from xml.etree import ElementTree

from jaxvision.data import annotation_files, folder
from jaxvision.data.annotation_files import Entry, Finding, Kind, Listing, Picture, Tell, nearest, number_in, refuse
from jaxvision.data.source import Source, digest

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def source(root: str | PathLike, split: str, *, classes: Sequence[str] = VOC_CLASSES) -> Source:
    """The images that `ImageSets/Main/<split>.txt` lists, in its order, and their objects from `Annotations/*.xml`.

    `root` is the folder of a year (`VOC2007`), or one that holds a single such folder, below `VOCdevkit` or not. Corners in
    the files count pixels from 1, both of them inside: x0 and y0 become one less. Difficult objects are to be ignored. To
    read an image raises ValueError if its upright size is not the one that its file has of it.

    Raises:
      ValueError: for what can't be used, with file, object and value; for an XML file with a DOCTYPE.
      FileNotFoundError: if the folder, the split, an annotation file or an image is not there.
    """
    year = year_folder(root)
    path = year / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        raise FileNotFoundError(f"there is no split {split!r}: {path}; {nearest(split, sorted(splits(year)))}")
    names = _ids(path)
    for name in names:
        if not (year / "Annotations" / f"{name}.xml").is_file():
            raise FileNotFoundError(f"{path}: {name}: there is no file {year / 'Annotations' / name}.xml")
    return annotation_files.source(f"{year} {split}", read_listing(year, names, classes, refuse))


def year_folder(root: str | PathLike) -> Path:
    """The folder with `Annotations` and `JPEGImages`. Raises FileNotFoundError or ValueError unless there is just one."""
    root = Path(root)
    found = [path for path in (root, *root.glob("VOC*"), *root.glob("VOCdevkit/VOC*")) if is_year(path)]
    if not found:
        raise FileNotFoundError(f"{root} is no VOC folder: it holds no Annotations and JPEGImages")
    if len(found) > 1:
        raise ValueError(f"{root} holds several VOC folders, name one: {', '.join(map(str, sorted(found)))}")
    return found[0]


def is_year(path: Path) -> bool:
    """Whether a folder is that of a VOC year."""
    return (path / "Annotations").is_dir() and (path / "JPEGImages").is_dir()


def splits(year: Path) -> dict[str, list[str]]:
    """The ids of each split; the lists of single classes (`cat_train.txt`) don't count."""
    files = (year / "ImageSets" / "Main").glob("*.txt")
    return {file.stem: _ids(file) for file in files if "_" not in file.stem}


def _ids(path: Path) -> list[str]:
    return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def read_listing(year: Path, names: Iterable[str], classes: Sequence[str], tell: Tell) -> Listing:
    """What the annotation files of these names say."""
    images = year / "JPEGImages"
    files = {
        Path(entry.name).stem: entry.name
        for entry in os.scandir(images)
        if entry.name.lower().endswith(folder.SUFFIXES)
    }
    labels = {name: label for label, name in enumerate(classes)}
    pictures, contents = [], []
    for place, name in enumerate(names, start=1):
        path, file = year / "Annotations" / f"{name}.xml", files.get(name, f"{name}.jpg")
        contents.append(path.read_bytes())
        try:
            size, entries = _parsed(contents[-1], str(path), labels, tell)
        except ValueError as error:
            tell(Finding(Kind.MALFORMED, str(path), "", str(error)))
            continue
        pictures.append(Picture(file, images / file, str(path), place, size, entries))
    ids = tuple(range(1, len(labels) + 1))
    return Listing("Pascal VOC", images, tuple(classes), ids, pictures, digest(*contents))


class _WithoutDoctype(ElementTree.TreeBuilder):
    """A document type can define entities that grow without bound, or that read files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError(f"it has a DOCTYPE ({name}), which is not read")


def _parsed(data: bytes, file: str, labels: dict[str, int], tell: Tell) -> tuple[tuple[int, int] | None, list[Entry]]:
    """Size, if there is one, and objects. Raises ValueError for what is no such XML."""
    parser = ElementTree.XMLParser(target=_WithoutDoctype())
    try:
        parser.feed(data)
        root = parser.close()
    except ElementTree.ParseError as error:
        raise ValueError(f"is no XML: {error}") from None
    if root.tag != "annotation":
        raise ValueError(f"is no VOC annotation: its root is <{root.tag}>, allowed is <annotation>")
    sides = [number_in(root.findtext(f"size/{side}")) for side in ("height", "width")]
    height, width = (int(side or 0) for side in sides)
    objects = (
        _entry(each, f"object {n}", file, labels, tell) for n, each in enumerate(root.findall("object"), start=1)
    )
    return (height, width) if height > 0 and width > 0 else None, [each for each in objects if each is not None]


def _entry(node: ElementTree.Element, where: str, file: str, labels: dict[str, int], tell: Tell) -> Entry | None:
    name = (node.findtext("name") or "").strip()
    if name not in labels:
        value = f"name is {name!r}; {nearest(name, list(labels))}"
        tell(Finding(Kind.UNKNOWN_CATEGORY, file, where, value))
        return None
    texts = {corner: node.findtext(f"bndbox/{corner}") for corner in CORNERS}
    x0, y0, x1, y1 = (number_in(text) for text in texts.values())
    if x0 is None or y0 is None or x1 is None or y1 is None or x1 < x0 - 1 or y1 < y0 - 1:
        shown = ", ".join(f"{corner} {text}" for corner, text in texts.items())
        allowed = "four finite numbers, no maximum below its minimum"
        tell(Finding(Kind.MALFORMED, file, where, f"bndbox is {shown}; allowed are {allowed}"))
        return None
    difficult = (node.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        tell(Finding(Kind.MALFORMED, file, where, f"difficult is {difficult!r}; allowed are 0 and 1"))
        return None
    return Entry(where, labels[name], (x0 - 1, y0 - 1, x1, y1), difficult == "1")
