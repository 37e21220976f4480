"""The measure of explanations: which detections are right, and what its table says."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from jaxvision.types import Detections, Objects

SCRIPT = Path(__file__).parent.parent / "experiments" / "benchmarks" / "explanations.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("benchmark_explanations", SCRIPT)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_right_detections_are_the_best_of_each_object(script):
    boxes = [[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [0, 0, 10, 10], [80, 0, 90, 10], [50, 50, 60, 54]]
    labels, scores = [0, 0, 1, 1, 2, 1], [0.6, 0.9, 0.5, 0.99, 0.8, 0.95]
    valid = [True, True, True, True, False, True]
    found = Detections(
        *(np.array([x]) for x in (boxes, labels, scores, valid)), index=np.array([[7, 8, 9, 10, 11, 12]])
    )
    objects = [[0, 0, 10, 10], [50, 50, 60, 60], [80, 0, 90, 10], [0, 0, 10, 10]]
    truth = np.array([objects], float), np.array([[0, 1, 2, 0]]), np.ones((1, 4), bool), np.array([[0, 0, 0, 1]], bool)
    right = list(script.right(found, Objects(*truth)))
    assert [(chosen.index, chosen.label, chosen.score) for chosen, _ in right] == [(8, 0, 0.9), (9, 1, 0.5)]
    assert [box.tolist() for _, box in right] == objects[:2]


def test_a_line_has_the_means_and_counts(script):
    of = script.Measured
    text = script.line("rise", [of(0.6, True, 0.2), of(0.2, False, float("nan")), of(0.7, True, 0.4)], 12.3)
    assert text == "| rise | 50.0 (21.6), 67 % | 66.7 | 0.300 (0.100), 1 | 12 |"
    nothing = of(float("nan"), False, float("nan"))
    assert script.line("rise", [nothing, nothing], 1.0) == "| rise |  |  |  | 1 |"
