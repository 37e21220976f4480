"""Image files in one folder per class."""

import os
from collections import Counter
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from jaxvision.data.source import Example, Source, of_file
from jaxvision.errors import nearest
from jaxvision.formats import files
from jaxvision.formats.fingerprint import digest
from jaxvision.formats.image_file import SUFFIXES


def classes(folder: str | PathLike) -> tuple[str, ...]:
    """The classes of a folder: the names of its folders, sorted; hidden ones, and workdirs of runs, don't count.

    Raises FileNotFoundError if the folder is missing and ValueError if it has no folder inside.
    """
    return _class_folders(Path(folder))


def source(folder: str | PathLike, classes: Sequence[str] | None = None) -> Source:
    """A source of `<folder>/<class>/**/<image>`, sorted by path, labelled by the class's place among the classes.

    Images are known by suffix (`formats.image_file.SUFFIXES`, upper or lower case); hidden files are passed over, others
    counted in the source's `notes`. An example's name is its path inside the folder; the fingerprint covers names and file
    sizes.

    Args:
      folder: of the classes' folders.
      classes: their names; None takes those of the folder. Give a test folder those of the training data: it may lack some.

    Raises:
      FileNotFoundError: if there is no folder.
      ValueError: for a folder of none of the classes, or without an image; unless `classes` are given, for a class without.
    """
    root = Path(folder)
    names = _class_folders(root) if classes is None else _checked(root, classes)
    paths: list[str] = []
    sizes: list[int] = []
    counts: list[int] = []
    by_suffix = Counter(f"{files.kind(each)} in no class" for each in files.visible(root) if not _is_class(each))
    for name in names:
        found, others = _images(root / name)
        if not found and classes is None:
            raise ValueError(f"{root / name} has no image ({', '.join(SUFFIXES)}), and {others.total()} other files")
        by_suffix += others
        paths += [os.path.relpath(path, root) for path, _ in found]
        sizes += [size for _, size in found]
        counts.append(len(found))
    if not paths:
        raise ValueError(f"{root} has no image ({', '.join(SUFFIXES)}), and {by_suffix.total()} other files")
    labels = np.repeat(np.arange(len(names), dtype=np.int64), counts)

    def read(indices: np.ndarray) -> list[Example]:
        return [of_file(root / paths[i], int(labels[i])) for i in indices]

    lacking = [name for name, count in zip(names, counts, strict=True) if not count]
    told = [files.left_out(len(paths), by_suffix), f"no image of {', '.join(lacking[:8])}" * bool(lacking)]
    return Source(
        length=len(paths),
        read=read,
        labels=lambda: labels,
        classes=names,
        name=lambda index: paths[index],
        fingerprint=digest(*paths, *map(str, sizes)),
        notes=tuple(f"{root}: {text}" for text in told if text),
        root=str(root),
    )


def _class_folders(root: Path) -> tuple[str, ...]:
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; expected one that holds a folder for each class")
    names = tuple(each.name for each in files.visible(root) if _is_class(each))
    if not names:
        raise ValueError(f"{root} has no class: expected a folder for each, {root}/<class>/<image>.jpg")
    return names


def _is_class(entry: os.DirEntry[str]) -> bool:
    return files.is_folder(entry) and not files.is_workdir(entry)


def _checked(root: Path, classes: Sequence[str]) -> tuple[str, ...]:
    """The classes. Raises ValueError if one of the folders is of none of them."""
    known = set(classes)
    for name in _class_folders(root):
        if name not in known:
            raise ValueError(f"{root / name} is the folder of none of the classes{nearest(name, classes)}")
    return tuple(classes)


def _images(folder: Path) -> tuple[list[tuple[str, int]], Counter[str]]:
    """Image files below a folder, if it is there, with their sizes, sorted by path; the number of others of each kind."""
    if not folder.exists():
        return [], Counter()
    found = files.sorted_out(folder, SUFFIXES)
    return sorted((each.path, each.stat().st_size) for each in found.used), files.counted(found.others)
