"""Prediction for JPEG files, from the files to records, beside torchvision, and beside its own parts.

A ResNet-50 and an SSD300 on VGG16 with the same random weights on all sides; every side decodes and resizes by PIL, as
torchvision's transforms do. A batch of one image tells the latency, one of 32 the throughput; a unit is an image.
"""

from collections.abc import Iterator
from typing import Any

from experiments.benchmarks.speed.contest import Contest, Side

HERE = "experiments.benchmarks.speed"
TOLERANCE = 0.01
"""Relative difference of a probability, or of a score or a side of a box: float32 in two orders of summation."""


def rows(small: bool) -> Iterator[Contest]:
    """Each network, image by image and in batches."""
    classifier = {"network": "resnet18", "side": 64} if small else {"network": "resnet50", "side": 224}
    for work, network in (("classifier", classifier), ("detector", {"network": "ssd300_vgg16", "side": 300})):
        for batch in (1, 2) if small else (1, 32):
            given = {**network, "batch": batch, "count": 2 if small else max(8, 2 * batch)}
            yield beside_peers(work, given)
            yield beside_parts(work, given)


def beside_peers(work: str, given: dict[str, Any]) -> Contest:
    """The network by several programs."""
    torch = f"{HERE}.inference_torch:{work}"
    ahead = [Side("torch, DataLoader", torch, {**given, "loader": True}, peer=True, least=1.0)] * (given["batch"] > 1)
    sides = (
        Side("ours", f"{HERE}.inference_ours:{work}", given),
        Side("torch, plain loop", torch, {**given, "loader": False}, peer=True, least=1.0),
        *ahead,
        Side("ONNX Runtime, on our export", f"{HERE}.inference_onnx:{work}", given, least=1.0),
    )
    return Contest(f"predict, {_told(given)}", sides, units=given["count"], tolerance=TOLERANCE)


def beside_parts(work: str, given: dict[str, Any]) -> Contest:
    """The whole, and its parts alone."""
    parts = {"ours": "whole", "decoding alone": "decoding", "model alone": "model"}
    sides = tuple(Side(name, f"{HERE}.inference_ours:{work}", {**given, "part": part}) for name, part in parts.items())
    return Contest(f"predict and its parts, {_told(given)}", sides, units=given["count"], slowest=0.9)


def _told(given: dict[str, Any]) -> str:
    return f"{given['network']}, {given['side']} px, batch {given['batch']}, an image"
