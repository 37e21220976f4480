"""ONNX by jax2onnx: one file, NMS as ONNX's own operator, run by ONNX Runtime alone."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr

from jaxvision.errors import ExportError, cut
from jaxvision.ops.nms import computed_by
from jaxvision.trust.export import onnx_nms
from jaxvision.trust.export.plain import apart, operators, place, plain
from jaxvision.trust.export.program import Program
from jaxvision.trust.lighter.onnx_task import COLLECTION, session_of

logger = logging.getLogger(__name__)
OPSET = 21
ANY = "batch"
"""Name of a dimension of any size."""


def write(program: Program, file: Path) -> dict[str, Any]:
    """Writes the file; returns what the manifest says of it.

    It takes batches of any size, or of one image where what is computed for each image goes from image to image.

    Raises:
      ExportError: for an operator that ONNX can't have; it says which, and where it comes from.
    """
    if COLLECTION in program.variables:
        return _as_it_is(program, file)
    for name in ("onnx_ir", "jax2onnx.plugins.plugin_system"):  # the latter misses packages that it has plugins for
        logging.getLogger(name).setLevel(logging.ERROR)
    with computed_by(onnx_nms.operator(program.labels)):
        try:
            data, batch = _converted(program, plain(_function(program)), ANY), "any"
        except Exception as error:  # of many kinds: a dimension that is no number
            logger.warning("ONNX: one image at a time, since a batch of any size fails: %s", cut(str(error), 300))
            data, batch = _converted_alone(program), 1
    file.write_bytes(data)
    return {"batch": batch, "opset": OPSET}


def _as_it_is(program: Program, file: Path) -> dict[str, Any]:
    """Writes the file that computes the predictions of the task already."""
    file.write_bytes(np.asarray(program.variables[COLLECTION]["model"]).tobytes())
    rows = session_of(file.read_bytes()).get_inputs()[0].shape[0]
    return {"batch": rows if isinstance(rows, int) else "any", "opset": OPSET}


def _converted_alone(program: Program) -> bytes:
    """The program for one image.

    Raises:
      ExportError: for an operator that does not convert.
    """
    function = plain(_function(program), _shapes(program, 1))
    _check_operators(jax.make_jaxpr(function)(*_shapes(program, 1)).jaxpr)
    try:
        return _converted(program, function, 1)
    except Exception as error:
        text = cut(" ".join(str(error).split()), 300)
        raise ExportError(f"jax2onnx can't convert the program: {type(error).__name__}: {text}") from error


def _converted(program: Program, function: Callable[..., Any], rows: Any) -> bytes:
    from jax2onnx import to_onnx

    onnx_nms.register()
    names = {"input_names": list(program.inputs), "output_names": sorted(program.answer)}
    model = to_onnx(apart(function), _shapes(program, rows), opset=OPSET, **names)  # type: ignore[arg-type]
    return model.SerializeToString()  # type: ignore[union-attr]


def _shapes(program: Program, rows: Any) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct((rows, *each.shape), each.dtype) for each in program.inputs.values()]


def _function(program: Program) -> Callable[..., tuple[jax.Array, ...]]:
    """The program, its outputs in the order of their names."""

    def run(*inputs: jax.Array) -> tuple[jax.Array, ...]:
        found = program.run(program.variables, *inputs)
        return tuple(found[name] for name in sorted(found))

    return run


def _check_operators(jaxpr: Jaxpr) -> None:
    """Raises ExportError for an operator that jax2onnx does not know."""
    from jax2onnx.plugins.plugin_system import PLUGIN_REGISTRY

    for equation in operators(jaxpr):
        if equation.primitive.name not in PLUGIN_REGISTRY:
            raise ExportError(f"the operator {equation.primitive.name} does not convert; it is at {place(equation)}")
