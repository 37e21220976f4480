"""Metrics of instance segmentation."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxvision.masks import packing, runs
from jaxvision.metrics import coco_ap, detection, file_masks
from jaxvision.metrics.classification import FEW_CLASSES, class_names
from jaxvision.metrics.file_masks import Readable
from jaxvision.metrics.matching import LEAST_IOU, Pairs
from jaxvision.metrics.tables import TRUE_COLUMNS, Tables, tables
from jaxvision.types import Batch, Detections, Metric, PackedMasks, Rows


def instances(
    classes: Sequence[str] | int,
    truth: Callable[[], Readable] | None = None,
    *,
    score: float = 0.5,
    per_class: bool | None = None,
    errors: bool = True,
) -> Metric:
    """Average precision and recall of boxes and of masks as COCO defines them.

    The prediction is Detections with masks, the target Objects; as for `metrics.detection`, the content of the canvas must
    show the whole image. All is measured in pixels of the image files. The rows: those of `metrics.detection`, where
    `true_objects` (n x 7 float64: box, label, whether to ignore, area) is in the place of the columns of the objects; `masks`
    and `true_masks`, the run lengths of the detections and of the objects (`masks.packing`).

    The metrics: those of `metrics.detection`, of boxes; mask_AP, mask_AP50, mask_AP75, mask_AP_small, ..., mask_AR_large and
    mask_AP/<class>: the same of masks. They are those of pycocotools for results without boxes (through `metrics.coco_ap`),
    so that the size of a detection is the area of its mask.

    Args:
      classes: names of the labels, or how many there are.
      truth: opens the source that the stream is of: its annotations are then the ground truth, whole, whatever the canvas and
        the rows of the target have room for. None: the target, its masks put back to the file, is.
      score: for precision, recall and F1 of boxes.
      per_class: as in `metrics.detection`.
      errors: as in `metrics.detection`.

    Raises:
      ValueError: where `metrics.detection` does; for a source without masks, or with masks of another size than the image.
      TypeError: in `observe`, for a prediction or target of another type, or without masks.
    """
    names = class_names(classes)
    named = len(names) <= FEW_CLASSES if per_class is None else per_class
    of_boxes = detection.detection(classes, score=score, per_class=per_class, errors=errors)
    source = None if truth is None else cache(truth)

    def observe(found: Detections, batch: Batch) -> Rows:
        return _observe(found, batch, from_target=truth is None)

    def condense(rows: Rows) -> Mapping[str, np.ndarray]:
        return _condense(rows, None if source is None else source())

    def compute(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        found = tables(rows, len(names))
        curves = coco_ap.mask_curves(found, masks_of(rows, found))
        metrics = of_boxes.compute(rows) | {f"mask_{name}": value for name, value in coco_ap.summary(curves).items()}
        if named:
            each = zip(names, coco_ap.class_ap(curves), strict=True)
            metrics |= {f"mask_AP/{name}": float(value) for name, value in each}
        return metrics

    return Metric(observe, compute, names, condense)


def masks_of(rows: Mapping[str, np.ndarray], found: Tables) -> coco_ap.MasksOf:
    """The masks of each image in the order of its tables, which `metrics.tables.tables` made of these rows."""
    first = np.searchsorted(found.detected.image, np.arange(found.images + 1)).tolist()
    number = np.cumsum(rows["detected"], axis=1) - 1
    numbers = number[found.detected.image, found.detected.place].tolist()

    def of(image: int) -> tuple[list[runs.Runs], list[runs.Runs]]:
        size = file_masks.original_size(rows, image)
        detected, annotated = (packing.unpack(rows[name][image], size) for name in ("masks", "true_masks"))
        return [detected[n] for n in numbers[first[image] : first[image + 1]]], annotated

    return of


def mask_pairs(found: Tables, masks: coco_ap.MasksOf, least: float = LEAST_IOU) -> Pairs:
    """Pairs of detections and objects, as `matching.pairs` has them by boxes, whose masks have this IoU at least."""
    columns: tuple[list[np.ndarray], ...] = ([], [], [])
    detections, objects = (
        np.searchsorted(of.image, np.arange(found.images + 1)) for of in (found.detected, found.annotated)
    )
    for image in range(found.images):
        detected, annotated = masks(image)
        crowd = found.annotated.ignore[objects[image] : objects[image + 1]]
        iou = runs.iou(detected, annotated, crowd.tolist())
        rows, numbers = np.nonzero(iou >= least)
        for column, values in zip(
            columns, (rows + detections[image], numbers + objects[image], iou[rows, numbers]), strict=True
        ):
            column.append(values)
    detection, object, iou = (np.concatenate([*column]) for column in columns)
    return Pairs(detection, object, iou, iou)


def _observe(found: Detections, batch: Batch, from_target: bool) -> Rows:
    rows = dict(detection.observe(found, batch))
    if found.masks is None:
        raise TypeError(
            "the metric of instances needs detections with masks; these have none (metrics.detection needs none)"
        )
    size: Any = batch.size
    rows |= {"masks": found.masks, "size": size, "window": batch.window}
    if not from_target:
        return {name: column for name, column in rows.items() if name not in (*TRUE_COLUMNS, "annotated")}
    target = batch.target
    if target.masks is None:
        raise TypeError(
            "the metric of instances needs targets with masks, such as those of target.objects(rows, masks='bits'), or the "
            "source itself: instances(classes, truth=source)"
        )
    if target.area is None:
        rows["area"] = jnp.full_like(rows["area"], jnp.nan)
    masks = target.masks
    return {
        **rows,
        "true_masks": PackedMasks(jnp.packbits(masks, axis=-1), masks.shape[-1]) if _is_plain(masks) else masks,
    }


def _is_plain(masks: Any) -> bool:
    """Whether masks are bool arrays, of which bits are an eighth."""
    return hasattr(masks, "shape")


def _condense(rows: Rows, source: Readable | None) -> Mapping[str, np.ndarray]:
    kept = ("index", "boxes", "labels", "scores", "detected", "original_size")
    columns = {name: np.asarray(rows[name]) for name in kept}
    numbers = range(len(columns["index"]))
    columns["masks"] = file_masks.column([packing.pack(file_masks.predicted(rows, row)) for row in numbers])
    true = [_truth_of_target(rows, row) if source is None else truth_of_source(rows, row, source) for row in numbers]
    objects, masks = zip(*true, strict=True)
    return {**columns, "true_objects": file_masks.column(objects), "true_masks": file_masks.column(masks)}


def _truth_of_target(rows: Rows, row: int) -> tuple[bytes, bytes]:
    chosen = np.flatnonzero(rows["annotated"][row])
    masks = list(file_masks.true(rows, row))
    area = np.array(rows["area"][row][chosen], np.float64)
    for place in np.flatnonzero(np.isnan(area)):
        area[place] = runs.area(masks[place])
    boxes, labels, ignore = (rows[name][row][chosen] for name in ("true_boxes", "true_labels", "ignore"))
    return _table(boxes, labels, ignore, area), packing.pack(masks)


def truth_of_source(rows: Rows, row: int, source: Readable) -> tuple[bytes, bytes]:
    """The values of `true_objects` and `true_masks` of an example, as the source has it annotated.

    Raises:
      ValueError: for a source without masks, or with masks of another size than the image.
    """
    objects, masks = file_masks.annotated(source, int(rows["index"][row]), file_masks.original_size(rows, row))
    return _table(objects.boxes, objects.labels, objects.ignore, objects.area), packing.pack(masks)


def _table(boxes: np.ndarray, labels: np.ndarray, ignore: np.ndarray, area: np.ndarray) -> bytes:
    """The objects of one image, for `true_objects`."""
    return np.column_stack([np.asarray(boxes).reshape(-1, 4), labels, ignore, area]).astype(np.float64).tobytes()
