"""What the benchmarks of operators, of the loop and of checkpoints compare: their data, and that they run."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from experiments.benchmarks.speed import boxes, checkpoint_state, coco_rows, roi_align_data
from experiments.benchmarks.speed.contest import ROOT

NAMES = ("augmentation", "checkpoint", "coco_eval", "fit", "masks", "nms", "roi_align")


def test_the_state_of_a_checkpoint_is_that_of_resnet50():
    shapes = dict(checkpoint_state.shapes())
    assert sum(math.prod(shape) for shape in shapes.values()) == 25_557_032  # as torchvision's has
    assert len(shapes) == 161


def test_boxes_of_classes_lie_on_eighths_of_pixels():
    found, scores, labels = boxes.classed(1000)
    assert ((found * 8) % 1 == 0).all()
    assert len(np.unique(labels)) == boxes.CLASSES
    assert len(scores) == len(labels) == 1000


def test_masks_of_coco_rows_lie_in_their_boxes():
    from pycocotools import mask

    columns = coco_rows.rows(6)
    inside = np.clip(columns["true_boxes"][columns["annotated"]], 0, [*coco_rows.SIZE[::-1]] * 2)
    found: Any = list(coco_rows.encoded(inside))
    x, y, width, height = mask.toBbox(found).T
    full = (width > 0) & (height > 0)
    assert full.sum() > len(found) / 2
    assert (np.stack([x, y], 1)[full] >= inside[full, :2] - 1).all()
    assert (np.stack([x + width, y + height], 1)[full] <= inside[full, 2:] + 1).all()
    data, results = coco_rows.dicts(6, masks=True)
    assert [each["id"] for each in data["annotations"]] == [*range(1, len(found) + 1)]
    assert len(results) == columns["detected"].sum()


def test_regions_lie_in_the_image():
    regions = roi_align_data.regions(40)
    assert (regions >= 0).all()
    assert (regions <= roi_align_data.IMAGE).all()
    assert (regions[:, 2:] > regions[:, :2]).all()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "nms" else pytest.mark.benchmark) for name in NAMES]
)
def test_a_benchmark_runs_small(name):
    command = [sys.executable, "-m", "experiments.benchmarks.run", name, "--small"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"## Benchmark: {name}" in done.stdout
