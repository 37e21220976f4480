"""Writes detr.npz, transformers' figures: python tests/golden/make_detr.py, with the parity extra installed."""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from parity_detr import SMALL, figures_torch, golden_of  # noqa: E402

np.savez_compressed(HERE / "detr.npz", **golden_of(*figures_torch(SMALL)))
