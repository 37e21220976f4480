"""Checksums of the files that say what a run is: `checksums.json`, so that one that was changed or damaged is named."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from jaxvision.errors import WorkdirError, write_atomically
from jaxvision.run.damage import json_object, reason
from jaxvision.run.digest import checksum, sha256

NAME = "checksums.json"


class Checksums(NamedTuple):
    """What the run wrote down of itself."""

    files: Mapping[str, str]
    """SHA-256 of each file, by its path in the workdir."""
    saved: int | None = None
    """Step of the first checkpoint that was saved; None before that."""


def write(folder: Path, checksums: Checksums) -> None:
    """Writes `checksums.json`, with a checksum of its own."""
    content = {"files": dict(checksums.files), "saved": checksums.saved}
    write_atomically(folder / NAME, json.dumps({**content, "checksum": checksum(content)}, indent=2) + "\n")


def read(folder: Path) -> Checksums | None:
    """What is written there; None where there is nothing, as in a workdir of an older version.

    Raises:
      WorkdirError: if it was changed or damaged itself.
    """
    if not (folder / NAME).exists():
        return None
    content = json_object(folder / NAME)
    if content.pop("checksum", None) != checksum(content):
        raise WorkdirError(f"{folder / NAME} can't be believed: it was changed or damaged since it was written")
    return Checksums(**content)


def faults(folder: Path, checksums: Checksums, names: Iterable[str]) -> dict[str, str]:
    """What is wrong with those files of these names that have a checksum."""
    found = {name: _fault(folder / name, checksums.files[name]) for name in names if name in checksums.files}
    return {name: text for name, text in found.items() if text}


def _fault(path: Path, expected: str) -> str:
    try:
        same = sha256(path.read_bytes()) == expected
    except FileNotFoundError:
        return f"{path} is gone"
    except OSError as error:
        return f"{path} can't be read: {reason(error)}"
    return "" if same else f"{path} was changed or damaged since the run began"
