"""What errors cost, against a slow reading of the paper (arXiv:2008.08115, section 2.2 and 2.3)."""

import numpy as np
import pytest
from detection_cases import random_rows
from test_metrics_detection import covered, iou, ranked

from jaxvision.metrics.detection import detection
from jaxvision.metrics.detection_errors import TYPES

CLASSES = 4


def average_precision(points, objects):
    """COCO's mean over 101 recalls, of (score, right)."""
    if not objects:
        return 0.0
    points = sorted(points, key=lambda point: -point[0])
    total, curve = 0, []
    for n, (_, right) in enumerate(points, start=1):
        total += right
        curve.append((total / objects, total / n))
    return sum(max([p for r, p in curve if r >= t / 100], default=0) for t in range(101)) / 101


def mean_ap(points, objects):
    """Over the classes that have any."""
    each = [
        average_precision([point[1:] for point in points if point[0] == k], objects[k])
        for k in range(CLASSES)
        if objects[k] or any(point[0] == k for point in points)
    ]
    return sum(each) / len(each) if each else 0.0


def examine(rows):
    """Every detection that counts as (image, class, score, kind, target), every object not found, the counts of objects."""
    detections, unfound, objects = [], [], [0] * CLASSES
    boxes, true = rows["boxes"].astype(float), rows["true_boxes"].astype(float)
    for i in range(len(boxes)):
        there = np.flatnonzero(rows["annotated"][i])
        real = [j for j in there if not rows["ignore"][i, j]]
        kind_of = rows["true_labels"][i]
        for j in real:
            objects[kind_of[j]] += 1
        free, false = list(real), []
        for d in ranked(rows, i)[:100]:
            label, score = int(rows["labels"][i, d]), float(rows["scores"][i, d])
            near = {j: iou(boxes[i, d], true[i, j]) for j in real}
            own = [j for j in free if kind_of[j] == label and near[j] >= 0.5]
            if own:
                free.remove(max(own, key=lambda j: (near[j], j)))
                detections.append((i, label, score, "right", None))
                continue
            crowds = [j for j in there if rows["ignore"][i, j] and kind_of[j] == label]
            if all(covered(boxes[i, d], true[i, j]) < 0.5 for j in crowds):
                false.append((label, score, near))
        for label, score, near in false:
            own = max([j for j in real if kind_of[j] == label], key=lambda j: near[j], default=None)
            other = max([j for j in real if kind_of[j] != label], key=lambda j: near[j], default=None)
            to_own, to_other = (0 if j is None else near[j] for j in (own, other))
            if 0.1 <= to_own <= 0.5:
                detections.append((i, label, score, "localisation", own))
            elif to_other >= 0.5:
                detections.append((i, label, score, "classification", other))
            elif to_own >= 0.5:
                detections.append((i, label, score, "duplicate", None))
            elif max(to_own, to_other) <= 0.1:
                detections.append((i, label, score, "background", None))
            else:
                detections.append((i, label, score, "both", None))
        unfound += [(i, j) for j in free]
    return detections, unfound, objects


def costs(rows):
    detections, unfound, objects = examine(rows)
    now = mean_ap([(label, score, kind == "right") for _, label, score, kind, _ in detections], objects)
    result = {}
    for mended in TYPES[:5]:
        points, seen = [], set()
        for i, label, score, kind, target in detections:  # of an image, the best first
            aims = kind in ("localisation", "classification") and (i, target) in unfound
            best = aims and (i, target) not in seen
            seen |= {(i, target)} if aims else set()
            if kind != mended:
                points.append((label, score, kind == "right"))
            elif best:
                points.append((int(rows["true_labels"][i, target]), score, True))
        result[mended] = max(mean_ap(points, objects) - now, 0)
    aimed = {(i, target) for i, *_, target in detections}
    fewer = list(objects)
    for i, j in unfound:
        fewer[rows["true_labels"][i, j]] -= (i, j) not in aimed
    points = [(label, score, kind == "right") for _, label, score, kind, _ in detections]
    return result | {"missed": max(mean_ap(points, fewer) - now, 0)}, now


@pytest.mark.parametrize("seed", range(16))
def test_costs_equal_a_slow_reading_of_the_paper(seed):
    rows = random_rows(seed, crowds=0.2 if seed % 2 else 0)
    figures, (expected, _) = detection(CLASSES).compute(rows), costs(rows)
    assert {kind: figures[f"dAP_{kind}"] for kind in TYPES} == pytest.approx(expected, abs=1e-12)


def test_the_cases_cost_something_of_every_kind():
    every = [detection(CLASSES).compute(random_rows(seed)) for seed in range(16)]
    for kind in TYPES:
        assert sum(figures[f"dAP_{kind}"] > 0 for figures in every) >= 3, kind


def one_image(boxes, labels, scores, true_boxes, true_labels):
    n, m = len(labels), len(true_labels)
    return {
        "boxes": np.array([boxes], np.float32).reshape(1, n, 4),
        "labels": np.array([labels], int),
        "scores": np.array([scores], np.float32),
        "detected": np.ones((1, n), bool),
        "true_boxes": np.array([true_boxes], np.float32).reshape(1, m, 4),
        "true_labels": np.array([true_labels], int),
        "annotated": np.ones((1, m), bool),
        "ignore": np.zeros((1, m), bool),
        "area": np.ones((1, m), np.float32),
    }


A, B, AWAY = [0, 0, 10, 10], [40, 40, 50, 50], [80, 80, 90, 90]
CASES = {
    # A false detection above the only hit: without it AP50 is 1 instead of 1/2; the class that is found but not there counts.
    "background": one_image([AWAY, A], [0, 0], [0.9, 0.8], [A], [0]),
    "duplicate": one_image([A, A, B], [0, 0, 0], [0.9, 0.85, 0.8], [A, B], [0, 0]),
    "localisation": one_image([[0, 0, 4, 10]], [0], [0.9], [A], [0]),
    "classification": one_image([A], [1], [0.9], [A], [0]),
    "both": one_image([[0, 0, 4, 10], B], [0, 0], [0.9, 0.8], [A, B], [1, 0]),
    "missed": one_image([A], [0], [0.9], [A, B], [0, 0]),
}


@pytest.mark.parametrize("kind", TYPES)
def test_each_kind_by_an_example(kind):
    figures = detection(2).compute(CASES[kind])
    paid = {name.removeprefix("dAP_"): value for name, value in figures.items() if name.startswith("dAP_")}
    assert paid[kind] > 0.1
    others = {name for name, value in paid.items() if value > 0} - {kind}
    assert others <= ({"missed"} if kind == "both" else set())
