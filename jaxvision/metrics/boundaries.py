"""How well the boundaries of a class map lie: contours for boundary F1, bands along them for Boundary IoU.

Lengths are parts of the diagonal of the image. Pixels that are not valid are in no contour and no band, and make none: what
is beside them may go on there.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

TOLERANCE = 0.0075
"""Distance up to which contours match (Csurka et al., What is a good evaluation measure for semantic segmentation?, 2013)."""
BAND = 0.02
"""Width of the bands of Boundary IoU (arXiv:2103.16562)."""


def of_maps(
    truth: Int[np.ndarray, "h w"], predicted: Int[np.ndarray, "h w"], k: int
) -> tuple[Int[np.ndarray, "k 4"], Int[np.ndarray, "k 3"]]:
    """Counts of pixels of one image, for each class.

    Args:
      truth: labels, those from `k` on are not valid.
      predicted: labels.
      k: number of classes.

    Returns:
      Of the contour: predicted pixels that match true ones, all predicted, true ones that match predicted ones, all true.
      Of the band: those in both, predicted ones, true ones.
    """
    truth, valid = truth.astype(np.int32), truth < k
    predicted = predicted.astype(np.int32)
    return _contours(truth, predicted, valid, k), _bands(truth, predicted, valid, k)


def f1(contour: Int[np.ndarray, "n k 4"]) -> Float[np.ndarray, "k"]:
    """F1 of each class, the mean over the images where it has a contour; NaN where it has none in any."""
    matched, predicted, found, true = (contour[..., i].astype(np.float64) for i in range(4))
    precision, recall = matched / np.maximum(predicted, 1), found / np.maximum(true, 1)
    each = 2 * precision * recall / np.where(precision + recall > 0, precision + recall, 1)
    occurs = predicted + true > 0
    count = occurs.sum(0)
    return np.where(count > 0, (each * occurs).sum(0) / np.maximum(count, 1), np.nan)


def iou(band: Int[np.ndarray, "n k 3"]) -> Float[np.ndarray, "k"]:
    """Boundary IoU of each class, from the pixels of all images; NaN for one without a band."""
    both, predicted, true = band.sum(0, dtype=np.int64).T.astype(np.float64)
    either = predicted + true - both
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


def _contours(truth: np.ndarray, predicted: np.ndarray, valid: np.ndarray, k: int) -> Int[np.ndarray, "k 4"]:
    from scipy.spatial import KDTree

    counts = np.zeros((k, 4), np.int32)
    reach = TOLERANCE**2 * (truth.shape[0] ** 2 + truth.shape[1] ** 2)
    maps = [np.where(_contour(labels, valid), labels, -1) for labels in (predicted, truth)]
    for label in range(k):
        points = [np.argwhere(map == label) for map in maps]
        if not len(points[0]) or not len(points[1]):
            continue
        for first, second, place in ((0, 1, 0), (1, 0, 2)):
            distance, _ = KDTree(points[second]).query(points[first])
            counts[label, place] = (np.rint(distance**2) <= reach).sum()
    for map, place in zip(maps, (1, 3), strict=True):
        counts[:, place] = np.bincount(map[map >= 0], minlength=k)
    return counts


def _contour(labels: Int[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Valid pixels with a valid neighbour, of four, that has another label."""
    found = np.zeros(labels.shape, bool)
    for a, b in (
        ((slice(1, None),), (slice(None, -1),)),
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ):
        differ = (labels[a] != labels[b]) & valid[a] & valid[b]
        found[a] |= differ
        found[b] |= differ
    return found


def _bands(truth: np.ndarray, predicted: np.ndarray, valid: np.ndarray, k: int) -> Int[np.ndarray, "k 3"]:
    width = max(1, round(BAND * float(np.hypot(*truth.shape))))
    maps = [np.where(_band(labels, valid, width), labels, -1) for labels in (predicted, truth)]
    both = np.where(maps[0] == maps[1], maps[0], -1)
    return np.stack([np.bincount(map[map >= 0], minlength=k) for map in (both, *maps)], 1).astype(np.int32)


def _band(labels: Int[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"], width: int) -> Bool[np.ndarray, "h w"]:
    """Valid pixels that have a valid pixel of another label, or the outside of the image, in the square of this reach."""
    from scipy.ndimage import maximum_filter, minimum_filter

    far, side = np.iinfo(labels.dtype), 2 * width + 1
    largest = maximum_filter(np.where(valid, labels, far.min), side, mode="nearest")
    smallest = minimum_filter(np.where(valid, labels, far.max), side, mode="nearest")
    found = (largest != labels) | (smallest != labels)
    found[:width], found[-width:], found[:, :width], found[:, -width:] = True, True, True, True
    return found & valid
