"""A threshold for every class: the class with the largest probability / threshold is predicted.

Thresholds are above 0 and sum to 1; only their ratios count. Equal ones are the argmax; of two classes, the second is
predicted where its probability is above its threshold; the frequencies of the classes in the training data are the correction
for a prior that is uniform at test time (logit adjustment after training, arXiv:2007.07314). Probabilities are given by their
logarithms, so that none is too small to tell.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvision.errors import amount
from jaxvision.metrics.classification import (
    balanced_accuracy,
    check_rows,
    class_names,
    classification,
    decision_metrics,
)
from jaxvision.types import Batch, ClassScores, Metric, Rows

Objective = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""`(right, predictions, examples) -> metric`, from the counts of each class on the last axis: the more, the better."""
ROUNDS = 20
TINY = 1e-12
DIGITS = 9
"""Digits to which scores, in nats, are compared: beyond, they differ by rounding alone."""


def thresholded(classes: Sequence[str] | int, tuned_on: int, objective: Objective = balanced_accuracy) -> Metric:
    """Metrics with thresholds that are tuned on the first `tuned_on` examples of the stream and tested on the others.

    The stream is `concatenate(held_out, test)`, say. The rows: those of `classification`, and `log_probabilities` of every
    class. The metrics: of the examples that are tested, those of `classification` that the decision alone makes (accuracy,
    balanced accuracy, precision, recall, F1); and `threshold/<class>`, for `with_thresholds`.

    Raises:
      ValueError: where `classification` does; in `compute`, no example to tune on, or none to test on.
    """
    names = class_names(classes)
    metric = classification(classes)

    def observe(scores: ClassScores, batch: Batch) -> Rows:
        rows = metric.observe(scores, batch)
        return {**rows, "log_probabilities": jax.nn.log_softmax(scores.logits.astype(jnp.float32))}

    def compute(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        check_rows(rows, len(names))
        log_probabilities, label, held = rows["log_probabilities"], rows["label"], rows["index"] < tuned_on
        if held.all() or not held.any():
            raise ValueError(
                f"thresholded(tuned_on={tuned_on}) leaves {amount(int(held.sum()), 'example')} to tune on and "
                f"{(~held).sum()} to test on"
            )
        thresholds = tune(log_probabilities[held], label[held], objective)
        tested = {"label": label[~held], "predicted": decide(log_probabilities[~held], thresholds)}
        metrics = decision_metrics(tested, names)
        return metrics | {f"threshold/{name}": float(t) for name, t in zip(names, thresholds, strict=True)}

    return Metric(observe, compute)


def decide(log_probabilities: Float[np.ndarray, "n k"], thresholds: Float[np.ndarray, "k"]) -> Int[np.ndarray, "n"]:
    """The class with the largest probability / threshold of each row; of equal ones that with the smaller number."""
    return np.argmax(_scores(np.asarray(log_probabilities, np.float64), np.log(thresholds)), axis=-1)


def tune(
    log_probabilities: Float[np.ndarray, "n k"], label: Int[np.ndarray, "n"], objective: Objective = balanced_accuracy
) -> Float[np.ndarray, "k"]:
    """The thresholds that make the objective largest on these rows, by coordinate ascent from equal ones.

    Each class in turn gets the best of all its thresholds while those of the others stay; a threshold moves only where that
    is better, to the nearest that is as good, until none moves (or for 20 rounds). Of two classes the result is the best
    there is; of more it may be a local one. Metrics on the same rows flatter it. Needs memory for n x k numbers.

    Raises:
      ValueError: fewer than two classes, no row, a label that is no class, or numbers that are not finite.
    """
    log_probabilities, label = np.asarray(log_probabilities, np.float64), np.asarray(label, np.int64)
    if log_probabilities.ndim != 2 or log_probabilities.shape[1] < 2 or not np.isfinite(log_probabilities).all():
        raise ValueError(f"tune needs finite rows of two classes or more, got shape {log_probabilities.shape}")
    check_rows({"label": label}, log_probabilities.shape[1])
    logs = np.zeros(log_probabilities.shape[1])
    for _ in range(ROUNDS):
        before = logs.copy()
        for k in range(len(logs)):
            logs[k] += _best_move(_scores(log_probabilities, logs), label, k, objective)
        if np.array_equal(logs, before):
            break
    thresholds = np.exp(logs - logs.max())
    return thresholds / thresholds.sum()


def _scores(log_probabilities: Float[np.ndarray, "n k"], logs: Float[np.ndarray, "k"]) -> Float[np.ndarray, "n k"]:
    return np.round(log_probabilities - logs, DIGITS)


def _best_move(scores: Float[np.ndarray, "n k"], label: Int[np.ndarray, "n"], k: int, objective: Objective) -> float:
    """How far to raise the log threshold of class k to make the objective largest; 0 where nothing makes it larger."""
    others = scores.copy()
    others[:, k] = -np.inf
    rival = np.argmax(others, axis=1)
    lead = scores[:, k] - np.max(others, axis=1)
    wins = (lead > 0) | ((lead == 0) & (rival > k))
    # In this order the first m rows, for every m, are those that class k would get of some threshold.
    first = np.lexsort((~wins, -lead))
    label, rival, lead = label[first], rival[first], lead[first]
    right = _by_row(rival, k, rival == label, label == k, scores.shape[1])
    predictions = _by_row(rival, k, np.ones_like(wins), np.ones_like(wins), scores.shape[1])
    values = objective(right, predictions, np.bincount(label, minlength=scores.shape[1]))
    above, below = np.append(lead[0] + 2, lead), np.append(lead, lead[-1] - 2)
    moves = (above + below) / 2
    better = (above - below > 2 * 10.0**-DIGITS) & (values > values[wins.sum()] + TINY)
    if not better.any():
        return 0.0
    best = better & (values >= values[better].max() - TINY)
    return float(moves[best][np.argmin(np.abs(moves[best]))])


def _by_row(
    rival: Int[np.ndarray, "n"], k: int, leaves: Bool[np.ndarray, "n"], enters: Bool[np.ndarray, "n"], classes: int
) -> Int[np.ndarray, "n+1 k"]:
    """Counts of each class when the first 0, 1, ..., n rows have gone from their rivals to class k."""
    counts = np.zeros((len(rival) + 1, classes), np.int64)
    counts[0] = np.bincount(rival[leaves], minlength=classes)
    counts[np.arange(1, len(rival) + 1), rival] = -leaves.astype(np.int64)
    counts[1:, k] = enters
    return np.cumsum(counts, axis=0)
