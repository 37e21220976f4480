"""Random detections and objects, as rows of `metrics.detection` and as COCO's dicts. Not a test itself."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

WIDE = 160
"""Detections of an image at most: more than COCO counts."""


def random_rows(seed, *, ties=False, grid=False, crowds=0.2, images=6, classes=4):
    """Rows with empty images, empty classes, crowds, areas of their own, equal boxes, up to 160 detections an image."""
    rng = np.random.default_rng(seed)
    side = rng.choice([15.0, 50.0, 120.0])
    found, there = (np.zeros((images, n, 4), np.float32) for n in (WIDE, 10))
    for i in range(images):
        low = rng.uniform(0, 250, (10, 2))
        there[i] = np.concatenate([low, low + rng.gamma(2, side, (10, 2))], 1)
        near = there[i, rng.integers(0, 10, WIDE)] + rng.normal(0, rng.choice([0, 0.1, 0.4]) * side, (WIDE, 4))
        low = rng.uniform(0, 250, (WIDE, 2))
        far = np.concatenate([low, low + rng.gamma(2, side, (WIDE, 2))], 1)
        found[i] = np.where(rng.random((WIDE, 1)) < 0.7, near, far)
    if grid:
        found, there = (10 * np.round(each / 10) for each in (found, there))
    found[..., 2:] = np.maximum(found[..., :2], found[..., 2:])
    there[:, 1] = there[:, 0]
    most = rng.choice([0, 3, 12, WIDE], images, p=[0.2, 0.2, 0.5, 0.1])
    boxes = (there[..., 2:] - there[..., :2]).prod(-1)
    kinds = rng.integers(0, max(classes - rng.integers(0, 2), 1), (images, 10))
    return {
        "index": np.arange(images),
        "boxes": found,
        "labels": rng.integers(0, classes, (images, WIDE)).astype(np.int32),
        "scores": (rng.integers(0, 5, (images, WIDE)) / 4 if ties else rng.random((images, WIDE))).astype(np.float32),
        "detected": np.arange(WIDE) < most[:, None],
        "true_boxes": there,
        "true_labels": kinds.astype(np.int32),
        "annotated": (rng.random((images, 10)) < 0.7) & (rng.random((images, 1)) < 0.8),
        "ignore": rng.random((images, 10)) < crowds,
        "area": np.where(rng.random((images, 10)) < 0.5, boxes, boxes * rng.random((images, 10))).astype(np.float32),
    }


def corner(box):
    x0, y0, x1, y1 = (float(side) for side in box)
    return [x0, y0, x1 - x0, y1 - y0]


def ground_truth(rows, classes):
    """The objects as a dataset of pycocotools."""
    annotations = [
        {
            "id": number + 1,
            "image_id": int(i) + 1,
            "category_id": int(rows["true_labels"][i, j]) + 1,
            "bbox": corner(rows["true_boxes"][i, j]),
            "area": float(rows["area"][i, j]),
            "iscrowd": int(rows["ignore"][i, j]),
        }
        for number, (i, j) in enumerate(np.argwhere(rows["annotated"]))
    ]
    data = COCO()
    data.dataset = {
        "images": [{"id": i + 1} for i in range(len(rows["scores"]))],
        "categories": [{"id": k + 1, "name": str(k)} for k in range(classes)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        data.createIndex()
    return data


def results(rows):
    """The detections as COCO's results."""
    return [
        {
            "image_id": int(i) + 1,
            "category_id": int(rows["labels"][i, j]) + 1,
            "bbox": corner(rows["boxes"][i, j]),
            "score": float(rows["scores"][i, j]),
        }
        for i, j in np.argwhere(rows["detected"])
    ]


def pycoco(rows, classes):
    """pycocotools' evaluation, run."""
    truth = ground_truth(rows, classes)
    with contextlib.redirect_stdout(io.StringIO()):
        if rows["detected"].any():
            found = truth.loadRes(results(rows))
        else:  # loadRes takes no empty list
            found = COCO()
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation
