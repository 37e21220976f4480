"""Folders: paths as a person writes them, and where files are kept between runs."""

import os
import re
import tempfile
import unicodedata
from os import PathLike
from pathlib import Path

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local(path: str | PathLike) -> Path:
    """The path, `~` as the home folder.

    Raises:
      ValueError: for an address such as gs://bucket/run, and for `~` where there is no home folder.
    """
    if _ADDRESS.match(str(path)):
        raise ValueError(f"{path} is an address; allowed are paths on this machine: mount it, or copy it here")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(
            f"{path}: there is no home folder for ~ to stand for; set HOME, or write the path out"
        ) from None


def cache(kind: str) -> Path:
    """The folder of what is kept between runs: `$JAXVISION_CACHE/<kind>`, or else `~/.cache/jaxvision/<kind>`.

    Without a home folder, it is among the temporary files. It need not exist.

    Raises:
      OSError: if there is no folder for temporary files either.
    """
    chosen = os.environ.get("JAXVISION_CACHE")
    return (local(chosen) if chosen else _home() / ".cache" / "jaxvision") / kind


def lend_temporary(folder: Path) -> None:
    """Takes this folder for temporary files where the machine has none that can be written to; makes it then."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


def spelled(folder: Path, name: str) -> Path:
    """The file of this name, or, where there is none, of another Unicode form of it (NFC, NFD): archives change forms."""
    path = folder / name
    if name.isascii() or os.path.exists(path):
        return path
    others = (folder / unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    return next((other for other in others if os.path.exists(other)), path)


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"home-{os.getuid()}"
