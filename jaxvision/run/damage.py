"""Damaged files of a workdir: read without a traceback, kept under another name, never thrown away."""

import errno
import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

from jaxvision.errors import WorkdirError

MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
"""Errors of the file system that say of a file that it is not there, or is no file: that is damage."""
MACHINE = (
    *("RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "DEADLINE_EXCEEDED", "Barrier timed out", "out of memory"),
    *(os.strerror(number) for number in (errno.EACCES, errno.EMFILE, errno.ENFILE, errno.ENOMEM)),
    *(os.strerror(number) for number in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN)),
)
"""What an error says that is no damage of a file."""


def of_machine(error: BaseException | None) -> bool:
    """Whether an error says that the machine, not the file, is at fault: the same file may be read the next time."""
    seen: list[BaseException] = []  # a chain of causes may end where it began
    while error is not None and not any(error is each for each in seen):
        seen.append(error)
        number = error.errno if isinstance(error, OSError) else None
        if isinstance(error, MemoryError) or (number is not None and number not in MISSING):
            return True
        if any(sign in str(error) for sign in MACHINE):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
      WorkdirError: if it can't be read, or holds something else; the message names it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WorkdirError(f"{path} can't be read: {reason(error)}") from error
    if not isinstance(found, dict):
        raise WorkdirError(f"{path} can't be read: it holds no JSON object")
    return found


def reason(error: Exception) -> str:
    """What an error says, in one short line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0][:200]


def json_row(line: bytes) -> dict[str, Any] | None:
    """The JSON object in a line of a log; None for anything else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def is_log(data: bytes) -> bool:
    """Whether each line is a JSON object; the last, if nothing ends it, was being written and does not count."""
    return all(json_row(line) is not None for line in data.split(b"\n")[:-1])


def cut_torn_end(path: Path) -> None:
    """Cuts the last line of a log, if it was being written when its process died: the next row begins a line."""
    data = path.read_bytes() if path.exists() else b""
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)


def set_aside(path: Path) -> Path:
    """Gives what has this path, file or folder, another name beside it: `x.damaged.json`, `x.damaged.1.json`, ..."""
    aside = free_name(path)
    path.rename(aside)
    return aside


def keep_copy(path: Path) -> Path:
    """A copy beside the file, named as `set_aside` would; what is no file is moved."""
    if path.is_dir() or not path.exists():
        return set_aside(path)
    aside = free_name(path)
    shutil.copyfile(path, aside)
    return aside


def free_name(path: Path) -> Path:
    """The first name of these that nothing has."""
    names = (f"{path.stem}.damaged{f'.{n}' if n else ''}{path.suffix}" for n in itertools.count())
    return next(path.with_name(name) for name in names if not path.with_name(name).exists())
