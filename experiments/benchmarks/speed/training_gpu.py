"""Training steps on a GPU, bfloat16, beside plain Flax and torch with AMP, channels last, eager and compiled.

As `training`, but for the sizes and the type. The sides compute in bfloat16 each in its own way, so that the first loss
alone is compared, with a wide tolerance: `training` compares the same programs in float32. YOLOX has no peer in these
libraries.
"""

from collections.abc import Iterator
from typing import Any

from experiments.benchmarks.speed.contest import Contest, Side
from experiments.benchmarks.speed.training import (
    COMPILED,
    DETECTOR,
    DETR,
    HERE,
    RESNET50,
    SHALLOW,
    TIMM,
    TORCH,
    VIT,
    Network,
    sized,
)

FLAX, EAGER, BUILT = 1.15, 1.3, 1.0
"""The aims: theirs by ours in time, of plain Flax, of eager and of compiled torch."""
TOLERANCE = 0.05
RESNET = (("torch", TORCH, {}), ("torch.compile", TORCH, COMPILED))


def rows(small: bool) -> Iterator[Contest]:
    """A training step of each network, the most wanted first."""
    yield from map(contest, SMALL if small else FULL)


def contest(network: Network) -> Contest:
    """The sides that train a network."""
    given = {**network.given, "dtype": "bfloat16"}
    sides = [Side("ours", f"{HERE}.training_ours:step", given)]
    if network.plain:
        sides.append(Side("plain Flax", f"{HERE}.training_flax:step", given, least=FLAX))
    for name, work, more in network.peers:
        least = BUILT if more else EAGER
        sides.append(Side(name, f"{HERE}.{work}", {**given, **more}, peer=True, least=least))
    shared = {"units": network.units, "blocks": network.blocks, "gigaflop": network.gigaflop}
    return Contest(network.name, tuple(sides), **shared, tolerance=TOLERANCE if network.peers else None)


def detector(name: str, network: str, batch: int, peers: Any = DETECTOR, gigaflop: float | None = None) -> Network:
    """A detector at the size of COCO's recipes."""
    given = sized(batch, 800, 1344, network=network)
    return Network(f"{name}, {batch} x 800 x 1344 px, bf16", given, peers, gigaflop=gigaflop, units=5, blocks=5)


def vit(form: str, batch: int, gigaflop: float) -> Network:
    """A vision transformer at 224 px."""
    given = sized(batch, 224, 224, **VIT, form=f"vit_{form}")
    name = f"ViT-{form[0].upper()}/16, {batch} x 224 px, bf16"
    return Network(name, given, TIMM, True, gigaflop=gigaflop, units=10, blocks=5)


FULL = (
    Network(
        "ResNet-50, 256 x 224 px, bf16",
        sized(256, 224, 224, **RESNET50),
        *(RESNET, True),
        gigaflop=6281.0,
        units=10,
        blocks=5,
    ),
    vit("small", 128, 3531.9),
    vit("base", 128, 13489.0),
    detector("Faster R-CNN", "faster_rcnn", 4, gigaflop=5014.9),
    detector("DETR", "detr", 4, DETR),
    detector("RetinaNet", "retinanet", 4, gigaflop=5984.6),
    detector("Mask R-CNN", "mask_rcnn", 4, gigaflop=6643.2),
    Network("YOLOX-S, 16 x 640 px, bf16", sized(16, 640, 640, network="yolox"), (), units=10, blocks=5),
)
SMALL = (
    Network(
        "ResNet-18, 4 x 32 px, bf16",
        sized(4, 32, 32, **{**RESNET50, "depth": 18, "classes": 10}),
        *(RESNET[:1], True),
        gigaflop=0.1,
        blocks=1,
    ),
    Network(
        "ViT-Ti, 2 x 32 px, bf16",
        sized(2, 32, 32, **VIT, form="vit_tiny", depth=1),
        *(TIMM[:1], True),
        gigaflop=0.1,
        blocks=1,
    ),
    Network(
        "RetinaNet, 1 x 64 x 64 px, bf16", sized(1, 64, 64, network="retinanet", **SHALLOW), DETECTOR[:1], blocks=1
    ),
)
