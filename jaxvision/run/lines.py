"""The lines that a run says of itself: what it trains on what, where it stands, what an evaluation measured."""

import math
from collections.abc import Mapping, Sequence

import jax
from jax.sharding import Mesh

from jaxvision import optimize
from jaxvision.errors import amount
from jaxvision.experiment import Experiment, Keep
from jaxvision.machine.limits import cores
from jaxvision.run.retention import ranked
from jaxvision.train import Metrics, TrainState
from jaxvision.types import About

SHOWN = 5
"""Metrics of an evaluation on the terminal; the log has all of them."""


def overview(experiment: Experiment, data: Mapping[str, About], mesh: Mesh, like: TrainState) -> str:
    """Devices, parameters, examples, classes, batch and steps of a run, in one line.

    `like` is the state, or its shapes; `data` what is known of each stream, by its name.
    """
    about, batch = data["train"], experiment.train.spec.image.shape[0]
    epochs = experiment.steps * batch / max(about.examples, 1)
    parts = [
        _devices(mesh),
        amount(
            sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(optimize.whole(like.current)["params"])), "parameter"
        ),
        _examples(about),
        *(f"{name}: {_examples(each)}" for name, each in data.items() if name != "train"),
        f"batches of {batch:,}",
        f"{amount(experiment.steps, 'step')} ({amount(float(f'{epochs:.3g}'), 'epoch')})",
    ]
    return ", ".join(parts)


def _devices(mesh: Mesh) -> str:
    kind = mesh.devices.flat[0].device_kind
    if mesh.devices.flat[0].platform == "cpu" and mesh.size == 1:
        return f"CPU ({amount(cores(), 'core')})"
    return amount(mesh.size, f"{kind} device")


def _examples(about: About) -> str:
    classes = f" of {amount(len(about.classes), 'class')}" if about.classes else ""
    return amount(about.examples, "example") + classes


def standing(step: int, steps: int, workdir: object) -> str:
    """What a run is about to do after `step` of its steps."""
    if step >= steps:
        done = f"all {amount(steps, 'step')} are done ({workdir})"
        return f"nothing is left to train: {done}. A config with more steps or epochs, and --fork, trains on"
    where = f"going on from step {step:,} of {steps:,} ({workdir}); " if step else ""
    return f"{where}compiling the training step: seconds to minutes, less where it was compiled before"


def evaluation_lines(metrics: Metrics, keep: Keep, history: Sequence[Metrics]) -> list[str]:
    """A line an evaluation: the metric that the best checkpoint is chosen by, how it compares, and the first of the others.

    Left out are metrics of single classes, micro averages and, where there are others, values that are not finite.

    Args:
      metrics: of this evaluation, such as "test/accuracy".
      keep: names the metric.
      history: the metrics of the evaluations before.
    """
    names = [name for name in metrics if name.count("/") < 2 and not name.endswith("_micro")]
    names = [name for name in names if name == keep.by or math.isfinite(metrics[name])] or names
    names.sort(key=lambda name: name != keep.by)
    lines = []
    for evaluation in dict.fromkeys(name.partition("/")[0] for name in metrics):
        its = [name for name in names if name.partition("/")[0] == evaluation]
        more = f"  and {len(its) - SHOWN} more" if len(its) > SHOWN else ""
        texts = [f"{name} {metrics[name]:.4g}{_compared(name, metrics, keep, history)}" for name in its[:SHOWN]]
        lines.append("  ".join(texts) + more)
    return lines


def _compared(name: str, metrics: Metrics, keep: Keep, history: Sequence[Metrics]) -> str:
    """How the metric that the best checkpoint is chosen by compares with the best before; empty for others, or alone."""
    before = [row for row in history if math.isfinite(row.get(name, math.nan))]
    if name != keep.by or not before:
        return ""
    best = before[ranked([row[name] for row in before], keep.mode)[0]]
    if is_best(metrics, keep, history):
        return " (best so far)"
    return f" (best {best[name]:.4g} at step {best['step']:,.0f})"


def is_best(metrics: Metrics, keep: Keep, history: Sequence[Metrics]) -> bool:
    """Whether no evaluation before had as good a value of `keep.by`; not, where there is no such value."""
    value = metrics.get(keep.by or "", math.nan)
    before = [row[keep.by] for row in history if math.isfinite(row.get(keep.by or "", math.nan))] if keep.by else []
    return math.isfinite(value) and ranked([*before, value], keep.mode)[0] == len(before)
