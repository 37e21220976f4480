"""The method `fold`: BatchNorm becomes a part of the convolution before it."""

from jaxvision.errors import ConfigError, amount, raised_as
from jaxvision.experiment import Experiment
from jaxvision.trust.lighter import folding
from jaxvision.trust.lighter.method import Given, Lighter

SHOWN = 5
"""Normalisations that stay and are named."""


def fold(given: Given) -> Lighter:
    """The run with BatchNorm folded where that can be done; raises ConfigError where it can't be anywhere."""
    experiment = given.run.experiment
    with raised_as(ConfigError):
        found = folding.foldable(experiment.task, given.variables, experiment.train.spec)
    count = len(found.pairs) + len(found.rest)
    if not found.pairs:
        has = (
            f"its {amount(count, 'BatchNorm')} stand elsewhere: {_listed(found.rest)}"
            if count
            else "it has no BatchNorm"
        )
        raise ConfigError(
            f"{given.run.workdir.path} has nothing to fold, no BatchNorm directly after a convolution or a dense layer; {has}"
        )
    notes = [f"{len(found.pairs)} of {amount(count, 'BatchNorm')} folded"]
    if found.rest:
        notes.append(f"not directly after a convolution or a dense layer, so as before: {_listed(found.rest)}")
    return Lighter(
        folding.fold(given.variables, found),
        ("from jaxvision.trust.lighter.fold import folded_experiment",),
        "folded_experiment(experiment)",
        notes,
        {"folded": len(found.pairs), "left": list(found.rest)},
    )


def folded_experiment(experiment: Experiment) -> Experiment:
    """The experiment with its task folded."""
    return experiment._replace(task=folding.folded(experiment.task))


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
