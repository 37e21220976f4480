"""Groups of images from a CSV file: the first column has the names of the images, every other one is an attribute.

file,colour,age
a.jpg,red,old
b.jpg,blue,young
"""

import csv
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvision.errors import DataError, amount, damage, nearest, shown
from jaxvision.types import About, Groups


class GroupFile(NamedTuple):
    """A file of groups, read."""

    path: Path
    attributes: tuple[str, ...]
    values: dict[str, tuple[str, ...]]
    """Values of the attributes of an image, by its name; an empty one says that it is in no group."""


def read(path: str | PathLike) -> GroupFile:
    """The groups of a CSV file, encoded as UTF-8.

    Raises:
      DataError: for a file that can't be read, without an attribute or an image, with a column or an image twice, or a line
        with too few or too many cells; with its line.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file, damage(path, csv.Error):
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, line) for line in reader if line]
    except OSError as error:
        raise DataError(f"the groups {path} can't be read: {error.strerror or error}") from error
    if len(lines) < 2 or len(lines[0][1]) < 2:
        raise DataError(f"{path} has no groups: needed are a first line such as 'file,colour' and a line an image")
    (_, header), *rows = [(number, [cell.strip() for cell in line]) for number, line in lines]
    doubled = sorted({name for name in header if header.count(name) > 1 or not name})
    if doubled:
        raise DataError(f"{path}: line 1: column {doubled[0]!r} is there twice, or has no name")
    return GroupFile(path, tuple(header[1:]), _values(path, rows, len(header)))


def _values(path: Path, rows: Iterable[tuple[int, list[str]]], columns: int) -> dict[str, tuple[str, ...]]:
    values: dict[str, tuple[str, ...]] = {}
    first: dict[str, int] = {}
    for number, (name, *cells) in rows:
        if len(cells) + 1 != columns:
            raise DataError(f"{path}: line {number} has {amount(len(cells) + 1, 'cell')}, the first line {columns}")
        if name in values:
            raise DataError(f"{path}: {shown(name)} is in line {first[name]} and again in line {number}")
        values[name], first[name] = tuple(cells), number
    return values


def check_known(file: GroupFile, abouts: Sequence[About]) -> None:
    """Raises DataError for a name in the file that none of the data has, with the nearest that is."""
    known = {about.name(index) for about in abouts for index in range(about.examples)}
    unknown = [name for name in file.values if name not in known]
    if unknown:
        raise DataError(
            f"{file.path}: {amount(len(unknown), 'name')} of no image of the data, the first is {shown(unknown[0])}"
            + nearest(unknown[0], sorted(known), shown=3)
        )


def groups(file: GroupFile, attribute: str, about: About) -> Groups:
    """The groups of the examples of a stream by an attribute, in order of its values.

    Raises:
      DataError: for an attribute that the file does not have, or an image that it lacks.
    """
    if attribute not in file.attributes:
        raise DataError(f"{file.path} has no column {attribute!r}{nearest(attribute, file.attributes)}")
    column = file.attributes.index(attribute)
    names = [about.name(index) for index in range(about.examples)]
    missing = [name for name in names if name not in file.values]
    if missing:
        raise DataError(
            f"{file.path} lacks {amount(len(missing), 'image')} of {len(names):,}, the first is {shown(missing[0])}"
            + nearest(missing[0], list(file.values), shown=3)
        )
    values = [file.values[name][column] for name in names]
    known = tuple(sorted({value for value in values if value}))
    if not known:
        raise DataError(f"{file.path} has no value in column {attribute!r} for the images of the data")
    places = {value: place for place, value in enumerate(known)}
    numbers = np.array([places.get(value, -1) for value in values], np.int32)
    return Groups(attribute, known, lambda rows: numbers[rows["index"]])


def from_csv(path: str | PathLike, attribute: str, about: About) -> Groups:
    """The groups of a stream's examples by a column of a CSV file, which has each of them once and no others.

    `groups.cross` crosses several. Raises DataError as `read`, `check_known` and `groups` do.
    """
    file = read(path)
    check_known(file, [about])
    return groups(file, attribute, about)
