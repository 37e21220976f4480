"""Metrics of semantic segmentation."""

import io
from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from PIL import Image

from jaxvision.errors import amount
from jaxvision.metrics import boundaries
from jaxvision.metrics.classification import FEW_CLASSES, class_names
from jaxvision.ops.class_map import class_map
from jaxvision.ops.pixels import inside
from jaxvision.types import Batch, Metric, PixelScores, Rows, SegmentationMap

PICTURE = 512
"""Most pixels of a side of the map that is kept of each image, for pictures."""


def segmentation(classes: Sequence[str] | int, *, boundary: bool = False, per_class: bool | None = None) -> Metric:
    """Pixel accuracy, IoU and Dice of a semantic segmenter, and how well its boundaries lie.

    The prediction is PixelScores, resized bilinearly to the canvas before the best class is taken, the target
    SegmentationMap; pixels of the canvas are counted, those that are not valid nowhere. The rows: `confusion` (int32 `k k`:
    pixels of class i, the row, predicted as class j), `unknown` (pixels whose label is no class), `predicted` (the map as
    PNG, every n-th pixel of one larger than 512); with `boundary` also `contour` and `band` (`metrics.boundaries`).

    The metrics; a class with neither truth nor prediction is NaN and left out of the means:
      pixel_accuracy: fraction of the pixels that have the right class.
      mIoU, IoU/<class>: shared pixels of truth and prediction over those in either, from the pixels of all images.
      Dice, Dice/<class>: twice the shared pixels over the sum of both (the F1 of pixels).
      boundary_F1, boundary_F1/<class>: F1 of the contours, of which pixels match that lie within 0.75 % of the diagonal of
        the content of each other (Csurka et al., BMVC 2013); mean over the images where the class has a contour, then over
        classes. The border of the image makes no contour. With `boundary`.
      boundary_IoU, boundary_IoU/<class>: IoU of the pixels that lie within 2 % of the diagonal of the boundary of their
        segment, the border of the image included (arXiv:2103.16562), from the pixels of all images. With `boundary`.
    Those of classes where there are at most 20 of them, or `per_class=True`.

    Raises:
      ValueError: no class; in `observe`, logits of another number of classes; in `compute`, no rows, or a label that is no
        class.
      TypeError: in `observe`, a prediction other than PixelScores, or a target other than SegmentationMap.
    """
    names = class_names(classes)
    named = len(names) <= FEW_CLASSES if per_class is None else per_class

    def observe(scores: PixelScores, batch: Batch) -> Rows:
        return _observe(scores, batch, len(names), boundary)

    def condense(rows: Rows) -> Mapping[str, np.ndarray]:
        return _condense(rows, len(names), boundary)

    def compute(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        total = total_confusion(rows)
        metrics = {"pixel_accuracy": float(_ratio(np.trace(total), total.sum()))}
        of_classes = {"mIoU": iou(total), "Dice": dice(total)}
        if boundary:
            of_classes["boundary_F1"] = boundaries.f1(rows["contour"])
            of_classes["boundary_IoU"] = boundaries.iou(rows["band"])
        metrics |= {name: _mean(values) for name, values in of_classes.items()}
        if named:
            for metric, values in of_classes.items():
                key = "IoU" if metric == "mIoU" else metric
                metrics |= {f"{key}/{name}": float(v) for name, v in zip(names, values, strict=True)}
        return metrics

    return Metric(observe, compute, names, condense)


def total_confusion(rows: Mapping[str, np.ndarray]) -> Int[np.ndarray, "k k"]:
    """Pixels of class i (the row) predicted as class j (the column), of all images.

    Raises:
      ValueError: no rows, or a label that is no class.
    """
    confusion = np.asarray(rows["confusion"])
    if not len(confusion):
        raise ValueError("no examples to compute metrics of: the rows are empty")
    wrong = np.flatnonzero(rows["unknown"])
    if len(wrong):
        where = f"the example with index {rows['index'][wrong[0]]}" if "index" in rows else f"row {wrong[0]}"
        count, k = amount(int(rows["unknown"][wrong[0]]), "pixel"), confusion.shape[-1]
        raise ValueError(
            f"{where} has {count} with a label that is no class; with {amount(k, 'class')}, labels are 0 to {k - 1}, and "
            "a pixel without one is not valid"
        )
    return confusion.sum(0, dtype=np.int64)


def iou(confusion: Int[np.ndarray, "*n k k"]) -> Float[np.ndarray, "*n k"]:
    """IoU of each class; NaN for one with neither truth nor prediction."""
    right, predicted, true = _counts(confusion)
    return _ratio(right, predicted + true - right)


def dice(confusion: Int[np.ndarray, "*n k k"]) -> Float[np.ndarray, "*n k"]:
    """Dice of each class; NaN for one with neither truth nor prediction."""
    right, predicted, true = _counts(confusion)
    return _ratio(2 * right, predicted + true)


def predicted_map(row: bytes) -> Int[np.ndarray, "h w"]:
    """The predicted classes of one image, from its row of `predicted`: of the content of its canvas, every n-th pixel."""
    with Image.open(io.BytesIO(row)) as image:
        return np.asarray(image).astype(np.int32)


def picture_step(canvas: tuple[int, int]) -> int:
    """Pixels of the canvas along each side, of which one is kept in `predicted`."""
    return -(-max(canvas) // PICTURE)


def _counts(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of each class: right, predicted, true."""
    return np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-2), confusion.sum(-1)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Quotients in float64; NaN over nothing."""
    out = np.full(np.shape(whole), np.nan)
    return np.divide(part, whole, out=out, where=np.asarray(whole) > 0)


def _mean(values: Float[np.ndarray, "k"]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _observe(scores: PixelScores, batch: Batch, k: int, boundary: bool) -> Rows:
    target = batch.target
    if not isinstance(scores, PixelScores):
        raise TypeError(f"the segmentation metric needs predictions to be PixelScores, got {type(scores).__name__}")
    if not isinstance(target, SegmentationMap):
        raise TypeError(
            f"the segmentation metric needs batch.target to be SegmentationMap, got {type(target).__name__}"
        )
    if scores.logits.shape[-1] != k:
        raise ValueError(f"the metric was made for {amount(k, 'class')}, the logits have {scores.logits.shape[-1]}")
    label = jnp.asarray(target.label)
    canvas = (label.shape[1], label.shape[2])
    content = jax.vmap(inside, (0, None, None))(jnp.asarray(batch.size), *canvas)
    valid = jnp.asarray(target.valid) & content
    predicted = jax.vmap(lambda logits: class_map(logits, canvas))(scores.logits)
    known = valid & (label >= 0) & (label < k)
    whole = jnp.uint8 if k < 255 else jnp.uint16
    step = picture_step(canvas)
    rows = {
        "confusion": jax.vmap(partial(_confusion, k=k))(label, known, predicted),
        "unknown": (valid & ~known).sum((1, 2), dtype=jnp.int32),
        "size": jnp.asarray(batch.size),
        "picture": predicted[:, ::step, ::step].astype(whole),
        "picture_size": -(-jnp.asarray(batch.size) // step),
    }
    if boundary:
        rows |= {"truth": jnp.where(known, label, k).astype(whole), "predicted": predicted.astype(whole)}
    return rows


def _confusion(
    label: Int[Array, "h w"], valid: Bool[Array, "h w"], predicted: Int[Array, "h w"], k: int
) -> Int[Array, "k k"]:
    pair = jnp.where(valid, label.astype(jnp.int32) * k + predicted, k * k)
    return jnp.bincount(pair.reshape(-1), length=k * k + 1)[:-1].reshape(k, k).astype(jnp.int32)


def _condense(rows: Rows, k: int, boundary: bool) -> Mapping[str, np.ndarray]:
    condensed = {name: np.asarray(rows[name]) for name in ("index", "confusion", "unknown")}
    if boundary:
        each = [
            boundaries.of_maps(truth[:height, :width], predicted[:height, :width], k)
            for (height, width), truth, predicted in zip(rows["size"], rows["truth"], rows["predicted"], strict=True)
        ]
        contour, band = zip(*each, strict=True)
        condensed |= {"contour": np.stack(contour), "band": np.stack(band)}
    condensed["predicted"] = np.empty(len(rows["index"]), object)
    pictures = zip(rows["picture"], rows["picture_size"], strict=True)
    condensed["predicted"][:] = [_png(picture[:height, :width]) for picture, (height, width) in pictures]
    return condensed


def _png(map: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(map)).save(file, format="PNG", compress_level=1)
    return file.getvalue()
