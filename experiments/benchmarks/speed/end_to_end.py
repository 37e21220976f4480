"""Training from JPEG files, beside its parts: the reader alone, and the step alone on a batch that is on the device.

On a GPU the slower part is what a run takes at best. On a CPU both share the cores, and what a run takes at best is the sum
of both; the step of a ResNet-50 is so much longer that this hardly differs. A unit is a step.
"""

import shutil
from collections.abc import Iterator
from typing import Any

from experiments.benchmarks.speed.contest import Contest, Side

WORK = "experiments.benchmarks.speed.end_to_end_ours:training"


def rows(small: bool) -> Iterator[Contest]:
    """A ResNet-50 on random crops of 224 pixels."""
    gpu = shutil.which("nvidia-smi") is not None
    given: dict[str, Any] = (
        {"network": "resnet18", "width": 8, "batch": 4, "side": 64, "count": 16}
        if small
        else {"network": "resnet50", "width": 64, "batch": 256 if gpu else 32, "side": 224, "count": 1024}
    )
    parts = {"ours": "whole", "reader alone": "reader", "step alone": "step"}
    sides = tuple(Side(name, WORK, {**given, "part": part}) for name, part in parts.items())
    name = f"training from JPEG files, {given['network']}, {given['side']} px, batch {given['batch']}, a step"
    yield Contest(name, sides, units=40 if gpu and not small else 4, blocks=5, slowest=0.95)
