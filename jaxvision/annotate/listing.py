"""Listing of a folder's images: their names in order, and what is left out and why."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxvision.errors import ConfigError, printable
from jaxvision.formats.files import has_suffix, is_folder, is_workdir, kind, visible
from jaxvision.formats.image_file import SUFFIXES


class Worker(NamedTuple):
    """One of several that annotate a folder, each the images whose names have its hash."""

    index: int = 0
    count: int = 1

    def has(self, name: str) -> bool:
        """Whether an image of this name is its."""
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % self.count == self.index


ALONE = Worker()


def worker(text: str) -> Worker:
    """The worker that `INDEX/COUNT` says, such as `0/4`. Raises ConfigError for what is none."""
    index, _, count = text.partition("/")
    if not all(part.isascii() and part.isdecimal() for part in (index, count)) or not int(index) < int(count) <= 10_000:
        raise ConfigError(f"{text!r} is no worker; allowed are 0/N to N-1/N for N workers, 10,000 at most")
    return Worker(int(index), int(count))


class Listing(NamedTuple):
    """Images below a folder."""

    names: tuple[str, ...]
    """Paths below the folder, with forward slashes, sorted folder by folder."""
    left_out: dict[str, int]
    """Number of files that are no images, by suffix or by what they are."""
    problems: dict[str, str]
    """What can't be annotated though it might be an image, and why."""


def listing(folder: Path, worker: Worker = ALONE) -> Listing:
    """The images of a folder that a worker annotates.

    Known by suffix; links to folders are followed, but for those back to a folder above; hidden files and the workdirs of
    runs are passed over.

    Raises:
      ConfigError: if there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}")
    names, left_out, problems = [], Counter(), {}
    for path, problem in _below(os.fspath(folder), ()):
        name = Path(os.path.relpath(path, folder)).as_posix()
        if not _is_utf8(name):
            name, problem = os.fsencode(name).decode("utf-8", "backslashreplace"), "its name is not UTF-8"
        if not worker.has(name):
            continue
        if problem:
            problems[printable(name)] = problem
        elif isinstance(path, os.DirEntry) and has_suffix(path, SUFFIXES):
            names.append(name)
        elif isinstance(path, os.DirEntry):
            left_out[kind(path)] += 1
    return Listing(tuple(names), dict(sorted(left_out.items())), problems)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _below(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[os.DirEntry[str] | str, str]]:
    """All below a folder that are no folders, in order, and folders that can't be gone through, with the reason."""
    try:
        status = os.stat(folder)
        me = (status.st_dev, status.st_ino)
        if me in above:
            yield folder, "a link back to a folder that it is in"
            return
        entries = visible(folder)
    except OSError as error:
        yield folder, error.strerror or str(error)
        return
    for entry in entries:
        if is_folder(entry) and not is_workdir(entry):
            yield from _below(entry.path, (*above, me))
        else:
            yield entry, _broken(entry)


def _broken(entry: os.DirEntry[str]) -> str:
    """Why a link with the name of an image leads nowhere; empty for anything else."""
    if not entry.is_symlink() or not entry.name.lower().endswith(SUFFIXES) or os.path.exists(entry.path):
        return ""
    try:
        os.stat(entry.path)
    except OSError as error:
        return f"a link that leads nowhere: {error.strerror}"
    return ""
