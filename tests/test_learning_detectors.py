"""Detectors learn: 32 drawn images by heart, by the commands that a user gives. A minute each.

One detector of every way to assign objects: default boxes (YOLACT's), a grid, proposals, a set.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxvision.data import synthetic

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


def trained(detector, steps, workdir, environment, *flags):
    """The rows of `metrics.jsonl` of a run on 32 images that it is tested on, too."""
    fields = {"detector": detector, "examples": 32, "batch_size": 8, "test_on_train": True, "steps": steps}
    options = [f"--config.{field}={value}" for field, value in fields.items()]
    command = [f"--config={ROOT}/experiments/shapes.py", f"--workdir={workdir}", *options, *flags]
    subprocess.run([sys.executable, "-m", "jaxvision.main", *command], check=True, capture_output=True, env=environment)
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("detector", "steps", "least"),
    [
        ("yolo", 800, {"AP50": 0.9, "AP": 0.5}),
        ("faster_rcnn", 300, {"AP50": 0.95, "AP": 0.7}),
        ("yolact", 400, {"mask_AP50": 0.95, "mask_AP": 0.7}),
    ],
)
def test_32_images_are_learned_by_heart_and_their_objects_written(detector, steps, least, tmp_path, optimised):
    workdir = tmp_path / "run"
    rows = trained(detector, steps, workdir, optimised)
    figures = [row for row in rows if "test/AP" in row][-1]
    for figure, bar in least.items():
        assert figures[f"test/{figure}"] >= bar, figures
    pictures = {path.name for path in (workdir / "report").glob("test_*.png")}
    assert {"test_predictions.png", "test_precision_recall.png", "test_confusion.png"} <= pictures

    from PIL import Image

    (example,) = synthetic.shapes(1, seed=0, size=96, max_objects=6).read([0])
    Image.fromarray(example.image).save(tmp_path / "drawn.png")
    written = tmp_path / "found.jsonl"
    command = [f"--workdir={workdir}", str(tmp_path / "drawn.png"), f"--output={written}", "--score=0.8"]
    subprocess.run([sys.executable, "-m", "jaxvision.predict", *command], check=True, capture_output=True)
    (line,) = written.read_text().splitlines()
    found = json.loads(line)["objects"]
    assert len(found) == len(example.objects.boxes)  # below 0.8 the processor's rounding decides what else is seen
    for each in found:
        same = example.objects.labels == ("circle", "square", "triangle").index(each["label"])
        assert abs(example.objects.boxes[same] - each["box"]).max(1).min() < 6
    for box, label in zip(example.objects.boxes, example.objects.labels, strict=True):
        same = [each["box"] for each in found if ("circle", "square", "triangle").index(each["label"]) == label]
        assert abs(np.asarray(same) - box).max(1).min() < 6


def test_the_loss_of_detr_falls(tmp_path, optimised):
    rows = trained("detr", 300, tmp_path / "run", optimised, "--no-report")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 6
    assert losses[-1] < 0.5 * losses[0], losses
