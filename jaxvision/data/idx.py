"""The IDX files of MNIST and its relatives, plain or gzipped: `train-images-idx3-ubyte.gz` and three more.

Format: two zero bytes, a type (8: unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit integer,
then the values (http://yann.lecun.com/exdb/mnist/).
"""

import gzip
import math
import struct
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from jaxvision.data import arrays
from jaxvision.data.source import Source

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
    data = _bytes(Path(path))
    zero, kind, rank = struct.unpack(">HBB", data[:4].ljust(4, b"\xff"))
    if (zero, kind, rank) != (0, UNSIGNED_BYTE, dimensions):
        expected = bytes([0, 0, UNSIGNED_BYTE, dimensions])
        raise ValueError(
            f"{path} should begin with {expected!r} (IDX, unsigned bytes, rank {dimensions}), not {data[:4]!r}"
        )
    start = 4 + 4 * dimensions
    shape = struct.unpack(f">{dimensions}I", data[4:start].ljust(4 * dimensions, b"\0"))
    if len(data) - start != math.prod(shape):
        held = max(len(data) - start, 0)
        raise ValueError(f"{path} announces {'x'.join(map(str, shape))} values, but holds {held}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder} has neither {name} nor {name}.gz")


def _bytes(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (EOFError, OSError) as error:
        raise ValueError(f"{path} is a broken gzip file: {error}") from None
