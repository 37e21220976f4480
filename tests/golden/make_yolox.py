"""Writes yolox_*.npz, the authors' figures: python tests/golden/make_yolox.py, with what tests/test_parity_yolox.py needs."""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from parity_yolox import figures_torch, golden_of  # noqa: E402

for size in ("nano", "s"):
    np.savez_compressed(HERE / f"yolox_{size}.npz", **golden_of(*figures_torch(size)))
