"""What annotation files say of images and their objects: the form that every format is read into.

A parser serves a source and the check alike: it reports what it can't use, and leaves it out. A source's `report` is
`refuse`, which raises.
"""

import enum
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from jaxvision.errors import amount, cut
from jaxvision.formats.files import beside
from jaxvision.formats.image_file import SUFFIXES, Size

Box = tuple[float, float, float, float]
LONGEST = 1_000
"""Characters of the text of a finding; of a longer one, the middle is left out."""
FAR = 1e30
"""Beyond float32, so as good as infinite."""


class FaultKind(enum.StrEnum):
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
    NO_LABELS = "most images without annotations"
    NO_OBJECTS = "no object at all"
    CORNERS = "boxes that look like corners"
    FRACTIONS = "boxes that look like fractions"
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
    NO_MASK = "object without a mask"
    EMPTY_MASK = "mask without a pixel"
    IN_FRACTIONS = "object that looks like fractions"
    BEYOND_BOX = "mask outside its box"
    MASK_AREA = "area that is not the mask's"
    NO_MAP = "missing map"
    NO_IMAGE = "map without an image"
    MAP_FILE = "map that is no image of numbers"
    MAP_SIZE = "map of another size"
    MAP_LABEL = "label outside the classes"
    BLACK_AND_WHITE = "map in black and white"
    ALL_VOID = "map without a class"
    NO_SEGMENT = "segment without an annotation"
    NO_PIXEL = "segment without a pixel"


class Finding(NamedTuple):
    """One thing that is wrong."""

    kind: FaultKind
    file: str
    where: str
    """Which annotation, image or line of the file."""
    value: str
    """What is there, and what is allowed."""

    def __str__(self) -> str:
        text = ": ".join(part for part in (self.file, self.where, self.value) if part)
        return cut(" ".join(text.splitlines()), LONGEST)


Report = Callable[[Finding], None]
"""What is done about a finding."""


def refuse(finding: Finding) -> NoReturn:
    """The strictest `Report`: raises a ValueError with the finding."""
    raise ValueError(str(finding))


class AnnotatedObject(NamedTuple):
    """An object of an image, as the annotation file has it."""

    where: str
    label: int
    box: Box
    """x0 y0 x1 y1 in pixels, or in fractions of the image's sides; anywhere, but x0 <= x1 and y0 <= y1."""
    ignore: bool = False
    area: float | None = None
    id: int | None = None
    raw: Mapping[str, Any] = {}
    """All fields of the file."""


class Meaning(NamedTuple):
    """What the values of a map's pixels mean."""

    classes: tuple[str, ...]
    labels: Mapping[int, int | None]
    """Value to class, counted from 0; None for one that stands for none."""


def numbered(classes: Sequence[str], void: int | None = 255) -> Meaning:
    """Values that are the classes, counted from 0, and the one that stands for none, if there is one.

    Raises:
      ValueError: for a void that is the value of a class.
    """
    if void is not None and not len(classes) <= void < 1 << 16:
        allowed = f"allowed are None and {len(classes)} to 65535, for 0 to {len(classes) - 1} are classes"
        raise ValueError(f"void is {void}; {allowed}")
    labels: dict[int, int | None] = {label: label for label in range(len(classes))}
    return Meaning(tuple(classes), labels if void is None else {**labels, void: None})


def stating(classes: Sequence[str], values: Mapping[int, int | None]) -> Meaning:
    """Values of pixels with the class of each, or None: `{0: 0, 255: 1}` of masks that are black and white.

    Raises:
      ValueError: for a value that no pixel has, and a class that there is not.
    """
    for value, label in values.items():
        if not 0 <= value < 1 << 16 or not (label is None or 0 <= label < len(classes)):
            allowed = f"allowed are values from 0 to 65535, and of each None or a class from 0 to {len(classes) - 1}"
            raise ValueError(f"values has {value}: {label}; {allowed}")
    return Meaning(tuple(classes), dict(values))


class AnnotatedImage(NamedTuple):
    """An image with its objects, as the annotation files have them."""

    name: str
    """Its path below the folder of the images."""
    file: Path
    annotation_file: str
    """The file that it is listed in."""
    id: int
    size: Size | None
    """`(height, width)`, if the file says it."""
    objects: list[AnnotatedObject]
    raw: Mapping[str, Any] = {}
    map: Path | None = None
    """File of a number for each pixel: its class, or in panoptic datasets its segment."""
    instances: Path | None = None
    """File of the object that each pixel belongs to."""


class Listing(NamedTuple):
    """A dataset of objects: all that its annotation files say."""

    format: str
    folder: Path
    """Folder of the images."""
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    images: list[AnnotatedImage]
    fingerprint: str
    """Fingerprint of the annotation files."""
    relative: bool = False
    """Whether boxes are in fractions of the image's sides."""
    raw: Mapping[str, Any] = {}
    """The content of the file, where there is only one."""
    unlabelled: tuple[str, ...] = ()
    """Images in the folder that no annotation file is of."""
    left_out: tuple[str, ...] = ()
    """What was left out of its folders, a line each."""
    meaning: Meaning | None = None
    """What the values of the maps mean; None where there are none, and where they are ids of segments."""


def unlisted(folder: Path, images: Sequence[AnnotatedImage], why: str) -> tuple[str, ...]:
    """What to tell of the other images in the folders of these; nothing where there are none."""
    others = beside((image.file for image in images), SUFFIXES)
    if not others:
        return ()
    count, total = len(others), len(others) + len(images)
    return (f"{folder}: left out {count:,} of {amount(total, 'image')}, which are {why}, first {others[0].name}",)


def numbers(values: object, count: int) -> list[float] | None:
    """The `count` finite numbers; None if `values` are anything else."""
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
