"""The constants of a frozen TensorFlow graph (`.pb`), read from its bytes: neither TensorFlow nor the graph is run.

A `.pb` file is a protocol buffer, `GraphDef`. Fields read here: GraphDef.node (1), NodeDef.name (1), .op (2), .attr (5), and
of the attribute `value` the tensor (8): its type (1), shape (2) and content (4, or 5 for numbers one by one).
"""

import math
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvision.pretrained.protobuf import fields, items
from jaxvision.pretrained.sizes import check_size

NODE = 1
"""The number of a graph's field of nodes."""
FLOAT = 1
"""The number of float32 among TensorFlow's types."""


def read_constants(path: Path) -> dict[str, np.ndarray]:
    """All float32 constants by their names.

    Raises:
        ValueError: for what is no such file, or is cut off.
    """
    try:
        graph = items(memoryview(path.read_bytes()))
        nodes = (fields(node) for number, node in graph if number == NODE and isinstance(node, memoryview))
        constants = [(node[1][0].tobytes().decode(), _tensor(node)) for node in nodes if node[2][0] == b"Const"]
    except (KeyError, IndexError, TypeError, AttributeError, UnicodeDecodeError, struct.error, OverflowError) as error:
        raise ValueError(f"{path} is no frozen TensorFlow graph, or is cut off: {error!r}") from error
    found = {name: tensor for name, tensor in constants if tensor is not None}
    if not found:
        raise ValueError(f"{path} holds no float32 constant: is it a frozen graph?")
    check_size(sum(math.prod(tensor.shape) * 4 for tensor in found.values()), path)
    return {name: tensor.array() for name, tensor in found.items()}


class _Tensor(NamedTuple):
    """The value of a constant: its numbers, of which the last stands for all that follow."""

    numbers: np.ndarray
    shape: list[int]

    def array(self) -> np.ndarray:
        size = math.prod(self.shape)
        return np.pad(self.numbers, (0, max(size - len(self.numbers), 0)), "edge")[:size].reshape(self.shape)


def _tensor(node: dict[int, list]) -> _Tensor | None:
    """The value of a constant; None for another type than float32."""
    attributes = {each[1][0].tobytes(): each[2][0] for each in map(fields, node[5])}
    tensor = fields(fields(attributes[b"value"])[8][0])
    if tensor[1][0] != FLOAT:
        return None
    shape = [fields(side).get(1, [0])[0] for side in fields(tensor[2][0]).get(2, [])] if 2 in tensor else []
    size = math.prod(shape)
    if 4 in tensor:
        return _Tensor(np.frombuffer(tensor[4][0], "<f4", size), shape)
    few = np.concatenate([np.zeros(0, "<f4"), *(np.frombuffer(each, "<f4") for each in tensor.get(5, []))])
    few = few if len(few) else np.zeros(1, "<f4")
    if len(few) > max(size, 1):
        raise IndexError(f"{len(few)} numbers for the shape {shape}")
    return _Tensor(few, shape)
