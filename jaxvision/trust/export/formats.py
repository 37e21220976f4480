"""Formats of exports: how each is written, what it needs, what reads it, and how near it has to come."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxvision.errors import ExportError
from jaxvision.trust.export import onnx_file, stablehlo, tensorflow_files
from jaxvision.trust.export.program import Program
from jaxvision.trust.export.trial import Tolerance


class Format(NamedTuple):
    """A format that models are exported in."""

    file: str
    """Name of the file, or folder, that is written."""
    write: Callable[[Program, Path], dict[str, Any]]
    """Writes it; returns what the manifest says of it."""
    packages: tuple[str, ...]
    """Packages whose versions the manifest has; they are imported under these names."""
    extra: str | None
    """Extra of this package that brings them; None: they come with it."""
    tolerance: Tolerance


FORMATS = MappingProxyType(
    {
        "stablehlo": Format("model.stablehlo", stablehlo.write, ("jax", "jaxlib"), None, Tolerance(1e-5, 1e-3)),
        "onnx": Format(
            "model.onnx", onnx_file.write, ("jax2onnx", "onnx", "onnxruntime"), "onnx", Tolerance(1e-4, 1e-2)
        ),
        "savedmodel": Format(
            "savedmodel", tensorflow_files.write_savedmodel, ("tensorflow",), "tensorflow", Tolerance(1e-4, 1e-2)
        ),
        "tflite": Format(
            "model.tflite", tensorflow_files.write_tflite, ("tensorflow",), "tensorflow", Tolerance(1e-4, 1e-2)
        ),
    }
)
"""Formats by the names that `--format=` takes."""


def check_installed(names: Sequence[str]) -> None:
    """Raises ExportError if a format needs what is not installed."""
    for name in names:
        missing = [each for each in FORMATS[name].packages if importlib.util.find_spec(each) is None]
        if missing:
            raise ExportError(
                f"--format={name} needs {', '.join(missing)}: pip install 'jaxvision[{FORMATS[name].extra}]'"
                + (" && pip install --no-deps jax2onnx==0.17.1" if "jax2onnx" in missing else "")
            )
