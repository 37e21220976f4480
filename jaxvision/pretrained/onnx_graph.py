"""The weights of an ONNX graph (`.onnx`), read from its bytes: neither the graph nor a library of ONNX is run.

An `.onnx` file is a protocol buffer, `ModelProto`. Fields read here: ModelProto.graph (7), GraphProto.node (1) and
.initializer (5), NodeProto.input (1) and .op_type (4), TensorProto.dims (1), .data_type (2), .float_data (4), .name (8),
.raw_data (9) and .data_location (14).

Exporters number the arrays as they like, and fold normalisations into convolutions; what is sure is the order of the nodes,
in which each comes after those whose results it takes. So arrays are named by the node that takes them first: "Conv_3/1" is
input 1, the kernel, of the fourth convolution, "Conv_3/2" its bias.
"""

import math
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxvision.pretrained.protobuf import fields, varint
from jaxvision.pretrained.sizes import check_size

FLOAT = 1
"""The number of float32 among ONNX's types."""
EXTERNAL = 1
"""Location of a tensor whose numbers are in a file beside."""


def read_initializers(path: Path) -> dict[str, np.ndarray]:
    """All float32 initialisers that a node takes, named by it, in the order of the nodes.

    Raises:
        ValueError: for what is no such file, is cut off, or keeps its numbers in other files.
    """
    try:
        graph = fields(fields(memoryview(path.read_bytes()))[7][0])
        tensors = dict(_initializer(fields(each), path) for each in graph.get(5, []))
        uses = list(_uses(graph.get(1, [])))
    except (KeyError, IndexError, TypeError, AttributeError, UnicodeDecodeError, struct.error, OverflowError) as error:
        raise ValueError(f"{path} is no ONNX graph, or is cut off: {error!r}") from error
    found: dict[str, np.ndarray] = {}
    for name, use in uses:
        tensor = tensors.pop(name, None)
        if tensor is not None:
            found[use] = tensor
    if not found:
        raise ValueError(f"{path} holds no float32 initialiser that a node takes")
    check_size(sum(tensor.nbytes for tensor in found.values()), path)
    return found


def _uses(nodes: list[memoryview]) -> Iterator[tuple[str, str]]:
    """What every node takes: the name of a value, and that of its place, "Conv_3/1"."""
    count: Counter[str] = Counter()
    for node in map(fields, nodes):
        kind = _text(node[4][0])
        for place, name in enumerate(node.get(1, [])):
            yield _text(name), f"{kind}_{count[kind]}/{place}"
        count[kind] += 1


def _initializer(tensor: dict[int, list], path: Path) -> tuple[str, np.ndarray | None]:
    """Name and numbers of a tensor; None for another type than float32."""
    name = _text(tensor[8][0])
    if tensor.get(2, [0])[0] != FLOAT:
        return name, None
    if tensor.get(14, [0])[0] == EXTERNAL:
        raise ValueError(f"{path}: the numbers of {name!r} are in another file, which is not read")
    shape = [side for each in tensor.get(1, []) for side in _numbers(each)]
    given = tensor.get(9, []) or tensor.get(4, [])
    numbers = np.concatenate([np.zeros(0, "<f4"), *(np.frombuffer(each, "<f4") for each in given)])
    if len(numbers) != math.prod(shape):
        raise IndexError(f"{len(numbers)} numbers for the shape {shape} of {name!r}")
    return name, numbers.reshape(shape)


def _numbers(value: int | memoryview) -> Iterator[int]:
    """Whole numbers of a repeated field: one, or several packed."""
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        number, at = varint(value, at)
        yield number


def _text(value: memoryview) -> str:
    return value.tobytes().decode()
