"""Which parameters an optimizer trains, and how: groups, rates, weight decay, frozen parts, penalties, pruning, stopping.

optax.chain(optax.adamw(schedule, weight_decay=0.05, mask=kernels), rates(layerwise(0.75, layers))) gives each layer its own
rate, `rates({"head/.*": 10.0, ".*": 1.0})` each group, `by_group` another optimizer for each. A pattern that matches nothing
is an error with the nearest names.
"""

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
from jaxvision.optimize.pruning import pruned
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
    "pruned",
    "rates",
    "split",
    "whole",
]
