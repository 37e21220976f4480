"""Arrays out of pickles, PyTorch's and NumPy's, without running anything that a pickle names.

A pickle is a small program that may call whatever it names. Here no name of a pickle is ever imported: those of arrays are
functions of ours, which note down what they are given, and any other name is a `Foreign`, which is made, called and filled
without effect. So what training scripts save beside weights (settings, paths, states of optimizers) is passed over. Storages
and arrays are read from their bytes. PyTorch's format is that of `torch.save`: since 1.6 a zip archive, before that pickles
and raw storages one after another.
"""

import io
import os
import pickle
import pickletools
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
    "ComplexFloat": "<c8",
    "ComplexDouble": "<c16",
}
MOST_NAMES = 1_000
"""Different names of a pickle; each costs memory."""
MOST_ARRAYS = 100_000
"""Arrays of a set; a few modules, each holding the one before it twice, would have as many as they like."""


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


class Foreign:
    """An object of another library: empty, whatever it is given, but for its state, which is that of a module perhaps."""

    name = ""
    """What the pickle calls its class."""
    state: Any = None

    def __new__(cls, *_: Any, **__: Any) -> "Foreign":
        """An object without regard to arguments."""
        return super().__new__(cls)

    def __call__(self, *_: Any, **__: Any) -> "Foreign":
        """The object, in place of what it would give."""
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """Passes over an element."""

    extend = add = append


def read_archive(path: Path) -> Any:
    """What `torch.save` wrote as a zip archive: the same tree, its tensors as arrays, modules as dicts of their arrays.

    Raises:
        ValueError: if it is damaged, or claims to be larger than its file.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("its numbers are big-endian; save them again on another machine")
        reader = _Reader(io.BytesIO(archive.read(f"{root}data.pkl")))
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
    if count > os.fstat(file.fileno()).st_size - file.tell():
        raise EOFError("it ends early")
    return file.read(count)


def _storages(storages: Mapping[str, _Storage], parts: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    for key, storage in storages.items():
        if len(parts[key]) != storage.count * storage.dtype.itemsize:
            raise ValueError(f"its storage {key} has {len(parts[key])} bytes for {storage.count} {storage.dtype}")
    return {key: np.frombuffer(parts[key], storage.dtype) for key, storage in storages.items()}


def _resolved(tree: Any, storages: Mapping[str, np.ndarray]) -> Any:
    """The tree with arrays in place of what describes them."""
    try:
        return _Resolver(storages)(tree)
    except RecursionError:
        raise ValueError("it is nested more deeply than weights are") from None


class _Resolver:
    """Puts arrays in place of what describes them; what a tree holds in several places is the same in all of them."""

    def __init__(self, storages: Mapping[str, np.ndarray]):
        self.storages = storages
        self.done: dict[int, Any] = {}

    def __call__(self, tree: Any) -> Any:
        if id(tree) not in self.done:
            self.done[id(tree)] = self._resolved(tree)
        return self.done[id(tree)]

    def _resolved(self, tree: Any) -> Any:
        if isinstance(tree, _Tensor):
            return _strided(self.storages[tree.key], tree)
        if isinstance(tree, _Array):
            return tree.array()
        if isinstance(tree, dict):
            return {key: self(value) for key, value in tree.items()}
        if isinstance(tree, list | tuple):
            return [self(value) for value in tree]
        if isinstance(tree, Foreign) and isinstance(tree.state, dict) and {*MODULE} <= {*tree.state}:
            return self._module(tree.state)
        return tree

    def _module(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The `state_dict` of a module of PyTorch that was pickled whole."""
        parameters, buffers, modules = (state[part] for part in MODULE)
        fleeting = {*state.get("_non_persistent_buffers_set", ())}
        saved = {**parameters, **{name: each for name, each in buffers.items() if name not in fleeting}}
        arrays = {name: self(each) for name, each in saved.items() if each is not None}
        for child, each in modules.items():
            inner = self(each)
            if isinstance(inner, dict):
                arrays |= {f"{child}.{name}": array for name, array in inner.items()}
            if len(arrays) > MOST_ARRAYS:
                raise ValueError(f"a module in it has more than {MOST_ARRAYS:,} arrays")
        return arrays


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


MODULE = ("_parameters", "_buffers", "_modules")
"""What the state of a pickled module of PyTorch has."""


class _Reader(pickle.Unpickler):
    """Knows the names that stand for arrays; all others are foreign."""

    def __init__(self, file: IO[bytes]):
        _check_places(file)
        super().__init__(file, encoding="latin1")
        self.storages: dict[str, _Storage] = {}
        self.foreign: dict[tuple[str, str], type[Foreign]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """One of ours, never what the pickle names."""
        if module == "torch" and name.endswith("Storage") and name.removesuffix("Storage") in STORAGES:
            return name.removesuffix("Storage")
        if (found := NAMES.get((module.replace("numpy._core", "numpy.core"), name))) is not None:
            return found
        if (module, name) not in self.foreign:
            if len(self.foreign) == MOST_NAMES:
                raise ValueError(f"its pickle names more than {MOST_NAMES:,} classes")
            self.foreign[module, name] = type("Foreign", (Foreign,), {"name": f"{module}.{name}"})
        return self.foreign[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """The storage behind a tensor, a foreign one for numbers of a type that is not known here; the class of a module."""
        if pid[0] == "module":  # with its source code, before 1.6
            return pid[1]
        what, kind, key, _device, count, *view = pid
        if isinstance(kind, type) and issubclass(kind, Foreign):
            return kind()
        if what != "storage" or any(view) or kind not in STORAGES:
            raise ValueError(f"its pickle has a {what!r} of {kind!r}, which is not read here")
        found = _Storage(str(key), kind, int(count))
        if self.storages.setdefault(found.key, found) != found:
            raise ValueError(f"its storage {key} is of two types")
        return found


def _check_places(file: IO[bytes]) -> None:
    """Raises ValueError if the pickle that begins here counts its objects beyond its length: there is memory for each."""
    start = file.tell()
    puts = ("PUT", "BINPUT", "LONG_BINPUT")
    last = max((place or 0 for code, place, _ in pickletools.genops(file) if code.name in puts), default=0)
    if last > file.tell() - start:
        raise ValueError(f"its pickle of {file.tell() - start} bytes has an object {last}")
    file.seek(start)


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
        return np.dtype(self.text).newbyteorder(self.order)


class _Array:
    """NumPy's array, as it is pickled."""

    def __init__(self, state: tuple | None = None):
        self.state = state

    def __setstate__(self, state: tuple) -> None:
        self.state = state[1:]

    def array(self) -> np.ndarray | Foreign:
        if self.state is None:
            raise ValueError("it has an array without numbers")
        shape, dtype, fortran, content = self.state
        if (kind := dtype.dtype()).kind not in "biufc":
            other = Foreign()
            other.name = f"array of {kind}, not of numbers"
            return other
        content = content.encode("latin1") if isinstance(content, str) else content
        return np.frombuffer(content, kind).reshape(shape, order="F" if fortran else "C")


def _tensor(storage: _Storage | Foreign, offset: int, shape: tuple, strides: tuple, *_: Any) -> _Tensor | Foreign:
    if isinstance(storage, Foreign):
        return storage
    if len(shape) > 64:
        raise ValueError(f"it has a tensor of {len(shape)} axes")
    return _Tensor(storage.key, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _from_buffer(content: bytes, dtype: _Dtype, shape: tuple, order: str) -> _Array:
    return _Array((shape, dtype, order == "F", content))


NAMES = {
    ("collections", "OrderedDict"): _Named(_Dict),
    ("collections", "defaultdict"): _Named(lambda *_: _Dict()),
    ("__builtin__", "set"): _Named(lambda elements=(): elements),
    ("torch", "Size"): _Named(lambda sides: sides),
    ("torch._utils", "_rebuild_tensor"): _Named(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Named(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Named(lambda tensor, *_: tensor),
    ("torch._utils", "_rebuild_parameter_with_state"): _Named(lambda tensor, *_: tensor),
    ("torch._tensor", "_rebuild_from_type_v2"): _Named(lambda rebuild, _kind, arguments, _state: rebuild(*arguments)),
    ("numpy.core.multiarray", "_reconstruct"): _Named(lambda *_: _Array()),
    ("numpy.core.multiarray", "scalar"): _Named(lambda dtype, content: _Array(((), dtype, False, content))),
    ("numpy.core.numeric", "_frombuffer"): _Named(_from_buffer),
    ("numpy", "ndarray"): _Named(_Array),
    ("numpy", "dtype"): _Named(_Dtype),
    ("_codecs", "encode"): _Named(lambda text, _: text.encode("latin1")),
    ("__builtin__", "bytes"): _Named(lambda: b""),
}
"""What a pickle may name to some effect, and what that is here."""
