"""NumPy's `.npz` files, read as far as their size lets one believe what they claim; nothing in them is ever run."""

import math
import zipfile
from collections.abc import Sequence
from os import PathLike
from typing import IO

import numpy as np

from jaxvision.errors import DataError, cut, damage, shown
from jaxvision.formats.files import regular

EXPANSION = 100
"""Times the size of its file that an array may have, where it is compressed."""
ROOM = 1 << 26
"""Bytes that an array of any file may have beside that."""
LONGEST_HEADER = 10_000
"""Bytes of the header of an array; numpy's own limit."""
READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read(path: str | PathLike, names: Sequence[str]) -> list[np.ndarray]:
    """The arrays of these names.

    Raises:
      DataError: one line that names the file, if it is none, damaged, or has no such array; for an array of objects, which
        would have to be run, and for one that claims to be larger than what is there.
      OSError: if the file is not there, or can't be read.
    """
    with damage(path), regular(path) as file:
        start = file.read(6)
        if start == b"\x93NUMPY":
            raise DataError(f"{path} holds a single array, not an .npz file's named ones")
        if not zipfile.is_zipfile(file):
            raise DataError(f"{path} is no .npz file, or cut off")
        with zipfile.ZipFile(file) as archive:
            known = [name.removesuffix(".npy") for name in archive.namelist()]
            for name in names:
                if name not in known:
                    raise DataError(
                        f"{path} has no array {name!r}; it has {cut(', '.join(sorted(known)), 200) or 'none'}"
                    )
            return [_array(archive, f"{name}.npy") for name in names]


def _array(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    known = archive.getinfo(member)
    with archive.open(known) as file:
        shape, fortran, dtype = _header(file)
        if dtype.hasobject:
            raise ValueError(f"{member} is an array of objects; allowed are numbers and texts")
        if any(side < 0 for side in shape):
            raise ValueError(f"{member} has the shape {shown(shape)}")
        size = math.prod(shape) * dtype.itemsize
        if size > known.file_size:
            raise ValueError(f"{member} claims {shown(shape)} of {dtype}, {size:,} bytes, and has {known.file_size:,}")
        check_size(size, known.compress_size)
        data = np.empty(size, np.uint8)
        count = file.readinto(memoryview(data)) if size else 0  # type: ignore[attr-defined]
        while count < size and (more := file.read(min(1 << 24, size - count))):
            data[count : count + len(more)] = np.frombuffer(more, np.uint8)
            count += len(more)
        if count != size or file.read(1):
            raise ValueError(f"{member} has not the {size:,} bytes that its header says")
    return data.view(dtype).reshape(shape, order="F" if fortran else "C")


def check_size(size: int, stored: int) -> None:
    """Raises ValueError for an array of `size` bytes that are compressed to far fewer, as only a bomb has them."""
    if size > ROOM + EXPANSION * stored:
        raise ValueError(
            f"{size:,} bytes compressed to {stored:,}; allowed are {EXPANSION} times as many: store them plain"
        )


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version not in READERS:
        raise ValueError(f"an array of version {version}")
    return READERS[version](file, max_header_size=LONGEST_HEADER)
