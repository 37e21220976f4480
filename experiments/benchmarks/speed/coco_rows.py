"""Detections and objects of 5,000 images, the size of COCO's val2017, from a seed: as rows of a metric, and as COCO's dicts.

As those of a fair detector, most boxes are near an object and of its class. Masks are wavy ellipses in the boxes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

CLASSES, SIZE = 80, (480, 640)
MOST_DETECTIONS, MOST_OBJECTS = 100, 50
CORNERS = 24
"""Corners of the polygon that a mask is made of."""


def rows(images: int) -> dict[str, np.ndarray]:
    """Columns of `metrics.detection`."""
    rng = np.random.default_rng(0)
    found, objects = (np.minimum(rng.geometric(1 / mean, images), most) for mean, most in ((8.8, 100), (7.3, 50)))
    low = rng.uniform(0, 500, (images, MOST_OBJECTS, 2))
    true = np.concatenate([low, low + rng.gamma(2, 40, low.shape)], -1)
    labels = rng.integers(0, CLASSES, (images, MOST_OBJECTS))
    at = np.arange(images)[:, None], rng.integers(0, objects[:, None], (images, MOST_DETECTIONS))
    boxes = true[at] + rng.normal(0, 6, (images, MOST_DETECTIONS, 4))
    boxes[..., 2:] = np.maximum(boxes[..., :2], boxes[..., 2:])
    right = rng.random((images, MOST_DETECTIONS)) < 0.8
    return {
        "index": np.arange(images),
        "boxes": boxes.astype(np.float32),
        "labels": np.where(right, labels[at], rng.integers(0, CLASSES, right.shape)),
        "scores": rng.random(right.shape).astype(np.float32),
        "detected": np.arange(MOST_DETECTIONS) < found[:, None],
        "true_boxes": true.astype(np.float32),
        "true_labels": labels,
        "annotated": np.arange(MOST_OBJECTS) < objects[:, None],
        "ignore": rng.random(labels.shape) < 0.01,
        "area": (true[..., 2:] - true[..., :2]).prod(-1).astype(np.float32),
    }


def dicts(images: int, masks: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO's annotations and results, with boxes or with masks; ids count from 1."""
    columns = rows(images)
    objects, found = (_dicts(columns, which, masks) for which in ("annotated", "detected"))
    of_image = [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(1, images + 1)]
    categories = [{"id": k, "name": str(k)} for k in range(1, CLASSES + 1)]
    return {"images": of_image, "categories": categories, "annotations": objects}, found


def _dicts(columns: Mapping[str, np.ndarray], which: str, masks: bool) -> list[dict[str, Any]]:
    """Annotations, or results."""
    chosen = columns[which]
    image = np.nonzero(chosen)[0]
    boxes, labels = (
        columns[f"{'true_' if which == 'annotated' else ''}{name}"][chosen] for name in ("boxes", "labels")
    )
    corners = boxes.astype(np.float64)
    sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    of: dict[str, list] = {"image_id": (image + 1).tolist(), "category_id": (labels + 1).tolist()}
    of |= {"segmentation": list(encoded(boxes))} if masks else {"bbox": sides.tolist()}
    if which == "annotated":
        of |= {"id": list(range(1, len(image) + 1)), "iscrowd": columns["ignore"][chosen].astype(int).tolist()}
        of["area"] = columns["area"][chosen].astype(np.float64).tolist()
    else:
        of["score"] = columns["scores"][chosen].astype(np.float64).tolist()
    return [dict(zip(of, row, strict=True)) for row in zip(*of.values(), strict=True)]


def encoded(boxes: np.ndarray) -> Iterator[dict[str, Any]]:
    """COCO's run lengths of a wavy ellipse in each box."""
    from pycocotools import mask

    rng = np.random.default_rng(1)
    angle = np.arange(CORNERS) * (2 * np.pi / CORNERS)
    for box in boxes.astype(np.float64):
        radius = 0.85 + 0.15 * np.sin(rng.integers(2, 7) * angle + rng.uniform(0, 6))
        centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
        outline = centre + half * radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        found: Any = mask.frPyObjects([outline.reshape(-1).tolist()], *SIZE)
        yield {"size": list(SIZE), "counts": found[0]["counts"].decode("ascii")}
