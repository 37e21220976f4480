"""Training steps on a CPU, float32, beside plain Flax, torchvision, timm and transformers, eager and compiled.

Every side begins with the same weights and the same images; the losses of its first two steps and the norm of its first
gradient must be those of ours. Faster R-CNN and Mask R-CNN sample anchors and regions at random, DETR drops values: of
those what is compared is what the networks say of the images (of the objects' own bounding boxes, in the second stage),
and DETR's loss without dropout. Then each goes on with steps as they are. Classifiers: SGD with momentum, ViT AdamW;
detectors: gradients clipped to a norm of 0.1, SGD, DETR AdamW; their normalisation is frozen, all else is trained.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from experiments.benchmarks.speed.contest import Contest, Side

HERE = "experiments.benchmarks.speed"
FLAX, PEER, MEMORY = 1.3, 1.0, 1.2
"""The aims: theirs by ours in time, of plain Flax and of the others; ours by theirs in memory."""


class Network(NamedTuple):
    """A row."""

    name: str
    given: Mapping[str, Any]
    peers: tuple[tuple[str, str, Mapping[str, Any]], ...]
    """Name, function and further arguments of each peer that is not plain Flax."""
    plain: bool = False
    """Whether there is a plain Flax version."""
    gigaflop: float | None = None
    """Arithmetic of a step: forward, and both gradients, as `training_flops` counts it in the peer's modules."""
    tolerance: float = 1e-3
    units: int = 1
    blocks: int = 3


def rows(small: bool) -> Iterator[Contest]:
    """A training step of each network."""
    yield from map(contest, SMALL if small else FULL)


def contest(network: Network) -> Contest:
    """The sides that train a network."""
    given = dict(network.given)
    sides = [Side("ours", f"{HERE}.training_ours:step", given)]
    if network.plain:
        sides.append(Side("plain Flax", f"{HERE}.training_flax:step", given, least=FLAX, memory=MEMORY))
    for name, work, more in network.peers:
        sides.append(Side(name, f"{HERE}.{work}", {**given, **more}, peer=True, least=PEER, memory=MEMORY))
    shared = {"blocks": network.blocks, "lead": 1, "tolerance": network.tolerance, "gigaflop": network.gigaflop}
    return Contest(f"training step of {network.name}", tuple(sides), **shared)


TORCH = "training_torch:step"
COMPILED = {"compiled": True}
RESNET = (("torchvision", TORCH, {}), ("torch.compile", TORCH, COMPILED))
TIMM = (("timm", TORCH, {}), ("torch.compile", TORCH, COMPILED))
UNET = (("torch", TORCH, {}), ("torch.compile", TORCH, COMPILED))
DETECTOR = (
    ("torchvision", "training_torchvision:step", {}),
    ("torch.compile of the backbone", "training_torchvision:step", COMPILED),
)
DETR = (
    ("transformers", "training_transformers:step", {}),
    ("torch.compile of backbone and encoder", "training_transformers:step", COMPILED),
)


def sized(batch: int, *size: int, **given: Any) -> dict[str, Any]:
    """Arguments of a side."""
    return {"batch": batch, "size": list(size), **given}


RESNET18 = {"network": "resnet", "depth": 18, "classes": 10, "stem": "cifar"}
RESNET50 = {"network": "resnet", "depth": 50, "classes": 1000, "stem": "imagenet"}
VIT = {"network": "vit", "classes": 1000}
FULL = (
    Network("ResNet-18, 64 x 32 px", sized(64, 32, 32, **RESNET18), RESNET, True, gigaflop=213.3),
    Network(
        "ResNet-50, 16 x 128 px",
        sized(16, 128, 128, **RESNET50),
        (*RESNET, ("timm", TORCH, {"network": "timm_resnet"})),
        *(True, 128.3),
    ),
    Network("ViT-S, 8 x 224 px", sized(8, 224, 224, **VIT, form="vit_small"), TIMM, True, gigaflop=220.8),
    Network("U-Net, 4 x 128 px", sized(4, 128, 128, network="unet", classes=2, width=64), UNET, gigaflop=289.0),
    Network("SSD300, 2 images", sized(2, 300, 300, network="ssd300"), DETECTOR, gigaflop=412.3),
    Network("Faster R-CNN, 2 x 480 x 640 px", sized(2, 480, 640, network="faster_rcnn"), DETECTOR, gigaflop=779.2),
    Network("RetinaNet, 2 x 480 x 640 px", sized(2, 480, 640, network="retinanet"), DETECTOR, gigaflop=855.0),
    Network("DETR, 2 x 480 x 640 px", sized(2, 480, 640, network="detr"), DETR, gigaflop=348.7),
    Network("Mask R-CNN, 2 x 480 x 640 px", sized(2, 480, 640, network="mask_rcnn"), DETECTOR),
)
SHALLOW = {"backbone": "resnet18"}
SMALL = (
    Network("ResNet-18, 4 x 16 px", sized(4, 16, 16, **RESNET18), RESNET, True, blocks=1),
    Network(
        "ResNet-18, 2 x 64 px",
        sized(2, 64, 64, **{**RESNET50, "depth": 18, "classes": 10}),
        (*RESNET, ("timm", TORCH, {"network": "timm_resnet"})),
        True,
        blocks=1,
    ),
    Network("ViT, 2 x 32 px", sized(2, 32, 32, **VIT, form="vit_tiny", depth=2), TIMM, True, blocks=1),
    Network("U-Net, 2 x 32 px", sized(2, 32, 32, network="unet", classes=2, width=8, depth=2), UNET, blocks=1),
    Network("SSD300, 1 image", sized(1, 300, 300, network="ssd300"), DETECTOR[:1], blocks=1),
    *(
        Network(f"{name}, 1 x 96 x 128 px", sized(1, 96, 128, network=network, **SHALLOW), DETECTOR[:1], blocks=1)
        for name, network in (("Faster R-CNN", "faster_rcnn"), ("RetinaNet", "retinanet"), ("Mask R-CNN", "mask_rcnn"))
    ),
    Network("DETR, 1 x 96 x 128 px", sized(1, 96, 128, network="detr", layers=1, **SHALLOW), DETR[:1], blocks=1),
)
