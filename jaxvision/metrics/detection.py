"""Metrics of object detection."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxvision.metrics import coco_ap, detection_errors
from jaxvision.metrics.classification import FEW_CLASSES, class_names
from jaxvision.metrics.matching import pairs, precision_recall_f1
from jaxvision.metrics.tables import tables
from jaxvision.metrics.voc_ap import voc_ap
from jaxvision.ops import boxes
from jaxvision.types import Batch, Detections, Metric, Objects, Rows


def detection(
    classes: Sequence[str] | int,
    *,
    score: float = 0.5,
    per_class: bool | None = None,
    voc: bool = False,
    errors: bool = True,
) -> Metric:
    """Average precision and recall of a detector as COCO defines them, and what its errors cost.

    The prediction is Detections, the target Objects, both on the canvas, whose content must show the whole image (as
    `letterbox`, `stretch` and `keep` have it). The rows, in pixels of the image files, cut at their border: `boxes`,
    `labels`, `scores` and `detected` (which are valid) of the detections; `true_boxes`, `true_labels`, `annotated`, `ignore`
    and `area` of the objects; `original_size`. Objects have the area that was annotated, or that of their box. Those to
    ignore are crowds: they need not be found, and detections that lie in them don't count.

    The metrics, NaN where there is nothing to measure them on:
      AP, AP50, AP75: mean average precision over ten IoU thresholds from 0.5 to 0.95, at 0.5 and at 0.75.
      AP_small, AP_medium, AP_large: AP of objects with less than 32² square pixels, up to 96², and more.
      AR1, AR10, AR100: mean recall with that many detections of a class in an image at most (all other metrics: 100).
      AR_small, AR_medium, AR_large: AR100 of those sizes.
      precision, recall, f1: of the detections with a score of `score` at least, at IoU 0.5, all classes together.
      dAP_classification, dAP_localisation, dAP_both, dAP_duplicate, dAP_background, dAP_missed: how much AP50 would rise if
        that kind of error alone were put right (`metrics.detection_errors`); with `errors`.
      AP_voc07, AP_voc12: VOC's, with 11 points and by area (`metrics.voc_ap`), where those to ignore are the difficult ones;
        with `voc`.
      AP/<class>, and AP_voc07/<class>, AP_voc12/<class>: for every class of `classes`, where there are at most 20 of them, or
        `per_class=True`.

    Equal scores go by the order of the rows. AP and AR are those of pycocotools (through `metrics.coco_ap`).

    Raises:
      ValueError: no class; in `compute`, no rows, a label that is no class, or a box or score that is not finite.
      TypeError: in `observe`, a prediction other than Detections, or a target other than Objects.
    """
    names = class_names(classes)
    named = len(names) <= FEW_CLASSES if per_class is None else per_class

    def compute(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        found = tables(rows, len(names))
        near, curves = pairs(found), coco_ap.curves(found)
        of_classes = {"AP": coco_ap.class_ap(curves)}
        metrics = coco_ap.summary(curves) | precision_recall_f1(found, near, score)
        if errors:
            metrics |= {f"dAP_{kind}": cost for kind, cost in detection_errors.costs(found, near).items()}
        if voc:
            of_classes["AP_voc07"], of_classes["AP_voc12"] = voc_ap(found, near)
            metrics |= {name: _mean(of_classes[name]) for name in ("AP_voc07", "AP_voc12")}
        if named:
            for metric, values in of_classes.items():
                metrics |= {f"{metric}/{name}": float(v) for name, v in zip(names, values, strict=True)}
        return metrics

    return Metric(observe, compute, names)


def observe(found: Detections, batch: Batch) -> Rows:
    """Detections and objects in pixels of the image files, rows of fixed shape."""
    if not isinstance(found, Detections):
        raise TypeError(f"the detection metric needs predictions to be Detections, got {type(found).__name__}")
    target = batch.target
    if not isinstance(target, Objects):
        raise TypeError(f"the detection metric needs batch.target to be Objects, got {type(target).__name__}")
    true_boxes = in_file(target.boxes, batch)
    return {
        "boxes": in_file(found.boxes, batch),
        "labels": found.labels,
        "scores": found.scores.astype(_precise(found.scores)),
        "detected": found.valid,
        "true_boxes": true_boxes,
        "true_labels": target.labels,
        "annotated": target.valid,
        "ignore": target.ignore,
        "area": boxes.area(true_boxes) if target.area is None else jnp.asarray(target.area),
        "original_size": batch.original_size,
    }


def in_file(of: Float[Array, "b n 4"], batch: Batch) -> Float[Array, "b n 4"]:
    """Boxes on the canvas in pixels of the image files, cut at their border."""
    dtype = _precise(of)
    file, content = (jnp.asarray(size)[:, ::-1].astype(dtype) for size in (batch.original_size, batch.size))
    corner, end = jnp.zeros_like(file), file
    if batch.window is not None:
        corner, end = jnp.split(jnp.asarray(batch.window).astype(dtype), 2, -1)
    scale, shift, border = (jnp.tile(each, 2)[:, None] for each in ((end - corner) / content, corner, file))
    return jnp.clip(jnp.asarray(of).astype(dtype) * scale + shift, 0, border)


def _precise(of: Array) -> jnp.dtype:
    """The dtype of an array, float32 at least."""
    return jnp.dtype(jnp.float64 if of.dtype == jnp.float64 else jnp.float32)


def _mean(values: Float[np.ndarray, "k"]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
