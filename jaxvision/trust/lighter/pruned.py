"""Experiments whose weights are pruned while they train, averaged ones too."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jaxvision import optimize
from jaxvision.experiment import Experiment
from jaxvision.optimize.pruning import check_sparsity
from jaxvision.train import Average
from jaxvision.types import Params, Scalar, Variables

KERNELS = r"(.*/)?kernel"
"""All kernels of a network."""


def pruned_experiment(
    experiment: Experiment,
    sparsity: float,
    *chosen: str,
    begin: int = 0,
    end: int = 0,
    every: int = 10,
    globally: bool = False,
) -> Experiment:
    """The experiment with `optimize.pruned` behind its optimizer, and its averages 0 where the weights are.

    As it stands, the weights are pruned at the first step at once, so those that were pruned before stay so.

    Args:
      experiment: of any task.
      sparsity: fraction of zeros, at least 0 and less than 1.
      chosen: patterns of names of arrays; all kernels if none is given.
      begin: first step that prunes.
      end: last step that prunes.
      every: steps from one pruning to the next.
      globally: whether the fraction is of all chosen arrays together (global pruning), in place of each one's.

    Raises:
      ValueError: as `optimize.pruned`.
    """
    check_sparsity(sparsity, "sparsity")
    patterns = chosen or (KERNELS,)
    cut = optimize.pruned(sparsity, *patterns, begin=begin, end=end, every=every, globally=globally)
    average = experiment.average and keeping_zeros(experiment.average, optimize.matching(*patterns))
    return experiment._replace(optimizer=optax.chain(experiment.optimizer, cut), average=average)


def keeping_zeros(average: Average, chosen: Callable[[Params], PyTree]) -> Average:
    """The average, exactly 0 where a parameter is that the mask chooses: `optimize.matching(...)` of pruned ones."""

    def update(ema: PyTree, variables: Variables, step: Scalar) -> PyTree:
        new, params = average.update(ema, variables, step), variables["params"]
        cut = lambda x, mean, counts: jnp.where(x == 0, x, mean) if counts else mean
        return {**new, "params": jax.tree.map(cut, params, new["params"], chosen(params))}

    return Average(average.init, update)
