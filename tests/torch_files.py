"""Files as `torch.save` writes them, from opcodes, so that they may name any class: neither it nor torch need be there.

    save(path, {"model": {"weight": np.ones(3, np.float32)}, "args": New("argparse", "Namespace", {"lr": 0.1})})

Dicts, lists, tuples, sets, texts, numbers and arrays stand for themselves.
"""

import pickle
import zipfile
from typing import Any, NamedTuple

import numpy as np

SYSTEM = {"little_endian": True, "protocol_version": 1001}
BEGINNING = b"".join(pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, SYSTEM))
"""What torch's files before 1.6 begin with: a number that marks them, a version, and where they were written."""
STORAGES = {"f4": "FloatStorage", "f8": "DoubleStorage", "i8": "LongStorage", "u1": "ByteStorage"}


class Global(NamedTuple):
    """What a module calls so."""

    module: str
    name: str


class Call:
    """What a function gives for these arguments; and what is put into it then, as by `pickle`'s SETITEMS."""

    def __init__(self, module: str, name: str, *arguments: Any, entries: dict | None = None):
        self.function, self.arguments, self.entries = Global(module, name), arguments, entries


class New:
    """An object of a class with this state."""

    def __init__(self, module: str, name: str, state: Any):
        self.kind, self.state = Global(module, name), state


class Storage(NamedTuple):
    """The numbers of an array, kept beside the pickle."""

    array: np.ndarray
    key: str


class Persistent(NamedTuple):
    """What a file keeps in a way of its own: `("module", class, file, code)` before 1.6, in place of a module's class."""

    id: tuple


class Writer:
    """Pickles, by opcodes of protocol 2, and the storages of the arrays in them."""

    def __init__(self):
        self.storages = []

    def pickled(self, tree: Any) -> bytes:
        return b"\x80\x02" + self.code(tree) + b"."

    def code(self, tree: Any) -> bytes:
        match tree:
            case Global():
                return f"c{tree.module}\n{tree.name}\n".encode()
            case Call():
                called = self.code(tree.function) + self.code(tree.arguments) + b"R"
                return called + (self.entries(tree.entries) if tree.entries is not None else b"")
            case New():
                return self.code(tree.kind) + b")\x81" + self.code(tree.state) + b"b"
            case Persistent():
                return self.code(tree.id) + b"Q"
            case Storage():
                kind = Global("torch", STORAGES[tree.array.dtype.str[1:]])
                return self.code(Persistent(("storage", kind, tree.key, "cpu", tree.array.size)))
            case np.ndarray():
                return self.code(self.tensor(np.ascontiguousarray(tree).reshape(tree.shape)))
            case dict():
                return b"}" + self.entries(tree)
            case set():
                return self.code(Call("__builtin__", "set", [*tree]))
            case list():
                return b"](" + b"".join(map(self.code, tree)) + b"e"
            case tuple():
                return b"(" + b"".join(map(self.code, tree)) + b"t"
        return pickle.dumps(tree, 2)[2:-1]

    def entries(self, entries: dict) -> bytes:
        return b"(" + b"".join(self.code(each) for entry in entries.items() for each in entry) + b"u"

    def tensor(self, array: np.ndarray) -> Call:
        self.storages.append(Storage(array, str(len(self.storages))))
        strides = tuple(stride // array.itemsize for stride in array.strides)
        arguments = (self.storages[-1], 0, array.shape, strides, False, Call("collections", "OrderedDict"))
        return Call("torch._utils", "_rebuild_tensor_v2", *arguments)


def save(path, tree: Any) -> None:
    """Write the tree as `torch.save` does since 1.6, as a zip archive."""
    writer = Writer()
    content = writer.pickled(tree)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for storage in writer.storages:
            archive.writestr(f"archive/data/{storage.key}", storage.array.tobytes())


def save_before_1_6(path, tree: Any) -> None:
    """Write the tree as `torch.save` did before 1.6: pickles, then the storages one after another."""
    writer = Writer()
    content = writer.pickled(tree)
    keys = pickle.dumps([storage.key for storage in writer.storages], 2)
    numbers = [storage.array.size.to_bytes(8, "little") + storage.array.tobytes() for storage in writer.storages]
    path.write_bytes(b"".join([BEGINNING, content, keys, *numbers]))
