"""Text files as Darknet and Ultralytics have them, one an image: `class cx cy width height` a line, each 0 to 1 of its sides.

A line may also be `class x y x y x y ...`, a polygon of three points or more, as those of segmentation and of rotated boxes:
it is read as the upright box around its points, as Ultralytics' detectors do. Every line counts by itself: one of four
numbers is a box beside polygons too.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from jaxvision.formats.annotation import (
    AnnotatedImage,
    AnnotatedObject,
    Box,
    FaultKind,
    Finding,
    Listing,
    Report,
    number_in,
    refuse,
)
from jaxvision.formats.fingerprint import digest
from jaxvision.formats.image_file import SUFFIXES
from jaxvision.formats.text import read_lines, read_text
from jaxvision.machine.folders import spelled

logger = logging.getLogger(__name__)

OTHER_IMAGES = (".tif", ".tiff", ".dng", ".mpo", ".pfm", ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm")
"""Endings of images that are not read."""
BESIDE = 0.01
"""How far from 0 to 1 a centre, a side or a point may be: files are rounded."""
FORMS = "class cx cy width height, or six or more, an even number of them, class x y x y x y ..."


class Labelled(NamedTuple):
    """An image, and where its text is or would be."""

    name: str
    image: Path
    text: Path


class Description(NamedTuple):
    """What a `data.yaml` says."""

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, list[Path]]
    """Folders of images, or text files that list images."""


def read_yaml(path: str | PathLike) -> Description:
    """What a `data.yaml` says. Raises ValueError if it is none, or where YAML makes something else of the name of a class."""
    path = Path(path)
    content, written = _parsed(path)
    if not isinstance(content, Mapping) or "names" not in content:
        raise ValueError(f"{path} has no `names` of classes, so it describes no dataset")
    root = path.parent / str(content.get("path") or ".")
    splits = {
        name: [_place(root, str(each)) for each in (value if isinstance(value, list) else [value])]
        for name, value in content.items()
        if name in ("train", "val", "test") and value
    }
    names = _names(content["names"], written.get("names"), path)
    if content.get("nc", len(names)) != len(names):
        raise ValueError(f"{path}: nc is {content['nc']!r}, and names are {len(names)}; allowed is their number")
    return Description(root, names, splits)


def _parsed(path: Path) -> tuple[Any, Any]:
    """The content of a YAML file, and the same with every value as the text that is written there."""
    import yaml

    text = read_text(path)
    try:
        return yaml.safe_load(text), yaml.load(text, yaml.BaseLoader)
    except (yaml.YAMLError, ValueError) as error:  # a ValueError for the 31st of February
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None


def _place(root: Path, text: str) -> Path:
    """Where a split is. Of a path that is not there, a first `../` is dropped: Roboflow writes it beside `train/`."""
    place, inside = root / text, root / text.removeprefix("../")
    return inside if inside.exists() and not place.exists() else place


def _names(names: Any, written: Any, path: Path) -> tuple[str, ...]:
    """The names of the classes in the order of their numbers."""
    by_number, texts = _numbered(names), {str(number): text for number, text in _numbered(written).items()}
    numbers = range(len(by_number))
    if not by_number or any(type(each) is not int for each in by_number) or sorted(by_number) != list(numbers):
        raise ValueError(f"{path}: names is {names!r}; allowed are a list, or numbers from 0 without a gap to names")
    return tuple(_name(by_number[each], texts.get(str(each)), f"{path}: names: {each}") for each in numbers)


def _numbered(names: Any) -> dict[Any, Any]:
    """Names by their numbers; none for what is neither a list nor a mapping."""
    if isinstance(names, Mapping):
        return dict(names)
    return dict(enumerate(names)) if isinstance(names, list) else {}


def _name(name: Any, text: Any, where: str) -> str:
    """A name as it is written. YAML takes `no` for False, `010` for 8 and `~` for None, unless it is quoted."""
    text = str(name) if text is None else str(text)
    if not text.strip():
        raise ValueError(f"{where} is {text!r}; allowed are names that are not empty")
    if type(name) not in (str, int) or str(name) != text:
        raise ValueError(f"{where} is {text}, which YAML takes for {name!r}; allowed are texts: quote it, '{text}'")
    return str(name)


def read_classes(path: Path) -> tuple[str, ...]:
    """The names of a `classes.txt`, one a line. Raises ValueError for an empty line before the last name."""
    names = read_lines(path)
    if "" in names:
        place = names.index("") + 1
        raise ValueError(f"{path}: line {place} is empty; allowed is a name, for line {place} names class {place - 1}")
    return tuple(names)


def listed(place: Path, root: Path) -> list[Labelled]:
    """The images of a folder, or of a text file that lists them; names are relative to the root."""
    if place.is_dir():
        texts = _beside(place)
        return [each._replace(name=os.path.relpath(each.image, root)) for each in in_folder(place, texts)]
    if not place.is_file():
        raise FileNotFoundError(f"there is no file or folder {place}")
    images = [place.parent / line for line in read_lines(place) if line]
    return [Labelled(os.path.relpath(image, root), image, _beside(image).with_suffix(".txt")) for image in images]


def _beside(path: Path) -> Path:
    """The path with its last folder `images` called `labels`."""
    parts = list(path.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def in_folder(images: Path, labels: Path) -> list[Labelled]:
    """The images below a folder, sorted by path."""
    for place in (images, labels):
        if not place.is_dir():
            raise FileNotFoundError(f"there is no folder {place}")
    found = list(files_below(images, (*SUFFIXES, *OTHER_IMAGES)))
    names = [os.path.relpath(path, images) for path in found if path.name.lower().endswith(SUFFIXES)]
    if len(names) < len(found):
        read, others = ", ".join(SUFFIXES), len(found) - len(names)
        logger.warning("%s: %d images were passed over; read are those that end in %s", images, others, read)
    return [Labelled(name, images / name, (labels / name).with_suffix(".txt")) for name in sorted(names)]


def files_below(place: Path, suffixes: tuple[str, ...], above: tuple[tuple[int, int], ...] = ()) -> Iterator[Path]:
    """The files with one of these endings, hidden ones passed over; links to folders are followed.

    `above` are the device and inode of the folders that it came through: a link back to one of them is passed over.
    """
    status = place.stat()
    me = (status.st_dev, status.st_ino)
    if me in above:
        return
    with os.scandir(place) as objects:
        names = sorted(entry.name for entry in objects if not entry.name.startswith("."))
    for path in (place / name for name in names):
        if path.is_dir():
            yield from files_below(path, suffixes, (*above, me))
        elif path.name.lower().endswith(suffixes):
            yield path


def read_listing(found: Sequence[Labelled], root: Path, classes: Sequence[str], report: Report = refuse) -> Listing:
    """What the texts say."""
    images, texts = [], []
    for place, each in enumerate(map(_on_disk, found), start=1):
        texts.append(each.text.read_bytes() if each.text.is_file() else b"")
        objects = _objects(texts[-1], str(each.text), classes, report)
        images.append(AnnotatedImage(each.name, each.image, str(each.text), place, None, objects))
    ids = tuple(range(1, len(classes) + 1))
    return Listing("YOLO text", root, tuple(classes), ids, images, digest(*texts), relative=True)


def _on_disk(each: Labelled) -> Labelled:
    image, text = (spelled(path.parent, path.name) for path in (each.image, each.text))
    return each._replace(image=image, text=text)


def _objects(text: bytes, file: str, classes: Sequence[str], report: Report) -> list[AnnotatedObject]:
    lines = enumerate(text.decode("utf-8-sig", "replace").splitlines(), start=1)
    found = (_object(line.split(), f"line {place}", file, classes, report) for place, line in lines if line.strip())
    return [each for each in found if each is not None]


def _object(words: list[str], where: str, file: str, classes: Sequence[str], report: Report) -> AnnotatedObject | None:
    def malformed(allowed: str) -> None:
        report(Finding(FaultKind.MALFORMED, file, where, f"is {' '.join(words)!r}; allowed are {allowed}"))

    values = [each for each in map(number_in, words) if each is not None]
    polygon = len(words) >= 7 and len(words) % 2 == 1
    if not (polygon or len(words) == 5) or len(values) != len(words) or values[0] != int(values[0]):
        return malformed(f"a whole number and four finite ones, {FORMS}")
    label, sides = int(values[0]), values[1:]
    if not all(-BESIDE <= value <= 1 + BESIDE for value in sides) or (not polygon and min(sides[2:]) < 0):
        return malformed(f"{'x y' if polygon else 'cx cy width height'} in fractions of the image's sides, 0 to 1")
    if not 0 <= label < len(classes):
        value = f"class is {label}; allowed are 0 to {len(classes) - 1} ({', '.join(classes[:8])})"
        report(Finding(FaultKind.UNKNOWN_CATEGORY, file, where, value))
        return None
    return AnnotatedObject(where, label, _around(sides) if polygon else _box(*sides))


def _box(x: float, y: float, width: float, height: float) -> Box:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _around(points: list[float]) -> Box:
    """The box around `x y x y x y ...`."""
    xs, ys = points[::2], points[1::2]
    return min(xs), min(ys), max(xs), max(ys)
