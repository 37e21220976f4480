"""Where a dataset is written: a file or a folder, whole or not at all, and nothing that was there before is lost unasked."""

import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from jaxvision.errors import DataError, amount, creating, replacing, shown

Belongs = Callable[[PurePosixPath], bool]
"""Whether a path, below the folder, is one that the format writes."""
AGAIN = "--replace writes it again"


def _nothing(path: PurePosixPath) -> bool:
    del path
    return False


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


def check_folder(path: Path, replace: bool, belongs: Belongs, stays: Belongs = _nothing) -> None:
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
    foreign = next((each for each in found if not (belongs(each) or stays(each))), None)
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
def folder(path: Path, replace: bool, belongs: Belongs, stays: Belongs = _nothing) -> Iterator[Path]:
    """A folder beside the path, to write into in a `with` block; it takes that place if the block ends without an error.

    A process that is killed in the moment between moving the old folder away and the new one into its place leaves neither
    there: the next call moves the old one back first.

    Args:
      path: of the folder.
      replace: whether one that is not empty is replaced.
      belongs: whether a path below it is of a file that is replaced.
      stays: whether it is of one that the new folder has, too, such as an image; a hard link, where there can be one.

    Raises:
      DataError: for a folder that is not empty, unless `replace`; and then, too, for one that has a file which does not
        belong to it. All is as it was.
    """
    path = Path(os.path.realpath(path))
    _recover(path)
    check_folder(path, replace, belongs, stays)
    partial, before = _aside(path, uuid.uuid4().hex)
    partial.mkdir()
    try:
        yield partial
        if path.is_dir():
            _keep(path, partial, stays)
            os.rename(path, before)
        os.rename(partial, path)
    except BaseException:
        if before.is_dir() and not path.exists():
            os.rename(before, path)
        raise
    finally:
        for each in (partial, before):
            shutil.rmtree(each, ignore_errors=True)


def _aside(path: Path, token: str) -> tuple[Path, Path]:
    """Where the new folder is written, and where the old one is while they change places."""
    return path.with_name(f".{token}.partial"), path.with_name(f".{path.name}.{token}.before")


def _recover(path: Path) -> None:
    """Ends what a process that was killed while folders changed places has left of this one."""
    name = re.compile(rf"\.{re.escape(path.name)}\.([0-9a-f]{{32}})\.before")
    for each in sorted(os.listdir(path.parent)) if path.parent.is_dir() else []:
        found = name.fullmatch(each)
        if found is None:
            continue
        partial, before = _aside(path, found[1])
        if not path.exists():
            os.rename(before, path)
        for left in (partial, before):
            shutil.rmtree(left, ignore_errors=True)


def _keep(path: Path, partial: Path, stays: Belongs) -> None:
    """Gives the new folder the files of the old one that stay."""
    for file in _files_below(path):
        place = Path(file).relative_to(path)
        if not stays(PurePosixPath(place.as_posix())):
            continue
        target = partial / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.islink(file):
            with suppress(OSError):
                target.rmdir()  # a folder of the new one, empty, in whose place the old one has a link
            os.symlink(os.readlink(file), target)
        else:
            _link(file, target)


def _link(file: str, target: Path) -> None:
    """Another name of the file, or a copy on a file system without hard links."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copy2(file, target)
