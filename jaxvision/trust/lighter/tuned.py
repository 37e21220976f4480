"""Experiments that train on for a while from where a run ended: fine-tuning of what was made lighter."""

import optax

from jaxvision.errors import ConfigError, amount
from jaxvision.experiment import Experiment


def tuned(experiment: Experiment, steps: int) -> Experiment:
    """The experiment with more steps, whose updates fall to 0 along a line over these; the optimizer begins anew.

    With 0 it is as it was.

    Raises:
      ConfigError: for fewer than 0.
    """
    if steps < 0:
        raise ConfigError(f"steps is {steps}; it must be at least 0")
    if not steps:
        return experiment
    optimizer = optax.chain(experiment.optimizer, optax.scale_by_schedule(optax.linear_schedule(1.0, 0.0, steps)))
    return experiment._replace(optimizer=optimizer, steps=experiment.steps + steps)


def advice(steps: int) -> str:
    """What a person should know of a run that was made lighter and may train on."""
    if not steps:
        return (
            "it does not train on: give --steps=N for that, since weights that are left learn to do without the others"
        )
    command = "python -m jaxvision.main --config=NEW_RUN/experiment.py --workdir=NEW_RUN"
    return f"it trains on for {amount(steps, 'step')}: {command}"
