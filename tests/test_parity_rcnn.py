"""Faster R-CNN and RetinaNet against torchvision, whole networks: python -m pytest -m parity."""

import parity_rcnn
import pytest

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@pytest.mark.parametrize("detector", ["retinanet", "faster_rcnn"])
def test_a_detector_equals_torchvisions(float64, capsys, detector, backbone):
    shapes, theirs = parity_rcnn.figures_torch(detector, backbone)
    ours = parity_rcnn.figures(detector, backbone, shapes)
    assert min(len(labels) for _, labels, _ in theirs["detections"]) > 20
    errors = parity_rcnn.errors_of(ours, theirs)
    counts = [len(labels) for _, labels, _ in theirs["detections"]]
    with capsys.disabled():
        print(f"\n{detector} {backbone}, {counts} detections; losses {theirs['losses']}; largest errors:")
        print("  ".join(f"{name} {error:.1e}" for name, error in errors.items()))
    assert max(error for name, error in errors.items() if name != "gradient") < 1e-7
    assert errors["gradient"] < 1e-6
    parity_rcnn.assert_same(parity_rcnn.golden_of(shapes, ours), parity_rcnn.golden_of(shapes, theirs))
