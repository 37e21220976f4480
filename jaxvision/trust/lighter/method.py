"""What a method of making a run lighter is given, and what it makes.

A method is a function `(given, **options) -> Lighter`; `methods.METHODS` has them by name. Its options are keyword arguments
with defaults, and flags of the command `jaxvision.lighten` of the same names.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from jax.sharding import Mesh

from jaxvision.run.checkpoint import Saved
from jaxvision.run.restore import Restored
from jaxvision.train import Weights
from jaxvision.types import Variables


class Given(NamedTuple):
    """A run with a checkpoint."""

    run: Restored
    saved: Saved
    variables: Variables
    """Those chosen of the checkpoint, frozen parameters among the others, on one device or all of them whole."""
    weights: Weights
    """Whether they are averaged or current ones."""
    mesh: Mesh


class Lighter(NamedTuple):
    """What is written of a lighter run."""

    variables: Variables
    """Variables of the new task, frozen parameters among the others."""
    imports: Sequence[str]
    """Lines of the new experiment file: `from jaxvision.trust.lighter.folding import folded`, say."""
    experiment: str
    """Expression of the new experiment, in which `experiment` is that of the other run."""
    notes: Sequence[str] = ()
    """What a person should know, a line each."""
    figures: Mapping[str, object] = MappingProxyType({})
    """JSON data: what was counted or measured."""


Method = Callable[..., Lighter]
