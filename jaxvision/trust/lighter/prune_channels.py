"""The method `prune_channels`: the weakest channels of convolutions leave, and the network has smaller arguments."""

from collections.abc import Sequence

import jax

from jaxvision.experiment import Experiment
from jaxvision.trust.lighter.channels import Arguments, flops, narrowed, narrowed_experiment, without_channels
from jaxvision.trust.lighter.method import Given, Lighter
from jaxvision.trust.lighter.tuned import advice, tuned


def prune_channels(given: Given, *, keep: float = 0.5, only: Sequence[str] = (), steps: int = 0) -> Lighter:
    """The run without the weakest channels of its convolutions.

    Args:
      given: the run.
      keep: fraction of the channels of each convolution that stay, above 0, at most 1.
      only: patterns of paths of convolutions; all that may lose channels if none is given.
      steps: number of steps that the new run trains on.

    Raises:
      ConfigError: for values that are not allowed, a network whose channels can't leave, and a pattern that matches none.
    """
    experiment, batch = given.run.experiment, given.run.experiment.train.spec
    found = without_channels(experiment.task, given.variables, batch, keep, *only)
    narrowed_tuned(experiment, found.arguments, steps)
    shapes = jax.eval_shape(lambda: (given.variables, found.variables))
    wide = flops(experiment.task, shapes[0], batch)
    narrow = flops(narrowed(experiment.task, found.arguments), shapes[1], batch)
    arguments = {path: dict(each) for path, each in found.arguments.items()}
    return Lighter(
        found.variables,
        ("from jaxvision.trust.lighter.prune_channels import narrowed_tuned",),
        f"narrowed_tuned(experiment, {arguments!r}, steps={steps})",
        [f"{narrow / wide:.3f} of the floating-point operations", advice(steps)],
        {"flops_before": wide, "flops": narrow, "arguments": arguments, "steps": steps},
    )


def narrowed_tuned(experiment: Experiment, arguments: Arguments, steps: int) -> Experiment:
    """The experiment with smaller arguments of its networks and these more steps."""
    return narrowed_experiment(tuned(experiment, steps), arguments)
