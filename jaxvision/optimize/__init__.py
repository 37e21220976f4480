"""Which parameters an optimizer trains, and how: groups, rates, weight decay, frozen parts, penalties, early stopping."""

from jaxvision.optimize.groups import (
    Grouped,
    by_group,
    freeze,
    kernel_matrices,
    kernels,
    layerwise,
    matching,
    rates,
    split,
    whole,
)
from jaxvision.optimize.patterns import names
from jaxvision.optimize.penalty import l1, l2
from jaxvision.optimize.stopping import early

__all__ = [
    "Grouped",
    "by_group",
    "early",
    "freeze",
    "kernel_matrices",
    "kernels",
    "l1",
    "l2",
    "layerwise",
    "matching",
    "names",
    "rates",
    "split",
    "whole",
]
