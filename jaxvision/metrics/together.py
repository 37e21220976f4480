"""Two metrics of the same predictions as one."""

from collections.abc import Mapping

import numpy as np

from jaxvision.types import Batch, Metric, Prediction, Rows

PREFIX = "second_"
"""How the columns of the second metric begin in the rows of both."""


def together(first: Metric, second: Metric) -> Metric:
    """The metrics of both; of equal names that of the first.

    Rows are those of the first, and those of the second under names of their own. The second has no `condense`.

    Raises:
      ValueError: if the second has one.
    """
    if second.condense is not None:
        raise ValueError("together: the second metric condenses its rows; allowed is one that does not")

    def observe(prediction: Prediction, batch: Batch) -> Rows:
        others = second.observe(prediction, batch)
        return {**first.observe(prediction, batch), **{PREFIX + name: column for name, column in others.items()}}

    def compute(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {**second.compute(of_second(rows)), **first.compute(rows)}

    def condense(rows: Rows) -> Mapping[str, np.ndarray]:
        assert first.condense is not None
        others = {name: column for name, column in rows.items() if name.startswith(PREFIX)}
        return {**first.condense({name: column for name, column in rows.items() if name not in others}), **others}

    return Metric(observe, compute, first.classes, None if first.condense is None else condense)


def of_second(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rows of the second of two metrics, under the names that it gave."""
    others = {name.removeprefix(PREFIX): column for name, column in rows.items() if name.startswith(PREFIX)}
    return others | ({"index": rows["index"]} if "index" in rows else {})
