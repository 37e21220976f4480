"""JPEG files of an image folder to batches of random crops, uint8: the readers beside PyTorch's, Grain and the decoder.

All cut the same boxes from the same files in the same order, sampled by the first side; a unit is an image. The others are
spared the sampling. Processes that a side starts count in its processor time.
"""

from collections.abc import Iterator
from typing import Any

from experiments.benchmarks.speed.contest import Contest, Side

HERE = "experiments.benchmarks.speed"
TOLERANCE = 0.05
"""Relative difference of the mean of a block: at a crop's border, torchvision doesn't see what lies beyond."""


def rows(small: bool) -> Iterator[Contest]:
    """Random crops of 224 pixels, on one core and on two."""
    given: dict[str, Any] = {"count": 16, "batch": 8, "side": 64} if small else {"count": 512, "batch": 64, "side": 224}
    sides = (
        Side("ours, threads", f"{HERE}.loader_ours:threads", given),
        Side("ours, tf.data", f"{HERE}.loader_ours:tf_data", given),
        Side("PIL, decoding alone", f"{HERE}.loader_decoder:decoder", given, least=0.7),
        Side("torch DataLoader, torchvision", f"{HERE}.loader_torch:loader", given, peer=True, least=1.3),
        Side("Grain", f"{HERE}.loader_grain:loader", given, peer=True, least=1.3),
    )
    for cores in (1, 2):
        name = f"JPEG to random crop of {given['side']} px, an image"
        yield Contest(name, sides, units=given["count"], blocks=9, tolerance=TOLERANCE, cores=cores)
