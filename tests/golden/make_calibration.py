"""Calibration errors of published code for `calibration.npz`: netcal, torchmetrics, and fiveai/detection_calibration.

    git clone https://github.com/fiveai/detection_calibration CODE   # at bf59c92
    PYTHONPATH=CODE/src:tests python tests/golden/make_calibration.py

in an environment of its own: netcal 1.4.0, torchmetrics 1.9.0, torch 2.14.1, pycocotools 2.0.11, scikit-learn 1.9.1, NumPy
2.2.6. What their compiled part for Python 3.8 does, pycocotools' of the same name does.
"""

import json
import sys
import tempfile
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch
from pycocotools import _mask, mask

sys.modules["detection_calibration.pycocotools_lrp._mask"] = _mask
sys.modules["detection_calibration.pycocotools_lrp.mask"] = mask
for part in ("lvis", "lvis.lvis", "lvis.eval", "lvis.results", "lvis.vis"):
    sys.modules[f"detection_calibration.{part}"] = MagicMock()

from detection_calibration.coco_calibration import CalibrationCOCO  # noqa: E402
from detection_cases import ground_truth, random_rows, results  # noqa: E402
from netcal.metrics import ECE  # noqa: E402
from torchmetrics.functional.classification import multiclass_calibration_error  # noqa: E402

SEEDS = range(12)


def classifier(seed: int) -> float:
    rng = np.random.default_rng(seed)
    logits, label = 2 * rng.normal(size=(300, 5)), rng.integers(0, 5, 300)
    logits[np.arange(300), label] += 1
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    width = ECE(15).measure(p, label)
    other = multiclass_calibration_error(torch.tensor(p), torch.tensor(label), 5, 15, "l1").item()  # in float32
    assert abs(width - other) < 1e-6, (width, other)
    return width


def detector(seed: int, folder: Path) -> tuple[float, float]:
    rows = random_rows(seed, ties=False, crowds=0.2 * (seed % 2))
    if not rows["detected"].any():
        return float("nan"), float("nan")
    truth = ground_truth(rows, 4)
    for each in truth.dataset["annotations"]:
        each["ignore"] = each["iscrowd"]
    file, found = folder / "truth.json", folder / "found.json"
    file.write_text(json.dumps(truth.dataset))
    found.write_text(json.dumps(results(rows)))
    values = []
    for tau, d_ece in ((0.5, True), (0.0, False)):
        made = CalibrationCOCO(str(file), str(file), "bbox", 25, tau, d_ece, False, 200)
        values.append(run(made, json.loads(found.read_text())))
    return values[0], values[1]


def run(made: CalibrationCOCO, found: list) -> float:
    made.cocoDt = made.cocoGt.loadRes(found)
    made.params.imgIds = sorted(made.cocoGt.getImgIds())
    made.evaluate()
    made.prepare_input()
    made.calibration_info = {k: each for k, each in made.calibration_info.items() if "scores" in each}
    made.compute_single_errors()
    return float(made.accumulate_errors())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        detectors = np.array([detector(seed, Path(folder)) for seed in SEEDS])
    classifiers = np.array([classifier(seed) for seed in SEEDS])
    np.savez(Path(__file__).with_name("calibration.npz"), detectors=detectors, classifiers=classifiers)
    print(classifiers, detectors, sep="\n")
