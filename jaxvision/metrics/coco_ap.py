"""COCO's average precision and recall. The only module that knows the evaluator, hotcoco; it equals pycocotools.

Categories, images and annotations are numbered from 1, as pycocotools needs it: it takes a match to annotation 0 for none.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxvision.masks.runs import Runs
from jaxvision.metrics.tables import Annotated, Detected, Tables

THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())
"""IoU thresholds that AP is averaged over."""
AREAS = ("", "_small", "_medium", "_large")
"""Suffixes for objects of all sizes; below 32² square pixels; up to 96²; above."""
MOST = (1, 10, 100)
"""Most detections of a class in an image that count."""


class Curves(NamedTuple):
    """Precision and recall of every class; -1 where it has no object of that size.

    Axes: IoU threshold, (recall,) class, size, most detections.
    """

    precision: Float[np.ndarray, "10 101 k 4 3"]
    """Precision at recall 0, 0.01, ..., 1."""
    recall: Float[np.ndarray, "10 k 4 3"]
    """Recall of all detections."""


def curves(found: Tables) -> Curves:
    """Matches detections with objects at ten thresholds, and follows precision from one detection to the next."""
    import hotcoco

    detected, annotated = found.detected, found.annotated
    truth = hotcoco.COCO.from_arrays(
        [{"id": i, "width": 0, "height": 0} for i in range(1, found.images + 1)],
        [{"id": c, "name": str(c)} for c in range(1, found.classes + 1)],
        annotated.image + 1,
        annotated.label + 1,
        _corner(annotated.box),
        area=annotated.area,
        iscrowd=annotated.ignore,
    )
    columns = (detected.image + 1, _corner(detected.box), detected.score, detected.label + 1)
    evaluation = hotcoco.COCOeval(truth, truth.load_res(np.column_stack(columns)), "bbox")
    evaluation.evaluate()
    return _accumulated(evaluation)


MasksOf = Callable[[int], tuple[Sequence[Runs], Sequence[Runs]]]
"""Masks of an image by its number in the tables: those of its detections and of its objects, in the order of the tables."""


IMAGES_AT_ONCE = 64
"""Images whose masks are matched together, by all threads."""


def mask_curves(found: Tables, masks: MasksOf) -> Curves:
    """Precision and recall of every class by masks, matched some images at a time, so that memory holds the matches alone."""
    import hotcoco

    categories = [{"id": c, "name": str(c)} for c in range(1, found.classes + 1)]
    streamed = hotcoco.StreamingEval(categories, "segm")
    for first in range(0, found.images, IMAGES_AT_ONCE):
        last = min(first + IMAGES_AT_ONCE, found.images)
        results, objects = (list(chain(*each)) for each in zip(*map(masks, range(first, last)), strict=True))
        images = [{"id": i + 1, "width": 0, "height": 0} for i in range(first, last)]
        truth = _objects(found.annotated, first, last, objects)
        streamed.update(images, truth, _results(found.detected, first, last, results))
    return _accumulated(streamed.finalize())


def _results(of: Detected, first: int, last: int, masks: Sequence[Runs]) -> list[dict[str, Any]]:
    """What COCO has of the detections of some images; no box, so that their areas are those of the masks."""
    rows = slice(*np.searchsorted(of.image, (first, last)))
    columns = (of.image[rows] + 1, of.label[rows] + 1, of.score[rows])
    return [
        {"image_id": i, "category_id": c, "segmentation": {"size": mask.size, "counts": mask.counts}, "score": score}
        for i, c, score, mask in zip(*(column.tolist() for column in columns), masks, strict=True)
    ]


def _objects(of: Annotated, first: int, last: int, masks: Sequence[Runs]) -> list[dict[str, Any]]:
    """What COCO has of the objects of some images."""
    start, end = np.searchsorted(of.image, (first, last)).tolist()
    rows = slice(start, end)
    columns = (of.image[rows] + 1, of.label[rows] + 1, of.area[rows], of.ignore[rows].astype(int))
    ids = range(start + 1, end + 1)
    return [
        {
            "id": number,
            "image_id": i,
            "category_id": c,
            "segmentation": {"size": mask.size, "counts": mask.counts},
            "area": area,
            "iscrowd": crowd,
        }
        for number, i, c, area, crowd, mask in zip(ids, *(column.tolist() for column in columns), masks, strict=True)
    ]


def _accumulated(evaluation: Any) -> Curves:
    evaluation.accumulate()
    result = evaluation.eval
    assert result is not None
    return Curves(np.asarray(result["precision"]), np.asarray(result["recall"]))


def _corner(box: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """Boxes as `x0 y0 w h`."""
    return np.concatenate([box[:, :2], box[:, 2:] - box[:, :2]], 1)


def summary(of: Curves) -> dict[str, float]:
    """COCO's twelve metrics by plain names; NaN where there is no object of that size."""
    precision, recall = of.precision[..., -1], of.recall
    found = {
        "AP": _mean(precision[..., 0]),
        "AP50": _mean(precision[THRESHOLDS.index(0.5), ..., 0]),
        "AP75": _mean(precision[THRESHOLDS.index(0.75), ..., 0]),
    }
    found |= {f"AP{size}": _mean(precision[..., i]) for i, size in enumerate(AREAS) if size}
    found |= {f"AR{most}": _mean(recall[..., 0, i]) for i, most in enumerate(MOST)}
    return found | {f"AR{size}": _mean(recall[..., i, -1]) for i, size in enumerate(AREAS) if size}


def class_ap(of: Curves) -> Float[np.ndarray, "k"]:
    """AP of each class; NaN for one without objects."""
    return np.array([_mean(of.precision[:, :, k, 0, -1]) for k in range(of.precision.shape[2])])


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")
