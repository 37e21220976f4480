"""Files below a folder: which of them are used, how many are left out, by suffix, and what is in a file."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO, NamedTuple

from jaxvision.errors import DataError, amount
from jaxvision.machine.limits import memory

SHOWN = 8
"""Kinds of files left out that are named."""


OF_A_RUN = ("provenance.json", os.path.join("preflight", "report.txt"))
"""Files that the workdir of a run has, one or the other."""


class Found(NamedTuple):
    """Files below a folder, sorted out."""

    used: list[os.DirEntry[str]]
    others: list[os.DirEntry[str]]


def sorted_out(folder: str | PathLike, suffixes: tuple[str, ...]) -> Found:
    """The files that end in one of these suffixes, in upper or lower case, and all others, each in the order of `walk`."""
    found = Found([], [])
    for entry in walk(folder):
        (found.used if has_suffix(entry, suffixes) else found.others).append(entry)
    return found


def walk(folder: str | PathLike, above: tuple[tuple[int, int], ...] = ()) -> Iterator[os.DirEntry[str]]:
    """All below a folder that are no folders, sorted by name, folders among them; hidden ones are passed over.

    The workdir of a run is as a file: its pictures are no data. Links to folders are followed. `above` are the device and
    inode of the folders that it came through: a link back to one of them is passed over.
    """
    status = os.stat(folder)
    me = (status.st_dev, status.st_ino)
    if me in above:
        return
    for entry in visible(folder):
        if is_folder(entry) and not is_workdir(entry):
            yield from walk(entry.path, (*above, me))
        else:
            yield entry


def visible(folder: str | PathLike) -> list[os.DirEntry[str]]:
    """What lies in a folder, sorted by name; hidden files and folders don't count."""
    with os.scandir(os.fspath(folder)) as entries:
        return sorted((each for each in entries if not each.name.startswith(".")), key=lambda each: each.name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def is_workdir(entry: os.DirEntry[str]) -> bool:
    """Whether it is the folder of a run, or of a preflight."""
    return any(os.path.isfile(os.path.join(entry.path, file)) for file in OF_A_RUN)


def is_regular(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file with an end, or a link to one: no pipe, no device, no link to nothing."""
    return os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file()


def has_suffix(entry: os.DirEntry[str], suffixes: tuple[str, ...]) -> bool:
    """Whether it is a regular file whose name ends in one of these suffixes."""
    return entry.name.lower().endswith(suffixes) and is_regular(entry)


def kind(entry: os.DirEntry[str]) -> str:
    """What is told of a file that is left out: its suffix, in lower case."""
    if not is_regular(entry):
        return "workdir of a run" if is_workdir(entry) else "no regular file"
    return os.path.splitext(entry.name)[1].lower() or "without a suffix"


def left_out(used: int, by_suffix: Mapping[str, int]) -> str:
    """`left out 40 of 50 files: 25 .heic, 15 .tga`, the most frequent first; empty where none is."""
    count = sum(by_suffix.values())
    if not count:
        return ""
    ordered = sorted(by_suffix.items(), key=lambda each: (-each[1], each[0]))
    named = [f"{n:,} {kind}" for kind, n in ordered[:SHOWN]]
    rest = sum(n for _, n in ordered[SHOWN:])
    named += [amount(rest, "other")] if rest else []
    return f"left out {count:,} of {amount(used + count, 'file')}: {', '.join(named)}"


def beside(used: Iterable[Path], suffixes: tuple[str, ...]) -> list[Path]:
    """Other files that end in one of these suffixes, in the folders of these files."""
    known = set(used)
    folders = dict.fromkeys(each.parent for each in known)
    entries = (entry for folder in sorted(folders) if folder.is_dir() for entry in visible(folder))
    found = (Path(entry.path) for entry in entries if has_suffix(entry, suffixes))
    return [path for path in found if path not in known]


def counted(entries: list[os.DirEntry[str]]) -> Counter[str]:
    """How many files there are of each kind."""
    return Counter(map(kind, entries))


def content(path: str | PathLike, most: int | None = None) -> bytes:
    """All bytes of a regular file.

    Args:
      path: of the file.
      most: bytes that it may have; None for a quarter of the memory.

    Raises:
      DataError: for a pipe, a device or a folder, and for a larger file; nothing of it is read then.
      OSError: if it is not there, or can't be read.
    """
    most = most_bytes() if most is None else most
    with regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise DataError(f"{os.fspath(path)} has {size:,} bytes; allowed are {most:,}")
        found = file.read(size + 1)  # to ask for more than there is takes fresh memory each time
        return found if len(found) <= size else found + file.read(most - len(found))  # it has grown meanwhile


def most_bytes() -> int:
    """Bytes of a file that is read whole, where nothing else is said: a quarter of the memory."""
    return (memory() or 1 << 40) // 4


@contextmanager
def regular(path: str | PathLike) -> Iterator[BinaryIO]:
    """The file, open to be read. Raises as `content` does; no pipe is waited for."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # before it is opened: to open a device may do something
        raise DataError(f"{os.fspath(path)} is no regular file")
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(number, "rb") as file:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise DataError(f"{os.fspath(path)} is no regular file")
        yield file


def is_inside(path: str | PathLike, folder: str | PathLike) -> bool:
    """Whether the path, as it is written, leads to a place below the folder; links are not looked at."""
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
