"""The method `prune`: the smallest weights of each kernel become 0, and stay 0 where the run trains on."""

from collections.abc import Sequence

from jaxvision.errors import ConfigError, raised_as
from jaxvision.experiment import Experiment
from jaxvision.optimize.pruning import by_name, fraction_of_zeros, pruned_once
from jaxvision.trust.lighter.method import Given, Lighter
from jaxvision.trust.lighter.pruned import KERNELS, pruned_experiment
from jaxvision.trust.lighter.tuned import advice, tuned


def prune(
    given: Given, *, sparsity: float = 0.8, only: Sequence[str] = (), steps: int = 0, globally: bool = False
) -> Lighter:
    """The run with the smallest weights of each kernel, or of all kernels together, at 0.

    Args:
      given: the run.
      sparsity: fraction of zeros, at least 0 and less than 1.
      only: patterns of names of arrays; all kernels if none is given.
      steps: number of steps that the new run trains on.
      globally: whether the fraction is of all these arrays together (global pruning), in place of each one's.

    Raises:
      ConfigError: for a sparsity or steps that are not allowed, and a pattern that matches no array, with the nearest names.
    """
    patterns = tuple(only) or (KERNELS,)
    with raised_as(ConfigError):
        params = pruned_once(given.variables["params"], sparsity, *patterns, globally=globally)
        pruned_tuned(given.run.experiment, sparsity, patterns, steps, globally)
    zeros = fraction_of_zeros(params, *patterns)
    gone = [name for name, x in by_name(params, patterns, "prune").items() if not (x != 0).any()]
    lost = [f"nothing is left of {', '.join(gone[:5])}{f' and {len(gone) - 5} more' * (len(gone) > 5)}"] if gone else []
    return Lighter(
        {**given.variables, "params": params},
        ("from jaxvision.trust.lighter.prune import pruned_tuned",),
        f"pruned_tuned(experiment, {sparsity!r}, {patterns!r}, steps={steps}, globally={globally})",
        [f"{100 * zeros:.1f} % of the weights of these arrays are 0", *lost, advice(steps)],
        {"zeros": zeros, "steps": steps, "globally": globally},
    )


def pruned_tuned(
    experiment: Experiment, sparsity: float, patterns: Sequence[str], steps: int, globally: bool = False
) -> Experiment:
    """The experiment with these more steps, in which what is pruned stays 0."""
    return pruned_experiment(tuned(experiment, steps), sparsity, *patterns, globally=globally)
