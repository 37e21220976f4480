"""Rates among the figures of a metric: fractions of examples, each right or wrong by itself, as right and all."""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxvision.metrics.classification import class_names

Rates = Callable[[Mapping[str, np.ndarray]], dict[str, tuple[int, int]]]
"""Rows to the rates that follow from them: by the name of the figure, how many of how many."""
SELECTION, TRUE_POSITIVE, FALSE_POSITIVE = "selection_rate", "true_positive_rate", "false_positive_rate"


def accuracies(rows: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
    """Accuracy and top-5 accuracy of the rows of `metrics.classification`; nothing of other rows."""
    if "rank" not in rows:
        return {}
    rank = np.asarray(rows["rank"])
    return {name: (int((rank < top).sum()), len(rank)) for name, top in (("accuracy", 1), ("top5_accuracy", 5))}


def decisions(classes: Sequence[str] | int) -> Rates:
    """Accuracies, and of every class what parity between groups is told from.

    The rates, of rows with `label` and `predicted`; of others there are none:
      selection_rate/<class>: fraction of the examples that are predicted as the class.
      true_positive_rate/<class>: fraction of its examples that are; the class's recall.
      false_positive_rate/<class>: fraction of the other classes' examples that are.

    Raises:
      ValueError: for no class.
    """
    names = class_names(classes)

    def rates(rows: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
        if "label" not in rows or "predicted" not in rows:
            return {}
        label, predicted = np.asarray(rows["label"]), np.asarray(rows["predicted"])
        found = accuracies(rows)
        for number, name in enumerate(names):
            selected, positive = predicted == number, label == number
            for rate, among in (
                (SELECTION, np.full(len(label), True)),
                (TRUE_POSITIVE, positive),
                (FALSE_POSITIVE, ~positive),
            ):
                found[f"{rate}/{name}"] = int((selected & among).sum()), int(among.sum())
        return found

    return rates


LARGER_IS_WORSE = re.compile(
    r"(log_loss|nll|brier|.*calibration_error|.*ECE|.*error|dAP_.*|false_positive_rate)(/.*)?$", re.I
)
"""Names of figures of which the largest is the worst."""


def larger_is_worse(figure: str) -> bool:
    """Whether the group with the largest value of this figure is the worst off."""
    return LARGER_IS_WORSE.match(figure) is not None
