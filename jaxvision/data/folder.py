"""Image files in one folder per class."""

import logging
import os
from os import PathLike
from pathlib import Path

import numpy as np

from jaxvision.data.source import Example, Source
from jaxvision.formats.fingerprint import digest
from jaxvision.formats.image_file import SUFFIXES

logger = logging.getLogger(__name__)


def classes(folder: str | PathLike) -> tuple[str, ...]:
    """The classes of a folder: the names of its folders, sorted; hidden ones don't count.

    Raises FileNotFoundError if the folder is missing and ValueError if it has no folder inside.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; expected one that holds a folder for each class")
    names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ValueError(f"{root} has no class: expected a folder for each, {root}/<class>/<image>.jpg")
    return tuple(names)


def source(folder: str | PathLike) -> Source:
    """A source of `<folder>/<class>/**/<image>`, sorted by path, labelled by the class's place among the sorted names.

    Images are known by suffix (jpg, jpeg, png, webp, bmp, gif, upper or lower case); hidden files are passed over, others
    counted in the log. An example's name is its path inside the folder; the fingerprint covers names and file sizes.
    Raises FileNotFoundError or ValueError for a folder without classes, and ValueError for a class without images.
    """
    root, names = Path(folder), classes(folder)
    paths: list[str] = []
    sizes: list[int] = []
    counts: list[int] = []
    for name in names:
        found, others = _images(root / name)
        if not found:
            raise ValueError(f"{root / name} has no image ({', '.join(SUFFIXES)}), and {others} other files")
        if others:
            logger.info("%s: %d files that are no images were passed over", root / name, others)
        paths += [os.path.relpath(path, root) for path, _ in found]
        sizes += [size for _, size in found]
        counts.append(len(found))
    labels = np.repeat(np.arange(len(names), dtype=np.int64), counts)

    def read(indices: np.ndarray) -> list[Example]:
        return [Example((root / paths[i]).read_bytes(), int(labels[i])) for i in indices]

    return Source(
        length=len(paths),
        read=read,
        labels=lambda: labels,
        classes=names,
        name=lambda index: paths[index],
        fingerprint=digest(*paths, *map(str, sizes)),
    )


def _images(folder: Path) -> tuple[list[tuple[str, int]], int]:
    """Image files below a folder with their sizes, sorted by path, and how many other files there are."""
    found, others = [], 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                inner, more = _images(Path(entry.path))
                found += inner
                others += more
            elif entry.name.lower().endswith(SUFFIXES):
                found.append((entry.path, entry.stat().st_size))
            else:
                others += 1
    return sorted(found), others
