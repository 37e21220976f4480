"""Evaluation: every example exactly once, its row kept."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Sharding

from jaxvision.errors import NoExamples
from jaxvision.experiment import Evaluation
from jaxvision.types import Batch, Metric, Prediction, Stream, Task, Variables

BATCHES_UNDER_WAY = 3


class Evaluated(NamedTuple):
    """The metrics of an evaluation and the rows that they were computed from."""

    metrics: dict[str, float]
    rows: Mapping[str, np.ndarray]
    """Columns over the valid examples in the order of `index`, which is one of them."""


Observe = Callable[[Variables, Batch], Mapping[str, jax.Array]]


def make_observe(
    predict: Callable[[Variables, Batch], Prediction], metric: Metric, everywhere: Sharding | None = None
) -> Observe:
    """The jitted function from variables and a batch to the rows of its examples.

    `everywhere` is a sharding that copies an array to all devices: so every one of several processes gets all rows.
    """

    def observe(variables: Variables, batch: Batch) -> Mapping[str, jax.Array]:
        rows = metric.observe(predict(variables, batch.replace(target=None)), batch)
        return {**rows, "index": batch.index, "valid": batch.valid}

    return jax.jit(observe, out_shardings=everywhere)


def evaluate(
    observe: Observe,
    variables: Variables,
    batches: Iterable[Batch],
    compute: Callable[[Mapping[str, np.ndarray]], dict[str, float]],
) -> Evaluated:
    """The metrics over all batches.

    Args:
      observe: of `make_observe`; kept by the caller, so that it compiles once.
      variables: to predict with.
      batches: the whole evaluation data, on the device.
      compute: of the metric.

    Raises:
      NoExamples: if there is no valid example.
    """
    parts = []
    for batch in batches:
        parts.append(observe(variables, batch))
        jax.block_until_ready(parts[-BATCHES_UNDER_WAY:][0])
    rows = collect(parts)
    if not len(rows["index"]):
        raise NoExamples("there is no valid example to evaluate on")
    return Evaluated({name: float(value) for name, value in compute(rows).items()}, rows)


def collect(parts: list[Mapping[str, jax.Array]]) -> dict[str, np.ndarray]:
    """The rows of all batches as one table: padding dropped, ordered by the index of the example."""
    if not parts:
        return {"index": np.zeros(0, np.int32)}
    fetched = jax.device_get(parts)
    table = {name: np.concatenate([part[name] for part in fetched]) for name in fetched[0]}
    valid = table.pop("valid")
    table = {name: column[valid] for name, column in table.items()}
    order = np.argsort(table["index"], kind="stable")
    return {name: column[order] for name, column in table.items()}


class Evaluator:
    """Runs the evaluations of an experiment, each compiled once, and keeps the newest rows for the report."""

    def __init__(self, task: Task, evaluations: Mapping[str, Evaluation], everywhere: Sharding | None = None):
        self.evaluations = evaluations
        self.observers = {
            name: make_observe(task.predict, each.metric, everywhere) for name, each in evaluations.items()
        }
        self.newest: dict[str, Evaluated] = {}

    def evaluate(self, variables: Variables, feed: Callable[[Stream], Iterable[Batch]]) -> dict[str, float]:
        """The metrics of all evaluations, each name led by its evaluation's: `test/accuracy`.

        Args:
          variables: to predict with.
          feed: the batches of a stream, from first to last, on the devices.
        """
        metrics = {}
        for name, (stream, metric, _) in self.evaluations.items():
            try:
                self.newest[name] = evaluate(self.observers[name], variables, feed(stream), metric.compute)
            except NoExamples as error:
                raise NoExamples(f"evaluation {name!r}: {error}") from None
            metrics.update({f"{name}/{key}": value for key, value in self.newest[name].metrics.items()})
        return metrics
