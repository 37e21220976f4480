"""Early stopping: rules for `Experiment.stop`, pure functions of the history of evaluations.

The history is in the checkpoint, so a run that is resumed stops where an uninterrupted one does.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from jaxvision.errors import closest

Metrics = Mapping[str, float]


def early(
    metric: str, patience: int, *, better: Literal["higher", "lower"], min_delta: float = 0.0
) -> Callable[[Sequence[Metrics]], bool]:
    """Ends a run after `patience` evaluations in a row without a new best (Goodfellow et al., Deep Learning, algorithm 7.1).

    The best so far is beaten by more than `min_delta` or not at all; NaN beats nothing. The run keeps the best checkpoint
    with `Keep(by=metric)`.

    Args:
      metric: name of a metric of the evaluations, `"test/accuracy"`, say.
      patience: how many evaluations.
      better: `"higher"` or `"lower"`.
      min_delta: least improvement, in units of the metric.

    Raises:
      ValueError: for a patience below 1, a negative `min_delta`, another `better`; in use, for a metric that the
        evaluations don't give.
    """
    if patience < 1 or not min_delta >= 0:
        raise ValueError(f"early: patience is {patience} and min_delta is {min_delta}; they must be >= 1 and >= 0")
    if better not in ("higher", "lower"):
        raise ValueError(f"early: better is {better!r}; allowed: 'higher', 'lower'")
    sign = 1 if better == "higher" else -1

    def stop(history: Sequence[Metrics]) -> bool:
        _check_metric(metric, history[-1])
        best, waited = -float("inf"), 0
        for row in history:
            value = sign * row[metric]
            improved = value > best + min_delta
            best, waited = (value, 0) if improved else (best, waited + 1)
        return waited >= patience

    return stop


def _check_metric(metric: str, row: Metrics) -> None:
    if metric not in row:
        names = [name for name in row if name != "step"]
        near = closest(metric, names, 3, likeness=0)
        raise ValueError(f"early: no evaluation gives {metric!r}; the nearest metrics are {', '.join(near)}")
