"""Text files as Darknet and Ultralytics have them, one an image: `class cx cy width height` a line, each 0 to 1 of its sides.

A line may also be `class x y x y x y ...`, a polygon of three points or more, as those of segmentation and of rotated boxes:
it is read as the upright box around its points, as Ultralytics' detectors do. Every line counts by itself: one of four
numbers is a box beside polygons too.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from jaxvision.errors import DataError, amount, cut, shown
from jaxvision.formats import files
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

YAMLS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
BESIDE = 0.01
"""How far from 0 to 1 a centre, a side or a point may be: files are rounded."""
BELONGING = ("classes.txt", *YAMLS)
"""Files beside images and texts that say which classes there are."""
MAX_BYTES = 1 << 23
"""Bytes of the text of an image; a larger one is refused unread."""
MAX_YAML = 1 << 21
"""Bytes of a `data.yaml`; a larger one is refused unread."""
FORMS = "class cx cy width height, or six or more, an even number of them, class x y x y x y ..."


class Labelled(NamedTuple):
    """An image, and where its text is or would be."""

    name: str
    image: Path
    text: Path


class Images(NamedTuple):
    """Images with their texts."""

    labelled: list[Labelled]
    left_out: tuple[str, ...] = ()
    """What was left out of their folders, a line each."""


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
    root = path.parent / _path_in(content, "path", ".", path)[0]
    splits = {
        name: [_place(root, each) for each in _path_in(content, name, "", path)]
        for name in ("train", "val", "test")
        if content.get(name)
    }
    names = _names(content["names"], written.get("names"), path)
    if content.get("nc", len(names)) != len(names):
        raise ValueError(f"{path}: nc is {shown(content['nc'])}, and names are {len(names)}; allowed is their number")
    return Description(root, names, splits)


def _path_in(content: Mapping[str, Any], name: str, default: str, path: Path) -> list[str]:
    """The paths that a field says, one or a list of them."""
    value = content.get(name) or default
    found = value if isinstance(value, list) else [value]
    for each in found:
        if type(each) not in (str, int):
            raise ValueError(f"{path}: {name} is {shown(value)}; allowed are a path, or a list of paths")
    return [str(each) for each in found]


def _parsed(path: Path) -> tuple[Any, Any]:
    """The content of a YAML file, and the same with every value as the text that is written there."""
    import yaml

    text = read_text(path, MAX_YAML)
    try:
        return yaml.safe_load(text), yaml.load(text, yaml.BaseLoader)
    except RecursionError:
        raise ValueError(f"{path} is no YAML of a dataset: it nests too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # a ValueError for the 31st of February
        raise ValueError(f"{path} is no YAML: {cut(' '.join(str(error).split()), 300)}") from None


def _place(root: Path, text: str) -> Path:
    """Where a split is. Of a path that is not there, a first `../` is dropped: Roboflow writes it beside `train/`."""
    place, inside = root / text, root / text.removeprefix("../")
    return inside if inside.exists() and not place.exists() else place


def _names(names: Any, written: Any, path: Path) -> tuple[str, ...]:
    """The names of the classes in the order of their numbers."""
    by_number, texts = _numbered(names), {str(number): text for number, text in _numbered(written).items()}
    numbers = range(len(by_number))
    if not by_number or any(type(each) is not int for each in by_number) or sorted(by_number) != list(numbers):
        raise ValueError(
            f"{path}: names is {shown(names)}; allowed are a list, or numbers from 0 without a gap to names"
        )
    return tuple(_name(by_number[each], texts.get(str(each)), f"{path}: names: {each}") for each in numbers)


def _numbered(names: Any) -> dict[Any, Any]:
    """Names by their numbers; none for what is neither a list nor a mapping."""
    if isinstance(names, Mapping):
        return dict(names)
    return dict(enumerate(names)) if isinstance(names, list) else {}


def _name(name: Any, text: Any, where: str) -> str:
    """A name as it is written. YAML takes `no` for False, `010` for 8 and `~` for None, unless it is quoted."""
    if isinstance(name, list | dict):
        raise ValueError(f"{where} is {shown(name)}; allowed are texts")
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


def listed(places: Iterable[Path], root: Path) -> Images:
    """The images of folders, or of text files that list them; names are relative to the root.

    Raises DataError for a list of images that are neither below the root nor below its own folder.

    The text of an image is where the last folder `images` of its path is called `labels`, as Ultralytics has it.
    """
    found = [_in_place(place, root) for place in places]
    labelled = [each._replace(name=os.path.relpath(each.image, root)) for images in found for each in images.labelled]
    return Images(labelled, tuple(text for images in found for text in images.left_out))


def each_once(images: Images) -> Images:
    """The images, those that are listed several times once."""
    return images._replace(labelled=list({each.image: each for each in images.labelled}.values()))


def _in_place(place: Path, root: Path) -> Images:
    if place.is_dir():
        _check_folders(_beside(place))
        return _below(place, text_of)
    if not place.is_file():
        raise FileNotFoundError(f"there is no file or folder {place}")
    images = [place.parent / line for line in read_lines(place) if line]
    for image in images:
        if not files.is_inside(image, place.parent) and not files.is_inside(image, root):
            where = f"{place}: {shown(str(image))} is outside of {root}"
            raise DataError(f"{where}; in the data.yaml, name by `path:` a folder that holds it")
    return Images([Labelled(str(image), image, text_of(image)) for image in images])


def _check_folders(*folders: Path) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")


def text_of(image: Path) -> Path:
    """Where the text of an image is: its path with its last folder `images` called `labels`, the suffix `.txt`."""
    return _beside(image).with_suffix(".txt")


def _beside(path: Path) -> Path:
    """The path with its last folder `images` called `labels`."""
    parts = list(path.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def in_folder(images: Path, labels: Path) -> Images:
    """The images below a folder, sorted by path; their texts lie below another in the same way."""
    _check_folders(images, labels)
    return _below(images, lambda image: (labels / image.relative_to(images)).with_suffix(".txt"))


def _below(images: Path, text_of: Callable[[Path], Path]) -> Images:
    found = files.sorted_out(images, SUFFIXES)
    names = sorted(os.path.relpath(each.path, images) for each in found.used)
    labelled = [Labelled(name, images / name, text_of(images / name)) for name in names]
    spare = [text for text in files.beside((each.text for each in labelled), (".txt",)) if text.name not in BELONGING]
    known = {*(each.text for each in labelled), *spare}
    by_suffix = files.counted(
        [each for each in found.others if Path(each.path) not in known and each.name not in BELONGING]
    )
    left_out = files.left_out(len(names), by_suffix)
    told = [f"{images}: {left_out}"] if left_out else []
    told += [f"{images}: left out {amount(len(spare), 'text')} without an image, first {spare[0]}"] if spare else []
    return Images(labelled, tuple(told))


def files_below(place: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files with one of these endings, hidden ones passed over; links to folders are followed."""
    return [Path(entry.path) for entry in files.sorted_out(place, suffixes).used]


def read_listing(found: Images, root: Path, classes: Sequence[str], report: Report = refuse) -> Listing:
    """What the texts say; an image without one has no object."""
    images, texts, bare = [], [], []
    for place, each in enumerate(map(_on_disk, found.labelled), start=1):
        bare += [] if os.path.lexists(each.text) else [each.name]
        texts.append(_content(each.text, report) if os.path.lexists(each.text) else b"")
        objects = _objects(texts[-1], str(each.text), classes, report)
        images.append(AnnotatedImage(each.name, each.image, str(each.text), place, None, objects))
    ids = tuple(range(1, len(classes) + 1))
    return Listing(
        "YOLO text",
        root,
        tuple(classes),
        ids,
        images,
        digest(*texts),
        relative=True,
        unlabelled=tuple(bare),
        left_out=found.left_out,
    )


def _content(text: Path, report: Report) -> bytes:
    """What is in a text; nothing, which is reported, where it can't be read."""
    try:
        return files.content(text, MAX_BYTES)
    except FileNotFoundError:
        report(Finding(FaultKind.MALFORMED, str(text), "", "is a link to a file that is not there"))
    except DataError as error:
        report(Finding(FaultKind.MALFORMED, str(text), "", str(error).removeprefix(f"{text} ")))
    return b""


def _on_disk(each: Labelled) -> Labelled:
    image, text = (spelled(path.parent, path.name) for path in (each.image, each.text))
    return each._replace(image=image, text=text)


def _objects(text: bytes, file: str, classes: Sequence[str], report: Report) -> list[AnnotatedObject]:
    lines = enumerate(text.decode("utf-8-sig", "replace").splitlines(), start=1)
    found = (_object(line.split(), f"line {place}", file, classes, report) for place, line in lines if line.strip())
    return [each for each in found if each is not None]


class Line(NamedTuple):
    """What a line says."""

    label: int
    sides: list[float]
    """Centre, width and height of a box, or the points of a polygon, in fractions of the image's sides."""

    @property
    def is_polygon(self) -> bool:
        """Whether it is a polygon, no box."""
        return len(self.sides) > 4


def parsed(words: list[str], where: str, file: str, classes: Sequence[str], report: Report) -> Line | None:
    """What the words of a line say; None, which is reported, where they can't be used."""

    def malformed(allowed: str) -> None:
        report(Finding(FaultKind.MALFORMED, file, where, f"is {shown(' '.join(words[:50]))}; allowed are {allowed}"))

    values = [each for each in map(number_in, words) if each is not None]
    polygon = len(words) >= 7 and len(words) % 2 == 1
    if not (polygon or len(words) == 5) or len(values) != len(words) or values[0] != int(values[0]):
        return malformed(f"a whole number and four finite ones, {FORMS}")
    label, sides = int(values[0]), values[1:]
    if not all(-BESIDE <= value <= 1 + BESIDE for value in sides) or (not polygon and min(sides[2:]) < 0):
        return malformed(f"{'x y' if polygon else 'cx cy width height'} in fractions of the image's sides, 0 to 1")
    if not 0 <= label < len(classes):
        value = f"class is {shown(label, 40)}; allowed are 0 to {len(classes) - 1} ({', '.join(classes[:8])})"
        report(Finding(FaultKind.UNKNOWN_CATEGORY, file, where, value))
        return None
    return Line(label, sides)


def _object(words: list[str], where: str, file: str, classes: Sequence[str], report: Report) -> AnnotatedObject | None:
    line = parsed(words, where, file, classes, report)
    if line is None:
        return None
    return AnnotatedObject(where, line.label, _around(line.sides) if line.is_polygon else _box(*line.sides))


def _box(x: float, y: float, width: float, height: float) -> Box:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _around(points: list[float]) -> Box:
    """The box around `x y x y x y ...`."""
    xs, ys = points[::2], points[1::2]
    return min(xs), min(ys), max(xs), max(ys)
