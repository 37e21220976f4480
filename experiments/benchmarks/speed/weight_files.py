"""Files of random weights that both sides of a benchmark load, under PyTorch's names."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

CLASSES = 90
"""Classes of a detector, without background."""
BACKGROUND = 4.0
"""What background has more than other classes, so that a detector finds as little as a trained one."""

FIRST, DEVIATION = "backbone.features.0.weight", 60.0
"""A kernel that sees pixels which are not normalised, and their deviation."""


def path(name: str) -> Path:
    """The place of the file of a network's weights."""
    return Path(tempfile.gettempdir()) / f"jaxvision-weights-{name}.npz"


def write(name: str, shapes: Mapping[str, tuple[int, ...]], gain: float = 1.0) -> None:
    """Writes arrays of these shapes, made in the order of their names; activations of a deep network stay near 1.

    Args:
      name: of the network.
      shapes: by name.
      gain: by which kernels are larger: 2 ** 0.5 for a network without normalisation or residuals.
    """
    random = np.random.RandomState(0)
    arrays = {each: scaled(each, random.standard_normal(shapes[each]), gain) for each in sorted(shapes)}
    for each in arrays:
        if "classification_head" in each and each.endswith("bias"):
            arrays[each].reshape(-1, CLASSES + 1)[:, 0] += BACKGROUND
    with tempfile.NamedTemporaryFile(dir=path(name).parent, delete=False) as file:
        np.savez(file, **{each: array.astype(np.float32) for each, array in arrays.items()})  # type: ignore[arg-type]
    os.replace(file.name, path(name))


def scaled(name: str, normal: np.ndarray, gain: float) -> np.ndarray:
    """A normal array, as large as what its name says: a variance, a scale, a bias, or a kernel with its inputs."""
    if name.endswith("running_var"):
        return np.exp(0.1 * normal)
    if name.endswith("scale_weight"):
        return 20 + normal
    if name == FIRST:
        return gain * normal / np.sqrt(normal[0].size) / DEVIATION
    if normal.ndim > 1:
        return gain * normal / np.sqrt(normal[0].size)
    return 0.1 * normal + (1 if name.endswith("weight") else 0)


def read(name: str) -> dict[str, np.ndarray]:
    """The arrays that the first side wrote."""
    with np.load(path(name)) as found:
        return dict(found)
