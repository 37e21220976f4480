"""An experiment as a plain value: all that a run needs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import PyTree
from PIL import Image

from jaxvision import optimize
from jaxvision.gradient import Gradient, mean_gradient
from jaxvision.train import Average, Every, Metrics, NonFinite, TrainState, TrainStep, init_state, make_train_step
from jaxvision.types import About, Augment, Canvas, Groups, Metric, Prediction, Rows, Stream, Task, Variables

Report = Callable[[Path, str, Rows, Stream, str], None]
"""Draws an evaluation's pictures into a folder: `(folder, name, rows, stream, of)`; `of` is what the titles say the variables
are of: "step 64, averaged weights", or nothing."""


Record = dict[str, Any]
"""What is predicted for one image, as JSON data."""


class Selection(NamedTuple):
    """What to tell of a prediction."""

    classes: Sequence[str]
    top_k: int = 5
    """Number of classes that a classifier tells, those of the highest probabilities."""
    score_threshold: float = 0.3
    """Lowest score of the objects that a detector tells."""
    polygons: bool = False
    """Whether masks of objects are told as polygons where they have no hole, else as run lengths."""


class Output(NamedTuple):
    """How predictions are written and drawn; what is None can't be asked for."""

    record: Callable[[Prediction, Canvas, Selection], Record]
    """`(prediction, canvas, selection)`: one row of a prediction, its arrays NumPy's, for the image on this canvas."""
    columns: Callable[[Selection], Sequence[str]] | None = None
    """The names of the columns of a table; needs `lines`."""
    lines: Callable[[Record], Sequence[Sequence]] | None = None
    """A record as lines of that table."""
    annotations: Callable[[Record], Sequence[Record]] | None = None
    """A record as annotations of COCO, without their own ids and those of images."""
    draw: Callable[[np.ndarray, Record], Image.Image] | None = None
    """`(pixels, record)`: what is predicted, drawn on the upright image `h w 3`, uint8, in its own size."""
    map: Callable[[Record, Selection], Image.Image] | None = None
    """`(record, selection)`: the class or the segment of each pixel, as a picture of the size of the image."""
    categories: Callable[[Selection], Sequence[Record]] | None = None
    """Categories of COCO; None: their ids, from 1, and names."""
    check: Callable[[Prediction, Sequence[str]], None] = lambda shapes, classes: None
    """`(shapes, classes)`: raises ValueError if the predictions of a model don't fit the classes of the data."""


class Keep(NamedTuple):
    """Which checkpoints stay: the `latest`, and the `best` by the metric `by`, of equal ones the earliest."""

    latest: int = 2
    best: int = 1
    by: str | None = None
    """Such as `"test/accuracy"`; None keeps no best."""
    mode: Literal["max", "min"] = "max"


class Evaluation(NamedTuple):
    """Data to evaluate on, what to measure, what to draw of it at the end, and how other images' predictions look."""

    stream: Stream
    metric: Metric
    report: Report | None = None
    output: Output | None = None
    """None takes the one for classes, for objects or for pixels (`run.records`) if that is what the task predicts."""
    groups: Mapping[str, Groups] = MappingProxyType({})
    """Groups of its examples or objects that `evaluate --by` can ask for, by name."""


class Experiment(NamedTuple):
    """All that a run needs; every field a value or a pure function."""

    task: Task
    optimizer: optax.GradientTransformation
    steps: int
    train: Stream
    augment: Augment | None = None
    evaluations: Mapping[str, Evaluation] = MappingProxyType({})
    start: Callable[[Variables], Variables] | None = None
    """Pretrained weights into fresh variables of the same structure; called only where there is no checkpoint."""
    frozen: Sequence[str] = ()
    """Patterns of the names of parameters that are not trained (`optimize.freeze`)."""
    gradient: Gradient = mean_gradient
    average: Average | None = None
    stop: Callable[[Sequence[Metrics]], bool] = lambda history: False
    """Early stopping: from the history of evaluations, once there is one, whether to end."""
    scalars: Mapping[str, optax.Schedule] = MappingProxyType({})
    """What to log beside the metrics of training, from the number of the step: `{"learning_rate": schedule}`."""
    seed: int = 0
    every: Every = Every()
    keep: Keep = Keep()
    nonfinite: NonFinite = "stop"


def streams(experiment: Experiment) -> dict[str, Stream]:
    """All streams of an experiment, by the names under which a workdir knows their data."""
    return {"train": experiment.train, **{f"evaluation {n}": each.stream for n, each in experiment.evaluations.items()}}


def task_of(experiment: Experiment) -> Task:
    """The task with the frozen parameters out of the optimizer's way: what training and evaluation run."""
    return optimize.freeze(experiment.task, experiment.frozen)


def train_step_of(experiment: Experiment) -> TrainStep:
    """The training step of an experiment, not jitted."""
    return make_train_step(
        task_of(experiment),
        experiment.optimizer,
        augment=experiment.augment,
        gradient=experiment.gradient,
        average=experiment.average,
        nonfinite=experiment.nonfinite,
    )


def first_state_of(
    experiment: Experiment, start: bool = True, layout: Callable[[PyTree], PyTree] = lambda shapes: None
) -> TrainState:
    """The state before the first step; `start=False` leaves out the pretrained weights, for shapes alone.

    `layout` gives the sharding of each array from the tree of their shapes (`train.init_state`).
    """
    return init_state(
        task_of(experiment),
        experiment.optimizer,
        jax.random.key(experiment.seed),
        experiment.train.spec,
        start=_start_of(experiment) if start else None,
        average=experiment.average,
        layout=layout,
    )


def check_seed(experiment: Experiment) -> None:
    """Raises ValueError for a seed that no key can be made of."""
    if not 0 <= experiment.seed < 2**63:
        raise ValueError(f"seed is {experiment.seed}; it must be at least 0 and below 2**63")


def check_steps(experiment: Experiment) -> None:
    """Raises ValueError for a number of steps that none can count: they are counted by int32."""
    if not 0 <= experiment.steps < 2**31:
        raise ValueError(f"steps is {experiment.steps}; it must be at least 0 and below 2**31")


def check_names(experiment: Experiment) -> None:
    """Raises ValueError for a name that no evaluation or scalar can have."""
    for name in experiment.evaluations:
        if name == "train" or "/" in name:
            raise ValueError(f"an evaluation is named {name!r}; 'train' and names with a '/' are not allowed")
    for name in experiment.scalars:
        if "/" in name:
            raise ValueError(f"a scalar is named {name!r}; names with a '/' are not allowed, which are of evaluations")


def check_keep(keep: Keep) -> None:
    """Raises ValueError for values that are not allowed."""
    if keep.mode not in ("max", "min"):
        raise ValueError(f"keep.mode is {keep.mode!r}; allowed: 'max', 'min'")
    if keep.latest < 1 or keep.best < 0:
        raise ValueError(f"keep.latest is {keep.latest} and keep.best {keep.best}; they must be at least 1 and 0")


def check_kept(experiment: Experiment) -> None:
    """Raises ValueError for values of `keep` that are not allowed."""
    check_keep(experiment.keep)
    by = experiment.keep.by
    if by is not None and by.partition("/")[0] not in experiment.evaluations:
        raise ValueError(f"keep.by is {by!r}; the evaluations are: {', '.join(experiment.evaluations) or 'none'}")


def check_classes(metric: Metric, about: About) -> None:
    """Raises ValueError if a metric is of more or fewer classes than the data, or of the same in another order."""
    if metric.classes is None:
        return
    text = f"the metric has the classes {_some(metric.classes)}, the data have {_some(about.classes)}"
    if len(metric.classes) != len(about.classes):
        raise ValueError(f"{text}: {len(metric.classes)} and {len(about.classes)}")
    if metric.classes != about.classes and sorted(metric.classes) == sorted(about.classes):
        raise ValueError(f"{text}: in another order")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _start_of(experiment: Experiment) -> Callable[[Variables], Variables] | None:
    """`start`, which sees the variables whole, for variables whose frozen ones are split off."""
    start, frozen = experiment.start, experiment.frozen
    if start is None:
        return None
    return lambda variables: optimize.split(start(optimize.whole(variables)), frozen)
