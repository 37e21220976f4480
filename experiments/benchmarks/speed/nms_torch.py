"""Side of torchvision in the benchmark `nms`."""

import torch
from torchvision import ops

from experiments.benchmarks.speed.boxes import clusters
from experiments.benchmarks.speed.contest import Work


def nms(count: int) -> Work:
    """NMS at an IoU of 0.5; the outcome is which boxes are kept."""
    boxes, scores = map(torch.from_numpy, clusters(count))

    def run(units: int) -> None:
        for _ in range(units):
            ops.nms(boxes, scores, 0.5)

    return Work(run, lambda: sorted(ops.nms(boxes, scores, 0.5).tolist()))
