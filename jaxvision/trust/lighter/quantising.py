"""ONNX files in 8-bit numbers, by ONNX Runtime's static quantisation after training (arXiv:1712.05877).

Convolutions and matrix products alone: with all operators the outputs of our networks were zeros. Weights are scaled by
channel and use 7 of their 8 bits: the products of two 8-bit numbers, which processors without VNNI add up in 16 bits, would
overflow else, and a file give other answers there than elsewhere.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

OPERATORS = ("Conv", "Gemm", "MatMul")


def quantised(file: Path, images: Iterable[Mapping[str, np.ndarray]]) -> bytes:
    """The file's model in 8-bit numbers.

    Args:
      file: of ONNX; what is made on the way is written beside it.
      images: inputs by name, in batches that the file takes: ranges of activations are those found in them.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(images)

        def get_next(self) -> Mapping[str, np.ndarray] | None:  # type: ignore[override]
            return next(self.rest, None)

    plain, made = file.with_suffix(".plain.onnx"), file.with_suffix(".int8.onnx")
    _constants_computed(file, plain)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends what is done here, through the root logger
    try:
        quantize_static(
            plain,
            made,
            Images(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(level)
    model = onnx.load(made)
    _without_names(model.graph)
    return model.SerializeToString()


def _constants_computed(file: Path, to: Path) -> None:
    """Writes the model with what is constant computed, and biases within convolutions: kernels that are transposed on the way
    would not be quantised.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(to)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    model = onnx.load(to)
    _biases_by_channel(model.graph)
    onnx.save(model, to)


def _biases_by_channel(graph) -> None:
    """Writes out the bias of each matrix product that is one number for all channels: the quantiser takes a row alone."""
    from onnx import numpy_helper

    constants = {each.name: each for each in graph.initializer}
    for node in graph.node:
        if node.op_type != "Gemm" or len(node.input) < 3 or not {node.input[1], node.input[2]} <= set(constants):
            continue
        turned = any(each.name == "transB" and each.i for each in node.attribute)
        channels = constants[node.input[1]].dims[0 if turned else 1]
        bias = numpy_helper.to_array(constants[node.input[2]])
        if bias.size == 1:
            name = f"{node.output[0]}_bias"
            graph.initializer.append(numpy_helper.from_array(np.full(channels, bias.item(), bias.dtype), name))
            node.input[2] = name


def _without_names(graph) -> None:
    """Takes out what no runtime needs: names of nodes, long names and noted shapes of values; a third of a small file."""
    del graph.value_info[:]
    for node in graph.node:
        node.ClearField("name")
        node.ClearField("doc_string")
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        return  # a loop's body uses names of the graph around it
    kept = {each.name for each in (*graph.input, *graph.output)} | {""}
    values = [*(each.name for each in graph.initializer), *(name for node in graph.node for name in node.output)]
    short = {name: f"{n:x}" for n, name in enumerate(dict.fromkeys(values)) if name not in kept}
    for each in graph.initializer:
        each.name = short.get(each.name, each.name)
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [short.get(name, name) for name in names]
