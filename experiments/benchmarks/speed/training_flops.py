"""Arithmetic of the training steps in `training` and `training_gpu`, counted by torch in its own modules.

    python -m experiments.benchmarks.speed.training_flops

Runs in the environment of the peers, but for DETR on no data: tensors have shapes alone. Prints the gigaflop of a step,
three times those of the forward pass (its own, and the gradients of values and of weights), which `training` and
`training_gpu` hold as numbers. The second stages see 512 regions an image, the mask head 128.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DetrForObjectDetection

from experiments.benchmarks.speed import training, training_gpu, training_torch, training_torchvision
from experiments.benchmarks.speed.training_transformers import configured

REGIONS, MASKS = 512, 128


def gigaflop(network: str, batch: int, size: list[int], **options: Any) -> float:
    """Arithmetic of a step."""
    with torch.device("cpu" if network == "detr" else "meta"):  # DETR's masks ask for values
        images = torch.empty(batch, 3, *size)
        forward = forward_of(network, size, options)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            forward(images)
    return 3 * counter.get_total_flops() / 1e9


def forward_of(network: str, size: list[int], options: dict[str, Any]) -> Callable[[torch.Tensor], object]:
    """The part of the forward pass whose shapes are known beforehand."""
    if network in training_torch.NETWORKS:
        return training_torch.NETWORKS[network](size=size, **options)
    if network == "detr":
        model = DetrForObjectDetection(configured(**options))
        return lambda images: model(images, torch.ones(len(images), *size))
    detector = training_torchvision.NETWORKS[network](size, **options)
    return lambda images: detect(detector, images)


def detect(model: Any, images: torch.Tensor) -> None:
    """Backbone and heads of one of torchvision's detectors."""
    maps = list(model.backbone(images).values())
    if not hasattr(model, "roi_heads"):
        model.head(maps)
        return
    model.rpn.head(maps)
    heads = model.roi_heads
    heads.box_predictor(heads.box_head(torch.empty(REGIONS * len(images), 256, 7, 7)))
    if heads.has_mask():
        heads.mask_predictor(heads.mask_head(torch.empty(MASKS * len(images), 256, 14, 14)))


def main() -> None:
    for row in (*training.FULL, *training_gpu.FULL):
        if row.peers:
            print(f"{row.name}: {gigaflop(**row.given):.5g}", flush=True)


if __name__ == "__main__":
    main()
