"""Where a dataset is written: a file or a folder, whole or not at all, and nothing that was there before is lost unasked."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from jaxvision.errors import DataError, amount, creating, replacing, shown

Belongs = Callable[[PurePosixPath], bool]
"""Whether a path, below the folder, is one that the format writes."""
AGAIN = "--replace writes it again"


def write_file(path: Path, data: bytes, replace: bool = False) -> None:
    """Writes the file.

    Raises:
      DataError: for a folder in its place, and for a file unless `replace`; it is as it was.
    """
    check_file(path, replace)
    try:
        with (replacing if replace else creating)(path) as partial:
            partial.write_bytes(data)
    except FileExistsError:
        raise DataError(f"{path} is there already; {AGAIN}") from None


def check_file(path: Path, replace: bool) -> None:
    """Raises DataError where `write_file` would."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file")
    if path.exists() and not replace:
        raise DataError(f"{path} is there already; {AGAIN}")
    if not path.parent.is_dir():
        raise DataError(f"there is no folder {path.parent} to write {path.name} into")


def check_folder(path: Path, replace: bool, belongs: Belongs) -> None:
    """Raises DataError where `folder` would."""
    if path.exists() and not path.is_dir():
        raise DataError(f"{path} is a file; name a folder")
    if not path.parent.is_dir():
        raise DataError(f"there is no folder {path.parent} to make {path.name} in")
    if not path.is_dir():
        return
    found = [PurePosixPath(Path(each).relative_to(path).as_posix()) for each in _files_below(path)]
    if found and not replace:
        raise DataError(f"{path} is not empty ({amount(len(found), 'file')}); {AGAIN}")
    foreign = next((each for each in found if not belongs(each)), None)
    if foreign is not None:
        raise DataError(
            f"{path} has {shown(str(foreign))}, which is none of the files to replace; move it, or name another folder"
        )


def _files_below(path: Path) -> Iterator[str]:
    """All but folders, in order of name; links are not followed."""
    for folder, folders, files in os.walk(path):
        folders.sort()
        links = [each for each in folders if os.path.islink(os.path.join(folder, each))]
        yield from (os.path.join(folder, each) for each in sorted([*files, *links]))


@contextmanager
def folder(path: Path, replace: bool, belongs: Belongs) -> Iterator[Path]:
    """A folder beside the path, to write into in a `with` block; it takes that place if the block ends without an error.

    Raises:
      DataError: for a folder that is not empty, unless `replace`; and then, too, for one that has a file which does not
        belong to it. All is as it was.
    """
    path = Path(os.path.realpath(path))
    check_folder(path, replace, belongs)
    partial, before = (path.with_name(f".{uuid.uuid4().hex}.partial") for _ in range(2))
    partial.mkdir()
    try:
        yield partial
        if path.is_dir():
            os.rename(path, before)
        os.rename(partial, path)
    except BaseException:
        if before.is_dir() and not path.exists():
            os.rename(before, path)
        raise
    finally:
        for each in (partial, before):
            shutil.rmtree(each, ignore_errors=True)
