"""Sides of torchvision in the benchmark `roi_align`."""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from torchvision import ops

from experiments.benchmarks.speed import roi_align_data as data
from experiments.benchmarks.speed.contest import Work


def one_map(regions: int, channels: int) -> Work:
    """Pooling from one map, and the gradient of the map."""
    pool = lambda maps, boxes: ops.roi_align(maps[0], [boxes], data.SIZE, 1 / data.STRIDE, 2)
    return _work(pool, (data.STRIDE,), regions, channels)


def pyramid(regions: int, channels: int) -> Work:
    """Pooling of each region from the map that fits it, and the gradient of all maps."""
    names = [str(number) for number in range(len(data.STRIDES))]
    several = ops.MultiScaleRoIAlign(names, data.SIZE, 2)
    size = [(data.IMAGE, data.IMAGE)]
    pool = lambda maps, boxes: several(OrderedDict(zip(names, maps, strict=True)), [boxes], size)
    return _work(pool, data.STRIDES, regions, channels)


def _work(pool: Callable, strides: tuple[int, ...], regions: int, channels: int) -> Work:
    maps = [_channels_first(data.features(stride, channels))[None].requires_grad_() for stride in strides]
    boxes = torch.from_numpy(data.regions(regions))
    weights = torch.from_numpy(data.weights(regions, channels)).permute(0, 3, 1, 2).contiguous()

    def once() -> torch.Tensor:
        for each in maps:
            each.grad = None
        pooled = pool(maps, boxes)
        pooled.backward(weights)
        return pooled

    def run(units: int) -> None:
        for _ in range(units):
            once()

    def outcome() -> list[float]:
        pooled = once()
        found = [pooled, *(each.grad for each in maps if each.grad is not None)]
        return data.told([np.ascontiguousarray(each.detach().permute(0, 2, 3, 1).numpy()) for each in found])

    return Work(run, outcome)


def _channels_first(features: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(features.transpose(2, 0, 1)))
