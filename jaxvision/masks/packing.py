"""The masks of all objects of one image as bytes: a value of one row of an evaluation."""

from collections.abc import Iterable

from jaxvision.masks.runs import Runs

BETWEEN = b"\n"
"""Stands between two masks; no sign of COCO's compressed text."""


def pack(masks: Iterable[Runs]) -> bytes:
    """The run lengths of masks of one size, which is not kept."""
    return BETWEEN.join(mask.counts for mask in masks)


def unpack(packed: bytes, size: tuple[int, int]) -> list[Runs]:
    """The masks, of this height and width."""
    return [Runs(size, counts) for counts in packed.split(BETWEEN)] if packed else []
