"""Calibrated tasks: the scores of a classifier or a detector become probabilities, by numbers that are kept with a run.

The numbers are arrays in the collection `calibration` of the variables: `{"scale", "shift"}`, each `g`, for temperatures and
Platt scaling, or `{"score", "probability"}`, each `g m`, for isotonic regression. `g` is 1, or the number of classes.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxvision.errors import amount
from jaxvision.types import (
    Batch,
    BoxMasks,
    ClassScores,
    Detections,
    Key,
    LossOutput,
    MapMasks,
    Prediction,
    PrototypeMasks,
    Scalar,
    Task,
    Variables,
)

Numbers = Mapping[str, Array | np.ndarray]
"""What a calibration is: see above."""
COLLECTION = "calibration"
TIE = 1e-5
"""How much of its own log probability a class keeps beside a constant piece of isotonic regression, so that order stays."""
SCORE_TIE = 1e-4
"""The part of its own score that a detection keeps for the same reason: of equal scores, AP would take any order."""


def scaling(groups: int = 1) -> Numbers:
    """The numbers of a temperature or of Platt scaling that change nothing, for one or all classes."""
    return {"scale": np.ones(groups, np.float32), "shift": np.zeros(groups, np.float32)}


def steps(knots: int, groups: int = 1) -> Numbers:
    """The numbers of isotonic regression that change nothing, with this many knots, for one or all classes."""
    line = np.tile(np.linspace(0, 1, knots, dtype=np.float32), (groups, 1))
    return {"score": line, "probability": line.copy()}


def calibrated(task: Task, numbers: Numbers) -> Task:
    """The task with its scores calibrated: of a classifier the logits, of a detector the scores. It is trained as it was.

    Logits become `scale * logit + shift` (temperature scaling, vector scaling: arXiv:1706.04599), or the logarithms of the
    isotonic probabilities of each class against all others, which `softmax` makes sum to 1. The logit of a detection's
    score becomes `scale * logit + shift`, or its score the isotonic probability, linear between knots and constant outside;
    the best detections then come first again.

    Args:
      task: of classification or detection, masks of objects included.
      numbers: what the collection `calibration` of fresh variables is; those of a run are in its checkpoint.

    Raises:
      ValueError: for numbers that are no calibration; in `predict`, of another number of classes.
      TypeError: in `predict`, for predictions of another kind.
    """
    check(numbers)

    def init(key: Key, batch: Batch) -> Variables:
        return {**task.init(key, batch), COLLECTION: {name: jnp.asarray(each) for name, each in numbers.items()}}

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        return task.loss(_without(variables), batch, key)

    def predict(variables: Variables, batch: Batch) -> Prediction:
        return apply(variables[COLLECTION], task.predict(_without(variables), batch))

    return Task(init, loss, predict)


def check(numbers: Numbers) -> None:
    """Raises ValueError for numbers that are no calibration."""
    shapes = {name: np.shape(each) for name, each in numbers.items()}
    axes = {frozenset({"scale", "shift"}): 1, frozenset({"score", "probability"}): 2}.get(frozenset(shapes))
    if (
        axes is None
        or len(set(shapes.values())) != 1
        or any(len(shape) != axes or 0 in shape for shape in shapes.values())
    ):
        raise ValueError(
            f"a calibration has scale and shift of shape (g,), or score and probability of shape (g, m); got {shapes}"
        )


def apply(numbers: Numbers, prediction: Prediction) -> Prediction:
    """The prediction, calibrated. Raises TypeError for one that is neither ClassScores nor Detections."""
    if isinstance(prediction, ClassScores):
        return prediction.replace(logits=_logits(numbers, prediction.logits))
    if isinstance(prediction, Detections):
        scores = jnp.where(prediction.valid, _scores(numbers, prediction.scores, prediction.labels), prediction.scores)
        return _best_first(prediction.replace(scores=scores))
    raise TypeError(f"calibrated needs predictions to be ClassScores or Detections, got {type(prediction).__name__}")


def _logits(numbers: Numbers, logits: Float[Array, "b k"]) -> Float[Array, "b k"]:
    of = {name: jnp.asarray(each).astype(logits.dtype) for name, each in numbers.items()}
    _check_groups(next(iter(of.values())).shape[0], logits.shape[-1])
    if "scale" in of:
        return of["scale"][None] * logits + of["shift"][None]
    logs = jax.nn.log_softmax(logits)
    x, y = (jnp.broadcast_to(of[name], (logits.shape[-1], of[name].shape[1])) for name in ("score", "probability"))
    p = jax.vmap(jnp.interp, (1, 0, 0), 1)(jnp.exp(logs), x, y)
    least = jnp.finfo(logits.dtype).tiny
    return jnp.log(jnp.maximum(p, least)) + jnp.asarray(TIE, logits.dtype) * logs


def _scores(numbers: Numbers, scores: Float[Array, "b n"], labels: Int[Array, "b n"]) -> Float[Array, "b n"]:
    of = {name: jnp.asarray(each).astype(scores.dtype) for name, each in numbers.items()}
    groups = next(iter(of.values())).shape[0]
    group = jnp.zeros_like(labels) if groups == 1 else labels
    if "scale" in of:
        edge = jnp.finfo(scores.dtype).eps
        inside = jnp.clip(scores, edge, 1 - edge)
        odds = jnp.log(inside) - jnp.log1p(-inside)
        return jax.nn.sigmoid(of["scale"][group] * odds + of["shift"][group])
    each = jax.vmap(lambda x, y: jnp.interp(scores, x, y))(of["score"], of["probability"])
    found = jnp.take_along_axis(each, group[None], 0)[0]
    return found + jnp.asarray(SCORE_TIE, scores.dtype) * (scores - found)


def _best_first(found: Detections) -> Detections:
    """The detections of each image in the order of their scores, those that are not valid last; equal ones as they were."""
    order = jnp.argsort(jnp.where(found.valid, -found.scores, jnp.inf), axis=1, stable=True)
    moved = lambda x: jax.vmap(lambda row, places: row[places])(x, order)
    masks = found.masks
    if isinstance(masks, BoxMasks):
        masks = masks.replace(probabilities=moved(masks.probabilities), boxes=moved(masks.boxes))
    elif isinstance(masks, PrototypeMasks):
        masks = masks.replace(coefficients=moved(masks.coefficients), boxes=moved(masks.boxes))
    elif isinstance(masks, MapMasks):
        masks = masks.replace(logits=moved(masks.logits))
    rest = jax.tree.map(moved, found.replace(masks=None))
    return rest.replace(masks=masks)


def _check_groups(groups: int, classes: int) -> None:
    if groups not in (1, classes):
        raise ValueError(f"the calibration is of {amount(groups, 'class')}, the logits of {classes}")


def _without(variables: Variables) -> Variables:
    return {name: value for name, value in variables.items() if name != COLLECTION}
