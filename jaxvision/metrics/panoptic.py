"""Metrics of panoptic segmentation."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxvision.errors import amount
from jaxvision.masks import runs
from jaxvision.masks.panoptic import VOID, PanopticMap, merge
from jaxvision.metrics import file_masks
from jaxvision.metrics.classification import FEW_CLASSES, class_names
from jaxvision.metrics.file_masks import Readable
from jaxvision.metrics.panoptic_maps import packed
from jaxvision.types import Batch, Detections, MapMasks, Metric, Objects, PackedMasks, Rows

MATCH = 0.5
"""IoU above which two segments of a class match: of each, one at most."""


class TrueMap(NamedTuple):
    """The ground truth of one image file."""

    ids: Int[np.ndarray, "h w"]
    """The segment of each pixel, from 1; VOID where there is none."""
    labels: Int[np.ndarray, "n"]
    """Classes of segments 1, 2, ..."""
    crowd: np.ndarray
    """Bool `n`: groups that are not told apart."""


def panoptic(
    classes: Sequence[str] | int,
    things: Sequence[bool],
    truth: Callable[[], Readable] | None = None,
    *,
    threshold: float = 0.85,
    smallest: int = 4,
    per_class: bool | None = None,
) -> Metric:
    """Panoptic, segmentation and recognition quality of things and stuff (arXiv:1801.00868).

    The prediction is Detections with masks of the canvas, things and stuff, of which `masks.panoptic.merge` makes one map of
    the image file; the target Objects with masks, one for each segment: pixels of none are void, and objects to ignore are
    crowds. The rows, of each class: `iou` (float64, summed over the segments that match) and `counts` (int32: true
    positives, false positives, false negatives); and `maps`, both maps small for pictures (`metrics.panoptic_maps`).

    A predicted segment matches the true one of its class with an IoU above 0.5, its pixels in void left out. A crowd need not
    be found. A predicted segment of which more than half is void or crowd of its class is no false positive. So has it
    COCO's panopticapi, which of several crowds of a class in an image knows the last alone; here all of them count.

    The metrics, NaN where no class has a segment, true or predicted; means over the classes that have:
      PQ, SQ, RQ: SQ is the mean IoU of the matches (0 where there are none), RQ their F1, PQ the product.
      PQ_things, SQ_things, RQ_things, PQ_stuff, SQ_stuff, RQ_stuff: of these classes.
      PQ/<class>, SQ/<class>, RQ/<class>: where there are at most 20 classes, or `per_class=True`.

    Args:
      classes: names of the labels, or how many there are.
      things: whether each class is of things; else of stuff.
      truth: opens the source that the stream is of, whose annotations are then the ground truth; None: the target is.
      threshold: as in `masks.panoptic.merge`.
      smallest: as in `masks.panoptic.merge`.
      per_class: see above.

    Raises:
      ValueError: no class, or not as many `things`; in `compute`, no rows; a label that is no class.
      TypeError: in `observe`, for a prediction or target of another type, or without such masks.
    """
    names = class_names(classes)
    if len(things) != len(names):
        raise ValueError(
            f"panoptic has {amount(len(names), 'class')}, but says of {len(things)} whether they are things"
        )
    named = len(names) <= FEW_CLASSES if per_class is None else per_class
    source = None if truth is None else cache(truth)

    def observe(found: Detections, batch: Batch) -> Rows:
        return _observe(found, batch, from_target=truth is None)

    def condense(rows: Rows) -> Mapping[str, np.ndarray]:
        each, maps = [], np.empty(len(rows["index"]), object)
        for row in range(len(maps)):
            found = predicted_map(rows, row, things, threshold, smallest)
            true = _of_target(rows, row) if source is None else _of_source(rows, row, source())
            each.append(quality(found, true, len(names)))
            maps[row] = packed(found, *true)
        iou, counts = zip(*each, strict=True)
        return {"index": np.asarray(rows["index"]), "iou": np.stack(iou), "counts": np.stack(counts), "maps": maps}

    def compute(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        if not len(rows["iou"]):
            raise ValueError("no examples to compute metrics of: the rows are empty")
        each = qualities(rows["iou"].sum(0), rows["counts"].sum(0, dtype=np.int64))
        thing = np.array(things, bool)
        groups = {"": np.ones_like(thing), "_things": thing, "_stuff": ~thing}
        metrics = {f"{q}{group}": _mean(of[which]) for group, which in groups.items() for q, of in each.items()}
        if named:
            metrics |= {f"{q}/{n}": float(v) for q, of in each.items() for n, v in zip(names, of, strict=True)}
        return metrics

    return Metric(observe, compute, names, condense)


def quality(found: PanopticMap, true: TrueMap, k: int) -> tuple[Float[np.ndarray, "k"], Int[np.ndarray, "k 3"]]:
    """The sum of the IoUs of the matches of each class in one image; true positives, false positives, false negatives.

    Raises:
      ValueError: for a label that is none of `k` classes.
    """
    label = np.array([VOID, *(segment.label for segment in found.segments)], np.int64)
    true_label, crowd = np.append(0, true.labels).astype(np.int64), np.append(True, true.crowd)
    for what, each in (("the prediction", label[1:]), ("the ground truth", true_label[1:])):
        if len(each) and not 0 <= each.min() <= each.max() < k:
            raise ValueError(f"{what} has labels from {each.min()} to {each.max()}; allowed are 0 to {k - 1}")
    pair = true.ids.astype(np.int64) * len(label) + found.ids
    shared = np.bincount(pair.reshape(-1), minlength=len(true_label) * len(label)).reshape(len(true_label), len(label))
    area, true_area = shared.sum(0), shared.sum(1)
    union = true_area[:, None] + area[None] - shared - shared[VOID][None]
    same = true_label[:, None] == label[None]
    iou = np.where(same & ~crowd[:, None], shared / np.maximum(union, 1), 0)
    iou[:, VOID] = 0
    matched, by = np.nonzero(iou > MATCH)
    missed = ~crowd & (true_area > 0)
    missed[matched] = False
    left_out = shared[VOID] + (shared * (same & crowd[:, None]))[1:].sum(0)
    wrong = (area > 0) & (left_out <= area / 2)
    wrong[by], wrong[VOID] = False, False
    count = lambda labels: np.bincount(labels, minlength=k)
    counts = np.stack([count(label[by]), count(label[wrong]), count(true_label[missed])], 1)
    return np.bincount(label[by], iou[matched, by], minlength=k), counts.astype(np.int32)


def qualities(iou: Float[np.ndarray, "k"], counts: Int[np.ndarray, "k 3"]) -> dict[str, Float[np.ndarray, "k"]]:
    """PQ, SQ and RQ of each class from sums over all images; NaN for a class without a segment, true or predicted."""
    right, wrong, missed = counts.T.astype(np.float64)
    all = right + (wrong + missed) / 2
    over = lambda part, whole: np.where(all > 0, part / np.maximum(whole, 0.5), np.nan)
    return {"PQ": over(iou, all), "SQ": over(iou, np.maximum(right, 1)), "RQ": over(right, all)}


def _mean(values: Float[np.ndarray, "k"]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def predicted_map(rows: Rows, row: int, things: Sequence[bool], threshold: float, smallest: int) -> PanopticMap:
    """The merged map of the image of this row."""
    valid = np.flatnonzero(rows["detected"][row])
    masks: MapMasks = jax.tree.map(lambda column: column[row][valid], rows["masks"])
    canvas, labels, scores = file_masks.canvas_of(rows, row), rows["labels"][row][valid], rows["scores"][row][valid]
    return merge(labels, scores, masks, canvas, things=things, threshold=threshold, smallest=smallest)


def painted(masks: Sequence[runs.Runs], labels: np.ndarray, crowd: np.ndarray, size: tuple[int, int]) -> TrueMap:
    """The true map of an image file of this size from the masks of its segments; where two overlap, the later one counts."""
    ids = np.zeros(size, np.int32)
    for number, mask in enumerate(masks, 1):
        ids[runs.decode(mask)] = number
    return TrueMap(ids, np.asarray(labels), np.asarray(crowd, bool))


def _observe(found: Detections, batch: Batch, from_target: bool) -> Rows:
    if not isinstance(found, Detections) or not isinstance(found.masks, MapMasks):
        what = f"{type(found).__name__} with masks {type(getattr(found, 'masks', None)).__name__}"
        raise TypeError(f"the panoptic metric needs predictions to be Detections with MapMasks, got {what}")
    size: Any = batch.size
    rows: dict[str, Any] = {
        "labels": found.labels,
        "scores": found.scores,
        "detected": found.valid,
        "masks": found.masks,
    }
    rows |= {"size": size, "original_size": batch.original_size, "window": batch.window}
    if not from_target:
        return rows
    target = batch.target
    if not isinstance(target, Objects) or target.masks is None:
        raise TypeError(f"the panoptic metric needs targets to be Objects with masks, got {type(target).__name__}")
    masks: Any = target.masks
    bits = PackedMasks(jnp.packbits(masks, axis=-1), masks.shape[-1]) if hasattr(masks, "shape") else masks
    return {
        **rows,
        "true_labels": target.labels,
        "annotated": target.valid,
        "ignore": target.ignore,
        "true_masks": bits,
    }


def _of_target(rows: Rows, row: int) -> TrueMap:
    chosen = np.flatnonzero(rows["annotated"][row])
    labels, crowd = rows["true_labels"][row][chosen], rows["ignore"][row][chosen]
    return painted(list(file_masks.true(rows, row)), labels, crowd, file_masks.original_size(rows, row))


def _of_source(rows: Rows, row: int, source: Readable) -> TrueMap:
    size = file_masks.original_size(rows, row)
    objects, masks = file_masks.annotated(source, int(rows["index"][row]), size)
    return painted(masks, objects.labels, objects.ignore, size)
