"""Rows of the last evaluation of a run, one an example: `rows/<evaluation>.npz`, from which its metrics can be computed anew.

A comparison of two runs on other test images draws from them. Columns are those that the metric observed, and `index`.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvision.errors import WorkdirError, write_atomically
from jaxvision.run.damage import set_aside

FOLDER = "rows"
STEP = "__step__"
"""Name of the array that holds the step, beside the columns."""


class Table(NamedTuple):
    """Rows of one evaluation."""

    step: int
    columns: dict[str, np.ndarray]
    """Each with one entry an example, in the order of `index`, which is one of them."""


def write(workdir: Path, step: int, tables: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Writes the rows of the evaluations of a step, by the name of the evaluation; half precision as float32.

    Raises:
      WorkdirError: if they can't be written.
    """
    folder = workdir / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        for name, columns in tables.items():
            file = io.BytesIO()
            stored = {key: _stored(np.asarray(column)) for key, column in columns.items()}
            np.savez(file, allow_pickle=False, **{STEP: np.asarray(step), **stored})
            if (folder / f"{name}.npz").is_dir():
                set_aside(folder / f"{name}.npz")
            write_atomically(folder / f"{name}.npz", file.getvalue())
    except OSError as error:
        raise WorkdirError(f"the rows in {folder} can't be written: {error.strerror or error}") from error


def _stored(column: np.ndarray) -> np.ndarray:
    """The column in a type that NumPy's files have: not bfloat16."""
    return column.astype(np.float32) if column.dtype.kind == "V" else column


def read(workdir: Path, name: str) -> Table | None:
    """The rows of an evaluation; None where the run left none.

    Raises:
      WorkdirError: if the file can't be read, or is damaged.
    """
    path = workdir / FOLDER / f"{name}.npz"
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            columns = {key: file[key] for key in file.files}
        return Table(int(columns.pop(STEP)), columns)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise WorkdirError(f"the rows {path} can't be read: {error}") from error
