"""Files of weights, read as named arrays; nothing in a file is ever run, and no library that wrote one is needed.

The format is recognised by the content: safetensors, NumPy's `.npz`, PyTorch's `.pth` (also from before 1.6), pickles of
NumPy arrays, Keras' `.h5` and `.weights.h5`. Two formats can be recognised by the end of their names only: `.weights` of
Darknet, which needs its `.cfg` beside it, of the same name, and `.pb`, a frozen graph of TensorFlow.
"""

import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.pretrained import darknet, frozen_graph, hdf5, pickled
from jaxvision.pretrained.fetch import check_digest, fetched, is_url

Arrays = dict[str, np.ndarray]


def read(source: str | Path, sha256: str | None = None, *, inside: str | None = None) -> Arrays:
    """The arrays of a file, by their names in it.

    Args:
        source: a path, or an address (`https://...`, `file://...`), which is downloaded once (`fetch.fetched`).
        sha256: hash of the file, whole or its first eight digits or more.
        inside: which of several sets of weights that a file holds, "model_ema" say; its only one unless given.

    Returns:
        Name to array. Lists of arrays are named by their place: "conv1/0", "conv1/1".

    Raises:
        ValueError: one line that names the file, if its hash is another, if it is damaged, of no known format, a pickle
            that names anything but arrays, or holds none or several sets of weights.
        OSError: if it can't be read or downloaded.
    """
    path = fetched(str(source), sha256) if is_url(source) else Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of weights {path}")
    if sha256 is not None:
        check_digest(path, sha256)
    try:
        return _chosen(_tree(path), inside)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except DAMAGE as error:
        if getattr(error, "filename", None) is not None:
            raise
        text = str(error).partition("\n")[0]
        raise ValueError(f"{path}: damaged or cut off ({type(error).__name__}: {text})") from error


DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError),
    *(AttributeError, OverflowError, MemoryError, RuntimeError, OSError),
)
"""What reading a damaged file may raise beside ValueError; an OSError with a file name is about the file system."""


def _tree(path: Path) -> Any:
    """What the file holds, in the format recognised by its first bytes."""
    if path.suffix == ".weights":
        return darknet.read_weights(path, darknet.read_cfg(_beside(path, ".cfg")))
    if path.suffix == ".pb":
        return frozen_graph.read_constants(path)
    with path.open("rb") as file:
        start = file.read(9)
    if start.startswith(b"PK"):
        return _archive(path)
    if start.startswith(b"\x89HDF"):
        return hdf5.read(path)
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        return pickled.read_plain(path)
    if start[8:] == b"{":
        return _safetensors(path)
    known = "safetensors, npz, PyTorch's .pth, NumPy pickles, Keras' .h5, Darknet's .weights and TensorFlow's .pb"
    raise ValueError(f"no file of weights; known are {known}")


def _beside(path: Path, suffix: str) -> Path:
    other = path.with_suffix(suffix)
    if not other.is_file():
        raise ValueError(f"a Darknet .weights file needs its .cfg: there is no {other}")
    return other


def _archive(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/data.pkl") for name in names):
        return pickled.read_archive(path)
    if names and all(name.endswith(".npy") for name in names):
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    raise ValueError("an archive of neither NumPy nor PyTorch")


def _safetensors(path: Path) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"damaged or cut off ({error})") from error


def _chosen(tree: Any, inside: str | None) -> Arrays:
    """The one set of weights in the tree, or the named one."""
    sets = dict(_sets(tree, ""))
    if inside is None and "" in sets:
        return sets[""]
    if inside in sets:
        return sets[inside]
    names = ", ".join(f"{name!r} ({len(arrays)} arrays)" for name, arrays in sets.items() if name)
    if inside is not None:
        raise ValueError(f"there are no weights inside={inside!r}; there are: {names or 'none'}")
    if len(sets) == 1:
        return next(iter(sets.values()))
    if sets:
        raise ValueError(f"it holds several sets of weights; choose one by inside=: {names}")
    raise ValueError(f"it holds no set of named arrays{_keys(tree)}")


def _sets(tree: Any, name: str) -> Iterator[tuple[str, Arrays]]:
    """Every dict of arrays in the tree, with the names that lead to it, joined by slashes."""
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        return
    flat = {key: array for start, value in tree.items() for key, array in _listed(start, value)}
    if flat and all(isinstance(array, np.ndarray) for array in flat.values()):
        yield name, flat
        return
    for key, value in tree.items():
        yield from _sets(value, f"{name}/{key}" if name else key)


def _listed(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        yield from ((f"{name}/{i}", each) for i, each in enumerate(value))
    else:
        yield name, value


def _keys(tree: Any) -> str:
    if not isinstance(tree, dict):
        return f", but a {type(tree).__name__}"
    return f"; its names are: {', '.join(map(str, list(tree)[:8])) or 'none'}"
