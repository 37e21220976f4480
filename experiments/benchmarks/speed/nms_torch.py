"""Sides of torchvision in the benchmark `nms`."""

from collections.abc import Callable
from functools import partial

import torch
from torchvision import ops

from experiments.benchmarks.speed.boxes import FORMS, classed
from experiments.benchmarks.speed.contest import Work


def nms(count: int, form: str = "clusters") -> Work:
    """NMS at an IoU of 0.5; the outcome is which boxes are kept."""
    boxes, scores = map(torch.from_numpy, FORMS[form](count))
    return _work(partial(ops.nms, boxes, scores, 0.5))


def class_wise(count: int) -> Work:
    """NMS of boxes of the same class alone."""
    boxes, scores, labels = map(torch.from_numpy, classed(count))
    return _work(partial(ops.batched_nms, boxes, scores, labels, 0.5))


def _work(once: Callable[[], torch.Tensor]) -> Work:
    def run(units: int) -> None:
        for _ in range(units):
            once()

    return Work(run, lambda: sorted(once().tolist()))
