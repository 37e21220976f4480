"""Writes torchvision's figures of RetinaNet and Faster R-CNN: python tests/golden/make_rcnn.py, with the parity extra."""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import jax  # noqa: E402
from parity_rcnn import figures_torch, golden_of  # noqa: E402

with jax.enable_x64(True):  # the random numbers of the draws
    for detector in ("retinanet", "faster_rcnn"):
        figures = golden_of(*figures_torch(detector, "resnet18"))
        np.savez_compressed(HERE / f"{detector}_resnet18.npz", **figures)
