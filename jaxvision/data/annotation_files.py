"""What annotation files say of images and their objects: the form that every format is read into.

A parser serves a source and the check alike: what it can't use it tells of, and leaves out. A source has it tell `refuse`,
which raises.
"""

import enum
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from PIL import Image

from jaxvision.data.decode import FORMATS, MAX_PIXELS, ORIENTATION
from jaxvision.data.placement import Size
from jaxvision.data.source import Annotations, Example, Source, annotations, digest, no_labels

Box = tuple[float, float, float, float]
FAR = 1e30
"""Beyond float32, so as good as infinite."""


class Kind(enum.StrEnum):
    """What can be wrong with annotations."""

    MALFORMED = "malformed"
    UNKNOWN_CATEGORY = "unknown category"
    UNKNOWN_IMAGE = "annotation of an unknown image"
    DUPLICATE_CATEGORY = "duplicate category name"
    DUPLICATE_IMAGE = "duplicate image id"
    REPEATED_IMAGE = "image listed twice"
    SAME_FILE = "image file under two ids"
    TWO_FILES = "two image files of one name"
    NO_PLACE = "missing folder or list of images"
    NO_ANNOTATIONS = "missing annotation file"
    SEGMENTATION = "broken segmentation"
    NO_LABELS = "no annotation file at all"
    NO_OBJECTS = "no object at all"
    OUTSIDE = "box outside the image"
    NO_AREA = "zero area"
    DUPLICATE_BOX = "duplicate box"
    NO_ID = "annotation without an id"
    ZERO_ID = "annotation id 0"
    DUPLICATE_ID = "duplicate annotation id"
    MISSING = "missing image"
    UNREADABLE = "unreadable image"
    NO_SIZE = "malformed image size"
    OTHER_SIZE = "image of another size"


class Finding(NamedTuple):
    """One thing that is wrong."""

    kind: Kind
    file: str
    where: str
    """Which annotation, image or line of the file."""
    value: str
    """What is there, and what is allowed."""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.where, self.value) if part)


Tell = Callable[[Finding], None]


def refuse(finding: Finding) -> NoReturn:
    """Raises a ValueError that says it."""
    raise ValueError(str(finding))


class Entry(NamedTuple):
    """An object as a file has it."""

    where: str
    label: int
    box: Box
    """x0 y0 x1 y1 in pixels, or in shares of the image's sides; anywhere, but x0 <= x1 and y0 <= y1."""
    ignore: bool = False
    area: float | None = None
    id: int | None = None
    raw: Mapping[str, Any] = {}
    """All that the file says of it."""


class Picture(NamedTuple):
    """An image as the files have it."""

    name: str
    """Its path below the folder of the images."""
    file: Path
    told_in: str
    """The file that says so."""
    id: int
    size: Size | None
    """`(height, width)`, if the file says it."""
    entries: list[Entry]
    raw: Mapping[str, Any] = {}


class Listing(NamedTuple):
    """All that the annotation files say."""

    form: str
    folder: Path
    """Of the images."""
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    pictures: list[Picture]
    fingerprint: str
    """Of the annotation files."""
    relative: bool = False
    """Whether boxes are in shares of the image's sides."""
    raw: Mapping[str, Any] = {}
    """The content of the file, where there is only one."""
    unlabelled: tuple[str, ...] = ()
    """Images in the folder that no annotation file is of."""


Masks = Callable[[int], np.ndarray]
"""The masks `n h w` of the image of this index."""


def source(what: str, listing: Listing, masks: Masks | None = None) -> Source:
    """The source of a listing that was read without a finding.

    An image whose upright size is not the one that its file of annotations states has a `fault`: the boxes would lie
    elsewhere. What is no image is handed on: to decode it says why.

    Raises:
      FileNotFoundError: if an image is not there.
      ValueError: if there is none.
    """
    if not listing.pictures:
        raise ValueError(f"{what} has no image")
    names, files = [each.name for each in listing.pictures], [each.file for each in listing.pictures]
    told = [_Told(each.size, each.told_in, each.id) for each in listing.pictures]
    sizes = _file_sizes(listing.pictures)
    found = [_annotations(each.entries) for each in listing.pictures]
    relative = listing.relative

    def placed(index: int, image: bytes | Path) -> Annotations:
        return _in_pixels(found[index], upright_size(image)) if relative else found[index]

    def read(indices: np.ndarray) -> list[Example]:
        examples = []
        for index in np.asarray(indices).tolist():
            image = files[index].read_bytes()
            fault, objects = _other_size(told[index], names[index], image), placed(index, image)
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
            [each.size or upright_size(file) or (1, 1) for each, file in zip(told, files, strict=True)]
        ),
    )


class _Told(NamedTuple):
    """What is said of the size of an image, where, and under which id."""

    size: Size | None
    file: str
    id: int


def _other_size(told: _Told, name: str, image: bytes) -> str | None:
    """What to say where the size is known, and is not that of the image."""
    value = None if told.size is None else other_size(name, told.size, upright_size(image), image)
    if value is None:
        return None
    return (
        f"{told.file}: image {told.id}: {value}, so its boxes would lie elsewhere; python -m jaxvision.data.check names"
        " all such images, and --repaired=OUT.json writes a copy without them"
    )


def other_size(name: str, told: Size, size: Size | None, image: bytes) -> str | None:
    """How the size that is told of an image differs from its own, upright; None if it does not, or if it has none."""
    if size is None or told == size:
        return None
    here, there = (f"{width}x{height}" for height, width in (told, size))
    turned = "; turned by its EXIF orientation" if told == size[::-1] and _is_turned(image) else ""
    return f"{name} is {here} here, and {there} in its file (width x height{turned})"


def _file_sizes(pictures: Sequence[Picture]) -> list[int]:
    """Bytes of each image."""
    sizes, missing = [], []
    for picture in pictures:
        try:
            sizes.append(picture.file.stat().st_size)
        except OSError:
            missing.append(picture)
    if missing:
        first = missing[0]
        raise FileNotFoundError(
            f"{first.told_in}: image {first.id}: there is no file {first.file} ({len(missing)} of {len(pictures)} are"
            " missing; python -m jaxvision.data.check names them all)"
        )
    return sizes


def _annotations(entries: Sequence[Entry]) -> Annotations:
    boxes = np.asarray([each.box for each in entries], np.float32).reshape(-1, 4)
    found = annotations(boxes, [each.label for each in entries], [each.ignore for each in entries])
    told = np.asarray([math.nan if each.area is None else each.area for each in entries], np.float32)
    return found._replace(area=np.where(np.isnan(told), found.area, told))


def _in_pixels(relative: Annotations, size: Size | None) -> Annotations:
    """The objects of an image of this size; none where it has none, because it can't be read."""
    if size is None:
        return annotations([], [])
    boxes = relative.boxes.astype(np.float64) * [size[1], size[0], size[1], size[0]]
    return annotations(boxes, relative.labels, relative.ignore)


def upright_size(image: bytes | Path) -> Size | None:
    """`(height, width)` of an image file, turned as its EXIF orientation says, from its header; None if it is no image."""
    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=FORMATS) as opened:
            turned = _quarter_turned(opened)
            width, height = opened.size
    except Exception:  # decoders raise OSError, SyntaxError, struct.error, ... for broken files; decoding says why
        return None
    if width * height > MAX_PIXELS:
        return None
    return (width, height) if turned else (height, width)


def _quarter_turned(image: Image.Image) -> bool:
    """Whether its EXIF orientation exchanges its sides."""
    return "exif" in image.info and image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)


def _is_turned(image: bytes) -> bool:
    """As `_quarter_turned`, of a file that has a size."""
    with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
        return _quarter_turned(opened)


def numbers(values: object, count: int) -> list[float] | None:
    """So many finite numbers; None if it is anything else."""
    if not isinstance(values, Sequence) or len(values) != count:
        return None
    found = [each for each in map(number, values) if each is not None]
    return found if len(found) == count else None


def number(value: object) -> float | None:
    """A finite number; None if it is anything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < FAR else None


def number_in(text: str | None) -> float | None:
    """The finite number that a text spells; None if it spells none."""
    try:
        return number(float(text or ""))
    except ValueError:
        return None


def repeated(names: Iterable[str]) -> list[str]:
    """The names that are there more than once, each one time."""
    return [name for name, count in Counter(names).items() if count > 1]


def nearest(name: object, allowed: Sequence[str]) -> str:
    """What is allowed in place of a name: the most alike first, or as many as fit a line."""
    import difflib

    close = difflib.get_close_matches(str(name), allowed, 1)
    listed = ", ".join(allowed[:8]) + (", ..." if len(allowed) > 8 else "")
    return f"the nearest is {close[0]!r}" if close else f"allowed are {listed}"
