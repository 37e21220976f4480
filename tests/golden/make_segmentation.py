"""Writes figures of FCN, DeepLabV3 and FCN-8s in torch: python tests/golden/make_segmentation.py, with the parity extra."""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from parity_segmentation import GOLDEN, figures_torch, golden_of  # noqa: E402

for name in GOLDEN:
    np.savez_compressed(HERE / f"{name}.npz", **golden_of(*figures_torch(name)))
