"""Fitting: the numbers of a calibration from the rows of one evaluation, in float64."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvision.errors import ConfigError, DataError, amount
from jaxvision.metrics import calibration
from jaxvision.metrics.calibration_error import judged
from jaxvision.metrics.tables import tables
from jaxvision.trust.calibrated import Numbers, scaling

Method = Literal["temperature", "platt", "isotonic"]
METHODS: tuple[Method, ...] = get_args(Method)
FEWEST = 10
"""Fewest right and wrong guesses of a class that it gets numbers of its own from; with fewer it has those of all classes."""


def check_method(method: str, per_class: bool, detector: bool) -> None:
    """Raises ConfigError for a method that is none, or that does not go with the rest."""
    if method not in METHODS:
        raise ConfigError(f"method is {method!r}; allowed: {', '.join(METHODS)}")
    if method == "platt" and not (per_class or detector):
        raise ConfigError(
            "Platt scaling of a classifier needs a scale and a shift for each class: ask for it per class"
        )


def fit(rows: Mapping[str, np.ndarray], method: Method, classes: int, *, per_class: bool = False) -> Numbers:
    """The numbers of a calibration that explain held-out rows best.

    Args:
      rows: of `metrics.calibration_error.classifier_calibration` or `detector_calibration`.
      method: `"temperature"`, `"platt"` or `"isotonic"`. The first two maximise a likelihood: of the labels of a classifier;
        of a detector that of whether each detection is right at IoU 0.5, with Platt's targets.
      classes: how many there are.
      per_class: numbers for each class: of a classifier temperatures of each logit, vector scaling, isotonic regression of
        each class against the others; of a detector those of its own detections, or of all of them where it has fewer than
        10 right or 10 wrong ones.

    Raises:
      ConfigError: for a method that is none, or Platt scaling of a classifier that is not per class.
      DataError: if there is nothing to learn from.
    """
    detector = "scores" in rows
    check_method(method, per_class, detector)
    if detector:
        return _of_detections(rows, method, classes, per_class)
    logs, label = np.asarray(rows["log_probabilities"], np.float64), np.asarray(rows["label"])
    if not len(label) or not np.isfinite(logs).any(1).all():
        raise DataError(
            f"a calibration can't be fitted to {amount(len(label), 'example')} with scores that are not finite"
        )
    if method == "isotonic":
        return _one_against_rest(np.exp(logs), label, per_class)
    return _likeliest(np.maximum(logs, np.log(np.finfo(np.float32).tiny)), label, method, per_class)


def _likeliest(logs: Float[np.ndarray, "n k"], label: Int[np.ndarray, "n"], method: Method, per_class: bool) -> Numbers:
    """Scale and shift with the greatest likelihood; the loss is convex in both."""
    from scipy.optimize import minimize

    n, k = logs.shape
    true = label[:, None] == np.arange(k)
    groups = k if per_class else 1

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        scale, shift = np.exp(x[:groups]), x[groups:] if method == "platt" else np.zeros(1)
        z = scale * logs + shift
        z = z - z.max(1, keepdims=True)
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        gap = (p - true) / n
        slope = (gap * logs).sum(0)
        slope = (slope if per_class else slope.sum(keepdims=True)) * scale
        value = float(np.mean(np.log(np.exp(z).sum(1)) - z[true]))
        return value, np.concatenate([slope, gap.sum(0)] if method == "platt" else [slope])

    widest = np.log(calibration.HOTTEST)
    bounds = [(-widest, widest)] * groups + [(-50.0, 50.0)] * (k if method == "platt" else 0)
    options: dict[str, Any] = {"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-10}
    found = minimize(loss, np.zeros(len(bounds)), jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    shift = found[groups:] if method == "platt" else np.zeros(groups)
    return {"scale": np.exp(found[:groups]).astype(np.float32), "shift": (shift - shift.mean()).astype(np.float32)}


def _one_against_rest(p: Float[np.ndarray, "n k"], label: Int[np.ndarray, "n"], per_class: bool) -> Numbers:
    true = label[:, None] == np.arange(p.shape[1])
    if not per_class:
        return _stacked([isotonic(p.ravel(), true.ravel())])
    return _stacked([isotonic(p[:, k], true[:, k]) for k in range(p.shape[1])])


def _of_detections(rows: Mapping[str, np.ndarray], method: Method, classes: int, per_class: bool) -> Numbers:
    found = judged(tables(rows, classes), 0.5)
    if not len(found.score):
        raise DataError("a calibration can't be fitted: there are no detections in the data")
    make = {"temperature": _temperature, "platt": platt, "isotonic": isotonic}[method]
    whole = make(found.score, found.right)
    pairs = [_of_class(make, found.score, found.right, found.label == k, whole) for k in range(classes)]
    pairs = pairs if per_class else [whole]
    if method == "isotonic":
        return _stacked(pairs)
    numbers = np.array(pairs, np.float32)
    return {**scaling(len(pairs)), "scale": numbers[:, 0], "shift": numbers[:, 1]}


def _of_class(make: Callable, score: np.ndarray, right: np.ndarray, of: np.ndarray, whole: Any) -> Any:
    hits = int(right[of].sum())
    return make(score[of], right[of]) if min(hits, int(of.sum()) - hits) >= FEWEST else whole


def _temperature(score: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    return 1 / calibration.temperature(score, right), 0.0


def platt(score: Float[np.ndarray, "n"], right: Bool[np.ndarray, "n"]) -> tuple[float, float]:
    """Scale, not negative, and shift of the logit of scores, by Platt's likelihood (1999) with his targets inside 0 and 1."""
    from scipy.optimize import minimize

    hits, odds = int(np.count_nonzero(right)), calibration.logit(score)
    target = np.where(right, (hits + 1) / (hits + 2), 1 / (len(right) - hits + 2))

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = x[0] * odds + x[1]
        gap = 1 / (1 + np.exp(-z)) - target
        return float(np.mean(np.logaddexp(0, z) - target * z)), np.array([np.mean(gap * odds), np.mean(gap)])

    bounds, options = [(0.0, None), (None, None)], {"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-11}
    scale, shift = minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return float(scale), float(shift)


def isotonic(
    score: Float[np.ndarray, "n"], right: Float[np.ndarray, "n"]
) -> tuple[Float[np.ndarray, "m"], Float[np.ndarray, "m"]]:
    """The knots of the non-decreasing function of the score with the least squares: both ends of each constant piece.

    By pooling adjacent violators; equal scores are one point with their mean. Between two pieces it is linear, as
    scikit-learn has it.
    """
    x, of = np.unique(np.asarray(score, np.float64), return_inverse=True)
    weight = np.bincount(of).astype(float)
    y = np.bincount(of, np.asarray(right, np.float64)) / weight
    blocks: list[list[float]] = []  # mean, weight, number of points
    for mean, mass in zip(y, weight, strict=True):
        blocks.append([mean, mass, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            value, more, points = blocks.pop()
            last = blocks[-1]
            blocks[-1] = [(last[0] * last[1] + value * more) / (last[1] + more), last[1] + more, last[2] + points]
    ends = np.cumsum([int(points) for _, _, points in blocks])
    starts = np.concatenate([[0], ends[:-1]])
    places = np.stack([starts, ends - 1], 1)
    keep = np.stack([np.ones(len(ends), bool), ends - 1 > starts], 1)
    values = np.repeat(np.array([mean for mean, _, _ in blocks])[:, None], 2, 1)
    return x[places[keep]], values[keep]


def _stacked(pieces: list[tuple[np.ndarray, np.ndarray]]) -> Numbers:
    """The knots of all groups in arrays of one width; the last knot is repeated."""
    width = max(2, *(len(x) for x, _ in pieces))
    padded = [[np.pad(each, (0, width - len(each)), "edge") for each in piece] for piece in pieces]
    x, y = (np.array([piece[i] for piece in padded], np.float32) for i in (0, 1))
    return {"score": x, "probability": y}
