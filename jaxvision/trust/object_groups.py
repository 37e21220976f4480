"""Figures of a detector by group of objects: those of other groups are ignored, as COCO ignores objects of other sizes."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from jaxvision.metrics import coco_ap
from jaxvision.metrics.classification import FEW_CLASSES
from jaxvision.metrics.matching import matches, pairs
from jaxvision.metrics.tables import completed, tables
from jaxvision.trust.intervals import Estimate, bootstrap
from jaxvision.types import Metric

OUTSIDE = 1e11
"""Area of an object of another group, in square pixels: above the largest that COCO counts, 1e10."""
AREA_FIGURES = re.compile(r"(mask_)?A[PR](50|75|_small|_medium|_large|1|10|100)?(/.*)?$")
"""Names of figures that go by areas: COCO's."""


def object_figures(
    metric: Metric,
    groups: int,
    number: Int[np.ndarray, "n m"],
    rows: Mapping[str, np.ndarray],
    *,
    draws: int,
    seed: int,
    score: float,
) -> tuple[list[dict[str, Estimate]], list[int], int]:
    """The figures of each group of objects, how many objects it has, and how many are in none.

    COCO's figures, AP to AR_large, of the objects of the group: a detection that finds an object of another group counts
    neither for nor against it. One that finds none counts against every group, since it is of none: AP differs less between
    groups than what is found of them. So there is
      recall: fraction of the group's objects that a detection with a score of `score` at least finds, at IoU 0.5.
    What else the metric has (precision, dAP, VOC's AP) is of no group of objects, and left out.

    The bootstrap draws images, the same for all groups. The interval of recall is the wider of its own and Wilson's.

    Raises:
      TypeError: for rows of another metric, and for groups that are not one number for each object of the rows.
    """
    if "scores" not in rows or not ("annotated" in rows or "true_objects" in rows):
        raise TypeError("groups of objects need the rows of metrics.detection or metrics.instances")
    whole = completed(rows)
    if number.shape != whole["annotated"].shape:
        raise TypeError(
            f"groups of objects have the shape {number.shape}, the objects of the rows {whole['annotated'].shape}; "
            "allowed is one number for each object of the rows"
        )
    rows = {name: column for name, column in whole.items() if name != "true_objects"}
    real = rows["annotated"] & ~rows["ignore"].astype(bool)
    found = []
    for group in range(groups):
        part = _others_outside(rows, number == group)
        n = int((real & (number == group)).sum())
        found.append(_figures(metric, part, number == group, n, draws, seed, score) if n else {})
    counts = [int((real & (number == group)).sum()) for group in range(groups)]
    return found, counts, int((real & (number < 0)).sum())


def _others_outside(rows: Mapping[str, np.ndarray], members: Bool[np.ndarray, "n m"]) -> dict[str, np.ndarray]:
    """The rows with the objects of other groups larger than any size that COCO counts."""
    return {**rows, "area": np.where(members, np.asarray(rows["area"], np.float64), OUTSIDE)}


def _figures(
    metric: Metric,
    rows: Mapping[str, np.ndarray],
    members: Bool[np.ndarray, "n m"],
    n: int,
    draws: int,
    seed: int,
    score: float,
) -> dict[str, Estimate]:
    images, (found, objects) = len(rows["scores"]), found_objects(rows, members, score)

    def figures(chosen: Any) -> dict[str, float]:
        part = {name: column[chosen] for name, column in rows.items()}
        known = coco_figures(metric, part)
        of_images = objects[chosen].sum()
        return known | ({"recall": found[chosen].sum() / of_images} if of_images else {})

    values = figures(slice(None))
    resampled = bootstrap(figures, images, draws=draws, seed=seed) if draws and images > 1 else {}
    return {
        name: Estimate(float(value), n, name == "recall", resampled.get(name), images) for name, value in values.items()
    }


def coco_figures(metric: Metric, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The figures of a metric that are COCO's; of boxes they are computed without the metric's others, which take longer."""
    if metric.classes is None or "masks" in rows:
        return {name: value for name, value in metric.compute(rows).items() if AREA_FIGURES.match(name)}
    curves = coco_ap.curves(tables(rows, len(metric.classes)))
    classes = metric.classes if len(metric.classes) <= FEW_CLASSES else ()
    of_classes = {f"AP/{name}": float(ap) for name, ap in zip(classes, coco_ap.class_ap(curves), strict=False)}
    return coco_ap.summary(curves) | of_classes


def found_objects(
    rows: Mapping[str, np.ndarray], members: Bool[np.ndarray, "n m"], score: float
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Number of objects among the members that are found in each image, at IoU 0.5, and of all of them, crowds left out."""
    whole = completed(rows)
    of = tables(rows, 1 + int(max(whole["true_labels"].max(initial=0), whole["labels"].max(initial=0))))
    outside = ~members[whole["annotated"]]
    match = matches(of, pairs(of), outside=outside)
    match = match[(match >= 0) & (of.detected.score >= score)]
    counts = ~outside & ~of.annotated.ignore
    taken = np.zeros(len(outside), bool)
    taken[match] = True
    found, objects = (np.bincount(of.annotated.image[which], minlength=of.images) for which in (counts & taken, counts))
    return found, objects
