"""Folders: paths as a person writes them, and where files are kept between runs."""

import os
import re
import tempfile
from pathlib import Path

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local(path: str | Path) -> Path:
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


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"home-{os.getuid()}"
