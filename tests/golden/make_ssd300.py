"""Writes ssd300_vgg16.npz, torchvision's figures: python tests/golden/make_ssd300.py, with the parity extra installed."""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from parity_detectors import golden_of, ssd_figures_torch  # noqa: E402

np.savez_compressed(HERE / "ssd300_vgg16.npz", **golden_of(*ssd_figures_torch()))
