"""Metrics of calibration: how far the scores of a classifier or a detector are from being probabilities."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvision.metrics import calibration, detection
from jaxvision.metrics.classification import FEW_CLASSES, check_rows, class_names, labels_of
from jaxvision.metrics.matching import IOU, matches, pairs, verdict
from jaxvision.metrics.tables import Tables, tables
from jaxvision.types import Batch, ClassScores, Metric, Rows

DETECTION_BINS = 25
"""Bins of D-ECE and LaECE, as in arXiv:2405.20459."""


def classifier_calibration(
    classes: Sequence[str] | int, *, bins: int = calibration.BINS, per_class: bool | None = None
) -> Metric:
    """Calibration errors and proper scores of a classifier.

    The rows: `label` (int32), `log_probabilities` of every class (float32 at least).

    The metrics:
      ECE: expected calibration error of the class predicted, `bins` bins of equal width (arXiv:1706.04599, equation 3).
      ECE_equal_mass: the same with bins of as many examples each (arXiv:1904.01685).
      ECE_classwise: mean over the classes of the ECE of that class's probability, equal width (arXiv:1910.12656).
      brier: mean over examples of the sum over classes of (probability - label)², from 0 to 2 (Brier, 1950).
      log_loss: mean of -log probability of the true class, in nats.
      ECE/<class>: for every class of `classes`, where there are at most 20 of them, or `per_class=True`.

    Raises:
      ValueError: no class, `bins` below 1; in `compute`, no rows, or a label that is no class.
      TypeError: in `observe`, a target other than Labels.
    """
    names = class_names(classes)
    _check_bins("classifier_calibration", bins)
    named = len(names) <= FEW_CLASSES if per_class is None else per_class

    def observe(scores: ClassScores, batch: Batch) -> Rows:
        return {"label": labels_of(batch), "log_probabilities": log_probabilities(scores)}

    def compute(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        check_rows(rows, len(names))
        logs, label = np.asarray(rows["log_probabilities"], np.float64), np.asarray(rows["label"])
        p, true = np.exp(logs), label[:, None] == np.arange(len(names))
        confidence, right = p.max(1), p.argmax(1) == label
        each = [calibration.error(p[:, k], true[:, k], bins) for k in range(len(names))]
        metrics = {
            "ECE": calibration.error(confidence, right, bins),
            "ECE_equal_mass": calibration.error(confidence, right, bins, equal_mass=True),
            "ECE_classwise": float(np.mean(each)),
            "brier": float(np.mean(np.sum((p - true) ** 2, 1))),
            "log_loss": -float(np.mean(logs[true])),
        }
        return metrics | ({f"ECE/{name}": v for name, v in zip(names, each, strict=True)} if named else {})

    return Metric(observe, compute)


def log_probabilities(scores: ClassScores) -> Float[jax.Array, "b k"]:
    """Logarithms of the probabilities of all classes, in float32 at least."""
    dtype = jnp.float64 if scores.logits.dtype == jnp.float64 else jnp.float32
    return jax.nn.log_softmax(scores.logits.astype(dtype))


def detector_calibration(classes: Sequence[str] | int, *, bins: int = DETECTION_BINS, iou: float = IOU) -> Metric:
    """Calibration errors of a detector, from the rows of `metrics.detection`.

    Detections in objects to ignore don't count. The metrics, NaN where there is nothing to measure them on:
      D_ECE: distance of the mean score of a bin from its precision at IoU `iou`, mean over the detections of all classes
        (arXiv:2004.13546, of the score alone).
      LaECE: the same for each class with its objects, but from the mean IoU with the object found, 0 for none; mean over
        the classes that have objects and detections (LaECE_0 of arXiv:2405.20459: any free object of the class can be found,
        whatever the IoU).
      LaACE: the mean over the same classes of the mean distance of a score from its IoU, without bins.

    Raises:
      ValueError: no class, `bins` below 1, `iou` not from 0 to 1; in `compute`, as `metrics.detection`.
      TypeError: in `observe`, as `metrics.detection`.
    """
    names = class_names(classes)
    _check_bins("detector_calibration", bins)
    if not 0 <= iou <= 1:
        raise ValueError(f"detector_calibration: iou is {iou}; allowed is 0 to 1")

    def compute(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        found = tables(rows, len(names))
        strict, loose = judged(found, iou), judged(found, 0.0)
        known = np.unique(found.annotated.label[~found.annotated.ignore])
        of_class = [(loose.score[of], loose.iou[of]) for of in (loose.label == k for k in known) if of.any()]
        return {
            "D_ECE": calibration.error(strict.score, strict.right, bins) if len(strict.score) else float("nan"),
            "LaECE": _mean([calibration.error(score, iou, bins) for score, iou in of_class]),
            "LaACE": _mean([float(np.abs(score - iou).mean()) for score, iou in of_class]),
        }

    return Metric(detection.observe, compute, names)


class Judged(NamedTuple):
    """True and false positives among detections, those in objects to ignore left out."""

    label: Int[np.ndarray, "n"]
    score: Float[np.ndarray, "n"]
    right: Bool[np.ndarray, "n"]
    iou: Float[np.ndarray, "n"]
    """IoU with the object that it found, 0 for none."""


def judged(found: Tables, threshold: float) -> Judged:
    """The detections that count, with the object that each found at this IoU at least, matched as COCO's evaluation does."""
    near = pairs(found, threshold)
    match = matches(found, near, threshold)
    right, wrong = verdict(found, match)
    iou = np.zeros(len(match))
    of_match = match[near.detection] == near.object
    iou[near.detection[of_match]] = near.iou[of_match]
    counts = right | wrong
    table = found.detected
    return Judged(table.label[counts], table.score[counts], right[counts], np.where(right, iou, 0)[counts])


def _check_bins(who: str, bins: int) -> None:
    if bins < 1:
        raise ValueError(f"{who}: bins is {bins}; it must be 1 or more")


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
