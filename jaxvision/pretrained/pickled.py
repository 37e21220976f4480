"""Arrays out of pickles, PyTorch's and NumPy's, without running anything that a pickle names.

A pickle is a small program that may call whatever it names. Here it can name a few functions only, which are ours and
note down what they are given; any other name is an error. Storages and arrays are then read from their bytes. PyTorch's
format is that of `torch.save`: since 1.6 a zip archive, before that pickles and raw storages one after another.
"""

import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
"""What PyTorch's files without an archive begin with."""
STORAGES = {
    "Double": "<f8",
    "Float": "<f4",
    "Half": "<f2",
    "BFloat16": ml_dtypes.bfloat16,
    "Long": "<i8",
    "Int": "<i4",
    "Short": "<i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "?",
}


class _Tensor(NamedTuple):
    """A tensor that a pickle describes; its bytes are elsewhere."""

    key: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Storage(NamedTuple):
    """One block of numbers, of which tensors show parts."""

    key: str
    kind: str
    count: int

    @property
    def dtype(self) -> np.dtype:
        """The type of its numbers."""
        return np.dtype(STORAGES[self.kind])


def read_archive(path: Path) -> Any:
    """What `torch.save` wrote as a zip archive: the same tree, its tensors as arrays, other things left out.

    Raises:
        ValueError: if the pickle names something else than arrays, or is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("its numbers are big-endian; save them again on another machine")
        with archive.open(f"{root}data.pkl") as file:
            reader = _Reader(file)
            tree = reader.load()
        parts = {key: archive.read(f"{root}data/{key}") for key in reader.storages}
    return _resolved(tree, _storages(reader.storages, parts))


def read_plain(path: Path) -> Any:
    """A pickle of NumPy arrays, or what `torch.save` wrote before 1.6; as `read_archive`."""
    with path.open("rb") as file:
        tree = _Reader(file).load()
        if tree != MAGIC:
            return _resolved(tree, {})
        _version, system = _Reader(file).load(), _Reader(file).load()
        if not system["little_endian"]:
            raise ValueError("its numbers are big-endian; save them again on another machine")
        reader = _Reader(file)
        tree, keys, parts = reader.load(), _Reader(file).load(), {}
        for key in keys:
            storage, count = reader.storages[key], int.from_bytes(_exactly(file, 8), "little")
            if count != storage.count:
                raise ValueError(f"its storage {key} has {count} numbers in place of {storage.count}")
            parts[key] = _exactly(file, count * storage.dtype.itemsize)
    return _resolved(tree, _storages(reader.storages, parts))


def _exactly(file: IO[bytes], count: int) -> bytes:
    found = file.read(count)
    if len(found) != count:
        raise EOFError("it ends early")
    return found


def _storages(storages: Mapping[str, _Storage], parts: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    for key, storage in storages.items():
        if len(parts[key]) != storage.count * storage.dtype.itemsize:
            raise ValueError(f"its storage {key} has {len(parts[key])} bytes for {storage.count} {storage.dtype}")
    return {key: np.frombuffer(parts[key], storage.dtype) for key, storage in storages.items()}


def _resolved(tree: Any, storages: Mapping[str, np.ndarray]) -> Any:
    """The tree with arrays in place of what describes them."""
    if isinstance(tree, dict):
        return {key: _resolved(value, storages) for key, value in tree.items()}
    if isinstance(tree, _Tensor):
        return _strided(storages[tree.key], tree)
    if isinstance(tree, _Array):
        return tree.array()
    if isinstance(tree, list | tuple):
        return [_resolved(value, storages) for value in tree]
    return tree


def _strided(storage: np.ndarray, tensor: _Tensor) -> np.ndarray:
    """The part of a storage that a tensor shows."""
    if min((tensor.offset, *tensor.shape, *tensor.strides)) < 0 or len(tensor.shape) != len(tensor.strides):
        raise ValueError(f"a tensor of shape {tensor.shape} has strides {tensor.strides}, offset {tensor.offset}")
    last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.strides, strict=True))
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, storage.dtype)
    if last >= storage.size:
        raise ValueError(f"a tensor of shape {tensor.shape} reaches beyond its {storage.size} numbers")
    steps = [step * storage.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, steps, writeable=False)


class _Reader(pickle.Unpickler):
    """Knows the names that stand for arrays and no others."""

    def __init__(self, file: IO[bytes]):
        super().__init__(file, encoding="latin1")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """One of ours, for a name that a file of weights needs."""
        if module == "torch" and name.endswith("Storage") and name.removesuffix("Storage") in STORAGES:
            return name.removesuffix("Storage")
        if (found := NAMES.get((module.replace("numpy._core", "numpy.core"), name))) is None:
            raise ValueError(f"its pickle names {module}.{name}, which is no array: nothing of it was run")
        return found

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage behind a tensor."""
        what, kind, key, _device, count, *view = pid
        if what != "storage" or any(view) or kind not in STORAGES:
            raise ValueError(f"its pickle has a {what!r} of {kind!r}, which is not read here")
        found = _Storage(str(key), kind, int(count))
        if self.storages.setdefault(found.key, found) != found:
            raise ValueError(f"its storage {key} is of two types")
        return found


class _Named:
    """A function that a pickle may call; the pickle can set nothing of it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable):
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise ValueError(f"its pickle sets {name!r}")


class _Dict(dict):
    """An ordered dict, whose attributes (PyTorch's versions of modules) are left out."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Dtype:
    """NumPy's type of numbers, as it is pickled."""

    def __init__(self, text: str, *_: Any):
        self.text = str(text)
        self.order: Any = "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def dtype(self) -> np.dtype:
        found = np.dtype(self.text)
        if found.kind not in "biufc":
            raise ValueError(f"it has an array of {found}, not of numbers")
        return found.newbyteorder(self.order)


class _Array:
    """NumPy's array, as it is pickled."""

    def __init__(self, state: tuple | None = None):
        self.state = state

    def __setstate__(self, state: tuple) -> None:
        self.state = state[1:]

    def array(self) -> np.ndarray:
        if self.state is None:
            raise ValueError("it has an array without numbers")
        shape, dtype, fortran, content = self.state
        content = content.encode("latin1") if isinstance(content, str) else content
        return np.frombuffer(content, dtype.dtype()).reshape(shape, order="F" if fortran else "C")


def _tensor(storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> _Tensor:
    return _Tensor(storage.key, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _from_buffer(content: bytes, dtype: _Dtype, shape: tuple, order: str) -> _Array:
    return _Array((shape, dtype, order == "F", content))


NAMES = {
    ("collections", "OrderedDict"): _Named(_Dict),
    ("torch", "Size"): _Named(tuple),
    ("torch._utils", "_rebuild_tensor"): _Named(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Named(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Named(lambda tensor, *_: tensor),
    ("numpy.core.multiarray", "_reconstruct"): _Named(lambda *_: _Array()),
    ("numpy.core.multiarray", "scalar"): _Named(lambda dtype, content: _Array(((), dtype, False, content))),
    ("numpy.core.numeric", "_frombuffer"): _Named(_from_buffer),
    ("numpy", "ndarray"): _Named(_Array),
    ("numpy", "dtype"): _Named(_Dtype),
    ("_codecs", "encode"): _Named(lambda text, _: text.encode("latin1")),
    ("__builtin__", "bytes"): _Named(lambda: b""),
}
"""What a pickle may name, and what that is here."""
