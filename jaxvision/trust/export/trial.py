"""Trial of a written export: its own loader runs the example in a fresh process, which can't import this package."""

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxvision.errors import ExportError, cut
from jaxvision.machine import eigen
from jaxvision.trust.export.plain import refused_operator

logger = logging.getLogger(__name__)
ALONE = """
import runpy, sys
sys.modules["jaxvision"] = None  # whoever imports it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
FOUND = "found.npz"
TIMEOUT = 1800
NEAR = 1e-6
"""Scores that differ by no more are equal but for rounding: a few units in the last place of 1 in float32."""


Array = np.ndarray[Any, Any]


class Tolerance(NamedTuple):
    """How far outputs may be from their answer. Whole numbers, labels among them, have to be equal."""

    values: float
    """Largest difference of values, of probabilities and scores; times the largest answer where that is above 1."""
    pixels: float
    """Largest difference of boxes, in pixels of the canvas."""


def tried(loader: Path, answer: Mapping[str, np.ndarray], tolerance: Tolerance) -> dict[str, float]:
    """The largest difference of every output from its answer.

    Raises:
      ExportError: if the loader fails, or the outputs are others.
    """
    same = loader.stem == "load_stablehlo"  # the same XLA; TensorFlow has another, which may not know our flag
    environment = (dict(os.environ) if same else eigen.without_eigen(os.environ)) | {
        "JAX_ENABLE_X64": str(int(jax.dtypes.canonicalize_dtype(np.float64) == np.float64)),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, "-c", ALONE, loader.name, FOUND]
    done = subprocess.run(
        command, cwd=loader.parent, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    found = loader.parent / FOUND
    if done.returncode or not found.is_file():
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        reason = refused_operator(done.stderr) or cut(last, 600)
        raise ExportError(f"{loader.name} failed on the file that was written: {reason}")
    with np.load(found) as file:
        arrays = dict(file)
    found.unlink()
    return compared(arrays, answer, tolerance)


def compared(
    found: Mapping[str, np.ndarray], answer: Mapping[str, np.ndarray], tolerance: Tolerance
) -> dict[str, float]:
    """The largest difference of every output from its answer; detections may change places as `in_order` says.

    Raises:
      ExportError: if there are other outputs, or one differs by more than is allowed.
    """
    if set(found) != set(answer):
        raise ExportError(f"the file gives {', '.join(sorted(found))}; the model gives {', '.join(sorted(answer))}")
    found = in_order(found, answer)
    differences = {name: difference(found[name], wanted) for name, wanted in answer.items()}
    for name, apart in differences.items():
        wanted = answer[name]
        if wanted.dtype.kind not in "fV":
            most = 0.0
        elif name.split(".")[-1] == "boxes":
            most = tolerance.pixels
        else:
            most = tolerance.values * max(1.0, float(np.abs(wanted.astype(np.float64)).max(initial=0)))
        if not apart <= most:
            raise ExportError(f"the file that was written differs: {name} by {apart:.3g}, allowed is {most:.3g}")
    return differences


def in_order(found: Mapping[str, np.ndarray], answer: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """What was found, detections whose scores are equal but for rounding in the order of the answer; a warning counts them.

    Which of these comes first is chance: a sum in another order changes the last digit. All others stay in their places.
    """
    if any(name not in each for each in (found, answer) for name in NUMBERS):
        return found
    shape = answer["index"].shape
    if len(shape) != 2 or any(each[name].shape != shape for each in (found, answer) for name in NUMBERS):
        return found
    order = np.stack(
        [_order(*(each[name][n] for each in (found, answer) for name in NUMBERS)) for n in range(shape[0])]
    )
    moved = int((order != np.arange(shape[1])).sum())
    if not moved:
        return found
    logger.warning("%d detections whose scores are equal to %.0e come in another order", moved, NEAR)
    images = np.arange(shape[0])[:, None]
    return {name: x[images, order] if x.shape[:2] == shape else x for name, x in found.items()}


NUMBERS = ("index", "labels", "scores")
"""Outputs by which a detection is known."""


def _order(index: Array, labels: Array, scores: Array, *wanted: Array) -> Array:
    """The row of each wanted detection of one image: its own, or one of nearly the same score where it is found."""
    order = np.arange(len(index))
    for row, (number, label, score) in enumerate(zip(*wanted, strict=True)):
        rows = order[row:]
        near = (np.abs(scores[rows] - score) <= NEAR) & (np.abs(wanted[2][rows] - score) <= NEAR)
        places = row + np.flatnonzero(near & (index[rows] == number) & (labels[rows] == label))
        if len(places):
            order[[row, places[0]]] = order[[places[0], row]]
    return order


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference of two arrays; 0 where both are not a number, infinite for other shapes or types."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return float("inf")
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0, np.abs(a - b))
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0))
