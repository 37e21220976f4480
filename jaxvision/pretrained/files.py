"""Files of weights, read as named arrays; nothing in a file is ever run, and no library that wrote one is needed.

The format is recognised by the content: safetensors, NumPy's `.npz`, PyTorch's `.pth` (also from before 1.6), pickles of
NumPy arrays, Keras' `.h5` and `.weights.h5`. Three formats can be recognised by the end of their names only: `.weights` of
Darknet, which needs its `.cfg` beside it, of the same name, `.pb`, a frozen graph of TensorFlow, and `.onnx`.
"""

import io
import lzma
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvision.errors import WeightsError, amount
from jaxvision.pretrained import darknet, frozen_graph, hdf5, onnx_graph, pickled
from jaxvision.pretrained.fetch import check_digest, fetched, is_url
from jaxvision.pretrained.pickled import MOST_ARRAYS, Foreign
from jaxvision.pretrained.sizes import check_size

Arrays = dict[str, np.ndarray]
AVERAGED = re.compile(r"(.*[/_])?(ema|averaged?)([/_].*)?")
"""Names of sets of averaged weights: "model_ema", "ema/module", "state_dict_ema"."""
PLAIN = re.compile(r"(.*/)?(state_dict|model|model_state|model_state_dict|net|network|module|weights|params)")
"""Names of sets of weights, as training scripts save them beside other things."""


class Weights(NamedTuple):
    """Named arrays of a file."""

    arrays: Arrays
    inside: str
    """Which set of arrays of the file they are: "model_ema"; empty where the file is one set."""


def read(source: str | Path, sha256: str | None = None, *, inside: str | None = None) -> Arrays:
    """The arrays of a file, by their names in it; arguments and errors are those of `read_weights`."""
    return read_weights(source, sha256, inside=inside).arrays


def read_weights(source: str | Path, sha256: str | None = None, *, inside: str | None = None) -> Weights:
    """The arrays of a file, by their names in it, and which of its sets they are.

    Args:
        source: a path, or an address (`https://...`, `file://...`), which is downloaded once (`fetch.fetched`).
        sha256: hash of the file, whole or its first eight digits or more.
        inside: which of several sets of weights that a file holds, "model_ema" say. Unless given it is the only one, or the
            averaged one, or that of a usual name ("state_dict", "model").

    Returns:
        Name to array. Lists of arrays are named by their place: "conv1/0", "conv1/1".

    Raises:
        WeightsError: one line that names the file, if its hash is another, if it is damaged, of no known format, claims to
            hold more than its size allows, or holds none or several sets of weights.
        OSError: if it can't be read or downloaded.
    """
    path = fetched(str(source), sha256) if is_url(source) else Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no file of weights {path}")
    if not path.is_file():
        raise WeightsError(f"{path} is no regular file")
    try:
        if sha256 is not None:
            check_digest(path, sha256)
        found = _chosen(_tree(path), inside)
        check_size(sum(array.nbytes for array in found.arrays.values()), path)
        return found
    except ValueError as error:
        text = str(error).partition("\n")[0]
        raise WeightsError(text if str(path) in text else f"{path}: {text}") from error
    except DAMAGE as error:
        if getattr(error, "filename", None) is not None:
            raise
        text = str(error).partition("\n")[0]
        raise WeightsError(f"{path}: damaged or cut off ({type(error).__name__}: {text})") from error


DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, pickle.UnpicklingError, EOFError, KeyError),
    *(IndexError, TypeError, AttributeError, OverflowError, MemoryError, RuntimeError, OSError),
)
"""What reading a damaged file may raise beside ValueError; an OSError with a file name is about the file system."""


def _tree(path: Path) -> Any:
    """What the file holds, in the format recognised by its first bytes."""
    if path.suffix == ".weights":
        return darknet.read_weights(path, darknet.read_cfg(_beside(path, ".cfg")))
    if path.suffix == ".pb":
        return frozen_graph.read_constants(path)
    if path.suffix == ".onnx":
        return onnx_graph.read_initializers(path)
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
    known = (
        "safetensors, npz, PyTorch's .pth, NumPy pickles, Keras' .h5, Darknet's .weights, TensorFlow's .pb and .onnx"
    )
    raise ValueError(f"no file of weights; known are {known}")


def _beside(path: Path, suffix: str) -> Path:
    other = path.with_suffix(suffix)
    if not other.is_file():
        raise ValueError(f"a Darknet .weights file needs its .cfg: there is no {other}")
    return other


def _archive(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        check_size(sum(part.file_size for part in archive.infolist()), path)
        names = archive.namelist()
        if names and all(name.endswith(".npy") for name in names):
            return {name.removesuffix(".npy"): _npy(archive.read(name)) for name in names}
    if any(name.endswith("/data.pkl") for name in names):
        return pickled.read_archive(path)
    raise ValueError("an archive of neither NumPy nor PyTorch")


def _npy(content: bytes) -> np.ndarray:
    """The array that `np.save` wrote, whose header is held against what follows it."""
    file = io.BytesIO(content)
    header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    shape, fortran, dtype = header[np.lib.format.read_magic(file)[0]](file)
    if dtype.kind not in "biufc":
        raise ValueError(f"it has an array of {dtype}, not of numbers")
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")


def _safetensors(path: Path) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"damaged or cut off ({error})") from error


def _chosen(tree: Any, inside: str | None) -> Weights:
    """The named set of weights in the tree, or its only one, or that which its name tells from the others."""
    sets = dict(_sets(tree, "", set()))
    if inside is None:
        inside = "" if "" in sets else _best(sets)
    elif inside not in sets:
        raise ValueError(f"there are no weights inside={inside!r}; there are: {_counted(sets) or 'none'}")
    if inside is not None:
        return Weights(sets[inside], inside)
    if sets:
        raise ValueError(f"it holds several sets of weights; choose one by inside=: {_counted(sets)}")
    raise ValueError(f"it holds no set of named arrays{_keys(tree)}")


def _best(sets: Mapping[str, Arrays]) -> str | None:
    """The only set; else the only averaged one, if no other has more arrays; else the only plain one."""
    averaged = [name for name in sets if AVERAGED.fullmatch(name)]
    plain = [name for name in sets if PLAIN.fullmatch(name) and name not in averaged]
    if len(sets) == 1:
        return next(iter(sets))
    if len(averaged) == 1 and len(sets[averaged[0]]) == max(map(len, sets.values())):
        return averaged[0]
    return plain[0] if len(plain) == 1 else None


def _counted(sets: Mapping[str, Arrays], most: int = 5) -> str:
    more = f" and {len(sets) - most} more" if len(sets) > most else ""
    return (
        ", ".join(f"{name!r} ({amount(len(arrays), 'array')})" for name, arrays in [*sets.items()][:most] if name)
        + more
    )


def _sets(tree: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Arrays]]:
    """Every dict of arrays in the tree, with the names that lead to it, joined by slashes; not those of single numbers."""
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree) or id(tree) in seen:
        return
    seen.add(id(tree))
    if sum(len(value) if isinstance(value, list) else 1 for value in tree.values()) > MOST_ARRAYS:
        return
    flat = {key: array for start, value in tree.items() for key, array in _listed(start, value)}
    if flat and all(isinstance(array, np.ndarray) for array in flat.values()):
        if any(array.ndim for array in flat.values()):
            yield name, flat
        return
    for key, value in tree.items():
        yield from _sets(value, f"{name}/{key}" if name else key, seen)


def _listed(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        yield from ((f"{name}/{i}", each) for i, each in enumerate(value))
    else:
        yield name, value


def _keys(tree: Any) -> str:
    """What there is instead of a set of arrays, foreign things first."""
    if not isinstance(tree, dict):
        return f", but a {_kind(tree)}"
    entries = sorted(tree.items(), key=lambda entry: not isinstance(entry[1], Foreign))
    return f"; it has: {', '.join(f'{str(key)[:60]} ({_kind(value)})' for key, value in entries[:5]) or 'nothing'}"


def _kind(value: Any) -> str:
    """What a value is; foreign ones, of which nothing was run, by the names that their pickle has for them."""
    is_foreign = isinstance(value, Foreign) or (isinstance(value, type) and issubclass(value, Foreign))
    return value.name[:60] if is_foreign else type(value).__name__
