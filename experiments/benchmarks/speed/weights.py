"""Weights that every side makes for itself: from one NumPy generator, in the sorted order of PyTorch's names."""

from collections.abc import Mapping

import numpy as np

QUIET = ("bbox_pred.weight", "bbox_reg.weight", "bbox_pred.bias", "bbox_reg.bias", "bn3.weight")
"""Ends of names of arrays that are small, so that boxes stay near their anchors and deep networks near 1."""


def weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays of these shapes, float32; under them the activations of a deep network stay near 1."""
    random = np.random.default_rng(seed)
    return {name: scaled(name, random.standard_normal(shapes[name], np.float32)) for name in sorted(shapes)}


def scaled(name: str, normal: np.ndarray) -> np.ndarray:
    """A normal array, as large as what its name says: a variance, a bias, a scale, or a kernel with its inputs."""
    if name.endswith("running_var"):
        return np.exp(0.1 * normal)
    if name.endswith("scale_weight"):
        return 20 + normal
    if name.endswith(("cls_token", "pos_embed")):
        return np.float32(0.02) * normal
    inside = normal / np.float32(np.sqrt(normal[0].size)) if normal.ndim > 1 else 0.1 * normal
    around = inside + (1 if normal.ndim == 1 and name.endswith("weight") else 0)
    return (0.3 * around if name.endswith(QUIET) else around).astype(np.float32)
