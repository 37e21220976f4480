"""Writes detr_segmentation.npz, transformers' figures, with the parity extra installed: python make_detr_segmentation.py."""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from parity_detr_segmentation import SMALL, figures_torch, golden_of  # noqa: E402

np.savez_compressed(HERE / "detr_segmentation.npz", **golden_of(*figures_torch(SMALL)))
