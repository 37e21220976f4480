"""SavedModel and TFLite by jax2tf, whose StableHLO TensorFlow reads: a folder for TensorFlow, a file for LiteRT alone."""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from jaxvision.errors import ExportError, cut
from jaxvision.trust.export.plain import computing, operators, plain, refused_operator, sorted_top_k
from jaxvision.trust.export.program import Program

logger = logging.getLogger(__name__)
PLATFORMS = ("cpu", "cuda", "tpu")
SIGNATURE = "serving_default"
UNREADABLE = {"top_k": sorted_top_k}
"""Operators that TensorFlow 2.21 can't read, and what computes them instead."""


def write_savedmodel(program: Program, folder: Path) -> dict[str, Any]:
    """Writes a SavedModel; returns what the manifest says of it.

    It computes what the program does, in the same order: TensorFlow hands it to XLA. It takes batches of any size, or of one
    image where a task needs to know the size. An operator that TensorFlow can't read shows when the file is tried.
    """
    batch = _saved(program, _function(program), folder)
    return {"batch": batch, "platforms": PLATFORMS, "signature": SIGNATURE}


def write_tflite(program: Program, file: Path) -> dict[str, Any]:
    """Writes a TFLite file; returns what the manifest says of it.

    It takes batches of any size, or of one image where an operator of LiteRT needs to know the size.

    Raises:
      ExportError: for an operator that LiteRT does not have; it says which, and where it comes from.
    """
    with computing(UNREADABLE):
        function = plain(lambda *inputs: program.run(program.variables, *inputs))
        try:
            data, batch = _converted(program, function, None), "any"
        except Exception as error:  # of many kinds: TensorFlow's own, a dimension that is no number
            logger.warning("TFLite: one image at a time, since a batch of any size fails: %s", _reason(error))
            data, batch = _converted(program, function, 1), 1
    file.write_bytes(data)
    return {"batch": batch, "signature": SIGNATURE}


def _function(program: Program) -> Callable[..., Any]:
    """The program as it is, or plain where it has what TensorFlow can't read."""
    shapes = [jax.ShapeDtypeStruct((1, *each.shape), each.dtype) for each in program.inputs.values()]
    run = lambda *inputs: program.run(jax.lax.optimization_barrier(program.variables), *inputs)
    if not any(each.primitive.name in UNREADABLE for each in operators(jax.make_jaxpr(run)(*shapes).jaxpr)):
        return run
    inner = plain(program.run)
    return lambda *inputs: inner(jax.lax.optimization_barrier(program.variables), *inputs)


def _saved(program: Program, function: Callable[..., Any], folder: Path) -> str | int:
    """The batch that it takes: any, or 1."""
    with computing(UNREADABLE):
        try:
            _save(program, function, folder, None)
            return "any"
        except Exception as error:  # of many kinds: a task that asks for the length of a batch, a loop over its images
            logger.warning("SavedModel: one image at a time, since a batch of any size fails: %s", _reason(error))
            _save(program, function, folder, 1)
            return 1


def _save(program: Program, function: Callable[..., Any], folder: Path, rows: int | None) -> None:
    """Writes a SavedModel for so many images, None for any number of them."""
    import tensorflow as tf
    from jax.experimental import jax2tf

    names = list(program.inputs)
    dimensions = [", ".join(map(str, ("b" if rows is None else rows, *each.shape))) for each in program.inputs.values()]
    converted = jax2tf.convert(
        function,
        polymorphic_shapes=[f"({each})" for each in dimensions],
        with_gradient=False,
        native_serialization_platforms=PLATFORMS,
    )
    specs = {n: tf.TensorSpec((rows, *x.shape), x.dtype.name, name=n) for n, x in program.inputs.items()}
    module: Any = tf.Module()
    module.run = tf.function(lambda **arrays: converted(*(arrays[name] for name in names)), autograph=False)
    with _quiet():
        signature = module.run.get_concrete_function(**specs)
        tf.saved_model.save(module, str(folder), signatures={SIGNATURE: signature})


def _converted(program: Program, function: Callable[..., Any], rows: int | None) -> bytes:
    """The bytes of a TFLite file.

    Raises:
      ExportError: for an operator that LiteRT does not have.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert_phase import ConverterError

    with tempfile.TemporaryDirectory() as folder, _quiet():
        _save(program, function, Path(folder), rows)
        try:
            return tf.lite.TFLiteConverter.from_saved_model(folder).convert()
        except ConverterError as error:
            raise ExportError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """What failed: the operator's name and where it comes from, if TensorFlow names one."""
    return refused_operator(str(error)) or cut(" ".join(str(error).split()), 300)


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside this block TensorFlow's Python says nothing of steps on the way."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        absl.setLevel(level)
