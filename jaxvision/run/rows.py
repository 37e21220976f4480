"""Rows of the last evaluation of a run, one an example: `rows/<evaluation>.npz`, from which its metrics can be computed anew.

A comparison of two runs on other test images draws from them. Columns are those that the metric observed, condensed where it
does so, and `index`. A column of bytes objects is stored as all their bytes and the length of each: no file of pickles.
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvision.errors import WorkdirError, amount, replacing
from jaxvision.run.damage import set_aside

FOLDER = "rows"
STEP = "__step__"
"""Name of the array that holds the step, beside the columns."""
BYTES, LENGTHS = "__bytes__", "__lengths__"
"""Endings of the names of the two arrays that hold a column of bytes objects."""


class Table(NamedTuple):
    """Rows of one evaluation."""

    step: int
    columns: dict[str, np.ndarray]
    """Each with one entry an example, in the order of `index`, which is one of them."""


def write(workdir: Path, step: int, tables: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Writes the rows of the evaluations of a step, by the name of the evaluation; half precision as float32.

    Raises:
      WorkdirError: if they can't be written.
      TypeError: for a column of objects that are not bytes.
    """
    folder = workdir / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        for name, columns in tables.items():
            stored = {STEP: np.asarray(step)}
            for key, column in columns.items():
                stored |= _stored(key, np.asarray(column))
            path = folder / f"{name}.npz"
            if path.is_dir():
                set_aside(path)
            with replacing(path) as partial, partial.open("wb") as file:
                np.savez(file, allow_pickle=False, **stored)
    except OSError as error:
        raise WorkdirError(f"the rows in {folder} can't be written: {error.strerror or error}") from error


def _stored(name: str, column: np.ndarray) -> dict[str, np.ndarray]:
    """The column in types that NumPy's files have: neither bfloat16 nor bytes objects."""
    if column.dtype != object:
        return {name: column.astype(np.float32) if column.dtype.kind == "V" else column}
    others = {type(each).__name__ for each in column} - {"bytes"}
    if others:
        raise TypeError(
            f"column {name!r} of the rows holds objects of type {', '.join(sorted(others))}; allowed is bytes"
        )
    joined = np.frombuffer(b"".join(column), np.uint8)
    return {name + BYTES: joined, name + LENGTHS: np.array([len(each) for each in column], np.int64)}


def _columns(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of the arrays of a file. Raises ValueError for bytes that are more or fewer than their lengths."""
    columns = {}
    for name, array in stored.items():
        if name.endswith(LENGTHS):
            key = name.removesuffix(LENGTHS)
            columns[key] = _bytes(key, stored[key + BYTES], array)
        elif not name.endswith(BYTES):
            columns[name] = array
    return columns


def _bytes(name: str, joined: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """A column of bytes objects."""
    ends = np.cumsum(lengths)
    if (lengths < 0).any() or (ends[-1] if len(ends) else 0) != len(joined):
        raise ValueError(f"the lengths of column {name!r} don't add up to its {amount(len(joined), 'byte')}")
    column = np.empty(len(lengths), object)
    column[:] = [joined[end - length : end].tobytes() for end, length in zip(ends, lengths, strict=True)]
    return column


def read(workdir: Path, name: str) -> Table | None:
    """The rows of an evaluation; None where the run left none.

    Raises:
      WorkdirError: if the file can't be read, or is damaged.
    """
    path = workdir / FOLDER / f"{name}.npz"
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            columns = _columns({key: file[key] for key in file.files})
        return Table(int(columns.pop(STEP)), columns)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise WorkdirError(f"the rows {path} can't be read: {error}") from error
