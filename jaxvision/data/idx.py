"""The IDX files of MNIST and its relatives, plain or gzipped: `train-images-idx3-ubyte.gz` and three more.

Format: two zero bytes, a type (8: unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit integer,
then the values (http://yann.lecun.com/exdb/mnist/).
"""

import gzip
import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jaxvision.data import arrays
from jaxvision.data.npz import check_size
from jaxvision.data.source import Source
from jaxvision.errors import damage
from jaxvision.formats.files import regular

PREFIXES = {"train": "train", "test": "t10k"}
UNSIGNED_BYTE = 8

FASHION_MNIST = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""The classes of Fashion-MNIST (Xiao et al., arXiv:1708.07747)."""


def source(folder: str | PathLike, split: str, classes: Sequence[str] | None = None) -> Source:
    """A source of one split, "train" or "test", of a folder of IDX files.

    Without `classes` they are named by their numbers. Raises FileNotFoundError for a missing file and ValueError for a
    wrong split or a broken file.
    """
    if split not in PREFIXES:
        raise ValueError(f"split must be one of {', '.join(PREFIXES)}, got {split!r}")
    images = read(_find(Path(folder), f"{PREFIXES[split]}-images-idx3-ubyte"), dimensions=3)
    labels = read(_find(Path(folder), f"{PREFIXES[split]}-labels-idx1-ubyte"), dimensions=1)
    return arrays.source(images, labels, classes, name=f"{folder}/{split}")


def read(path: str | PathLike, dimensions: int) -> np.ndarray:
    """The unsigned bytes of an IDX file with this many dimensions. Raises ValueError, naming the file, if it is none."""
    path, start = Path(path), 4 + 4 * dimensions
    with damage(path), regular(path) as raw, _unpacked(raw, path) as file:
        head = file.read(start)
        zero, kind, rank = struct.unpack(">HBB", head[:4].ljust(4, b"\xff"))
        if (zero, kind, rank) != (0, UNSIGNED_BYTE, dimensions):
            expected = bytes([0, 0, UNSIGNED_BYTE, dimensions])
            raise ValueError(
                f"{path} should begin with {expected!r} (IDX, unsigned bytes, rank {dimensions}), not {head[:4]!r}"
            )
        shape = struct.unpack(f">{dimensions}I", head[4:].ljust(4 * dimensions, b"\0"))
        size, stored = math.prod(shape), os.fstat(raw.fileno()).st_size
        if path.suffix == ".gz":
            check_size(size, stored)
        else:
            _check_held(path, size, stored - start, shape)
        data = file.read(size + 1)
        _check_held(path, size, len(data) if len(head) == start else -1, shape)
    return np.frombuffer(data, np.uint8).reshape(shape)


def _check_held(path: Path, size: int, held: int, shape: Sequence[int]) -> None:
    if size != held:
        raise ValueError(f"{path} announces {'x'.join(map(str, shape))} values, but holds {max(held, 0)}")


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise FileNotFoundError(f"{folder} has neither {name} nor {name}.gz")


@contextmanager
def _unpacked(raw: BinaryIO, path: Path) -> Iterator[BinaryIO]:
    """The content of a file, that of a gzipped one as it was before."""
    if path.suffix != ".gz":
        yield raw
        return
    try:
        with gzip.GzipFile(fileobj=raw) as file:
            yield file  # type: ignore[misc]
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is a broken gzip file: {error}") from None
