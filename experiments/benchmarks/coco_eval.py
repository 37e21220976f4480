"""How long the metrics of a detector take, beside pycocotools on the same detections.

    python experiments/benchmarks/coco_eval.py

5,000 images with about 36,000 objects and 44,000 detections of 80 classes, the size of COCO's val2017, from a seed. Ours
goes from the rows of `metrics.detection` to the metrics; pycocotools from its lists of dicts, made before. They take turns,
and their twelve metrics are compared. Needs pycocotools (the extra `test`). Takes one to three minutes on two CPU cores.
Prints a table; results are in RESULTS.md beside this file.
"""

import contextlib
import io
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date
from importlib.metadata import version
from typing import Any

import numpy as np

from jaxvision.metrics import coco_ap
from jaxvision.metrics.detection import detection
from jaxvision.metrics.tables import tables
from jaxvision.run import provenance

IMAGES, CLASSES = 5_000, 80
MOST_DETECTIONS, MOST_OBJECTS = 100, 50
TURNS = 5
METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
METRICS += ("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")


def random_rows() -> dict[str, np.ndarray]:
    """Rows as those of a fair detector: most boxes are near an object and of its class."""
    rng = np.random.default_rng(0)
    found, objects = (np.minimum(rng.geometric(1 / mean, IMAGES), most) for mean, most in ((8.8, 100), (7.3, 50)))
    low = rng.uniform(0, 500, (IMAGES, MOST_OBJECTS, 2))
    true = np.concatenate([low, low + rng.gamma(2, 40, low.shape)], -1)
    labels = rng.integers(0, CLASSES, (IMAGES, MOST_OBJECTS))
    at = np.arange(IMAGES)[:, None], rng.integers(0, objects[:, None], (IMAGES, MOST_DETECTIONS))
    boxes = true[at] + rng.normal(0, 6, (IMAGES, MOST_DETECTIONS, 4))
    boxes[..., 2:] = np.maximum(boxes[..., :2], boxes[..., 2:])
    right = rng.random((IMAGES, MOST_DETECTIONS)) < 0.8
    return {
        "index": np.arange(IMAGES),
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


def as_dicts(rows: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO's annotations and results; ids count from 1."""
    found = tables(rows, CLASSES)

    def each(table: Any, **more: np.ndarray) -> list[dict[str, Any]]:
        corner = np.concatenate([table.box[:, :2], table.box[:, 2:] - table.box[:, :2]], 1)
        columns = {"image_id": table.image + 1, "category_id": table.label + 1, "bbox": corner, **more}
        values = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in values]

    objects = found.annotated
    numbers, crowd = np.arange(1, len(objects.image) + 1), objects.ignore.astype(int)
    data = {
        "images": [{"id": i} for i in range(1, IMAGES + 1)],
        "categories": [{"id": k} for k in range(1, CLASSES + 1)],
        "annotations": each(objects, id=numbers, area=objects.area, iscrowd=crowd),
    }
    return data, each(found.detected, score=found.detected.score)


def pycocotools(data: dict[str, Any], results: list[dict[str, Any]]) -> np.ndarray:
    """Its twelve metrics."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth: Any = COCO()
        truth.dataset = data
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def took(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def main() -> None:
    rows = random_rows()
    data, results = as_dicts(rows)
    runs: dict[str, Callable[[], Any]] = {
        "pycocotools: 12 metrics": lambda: pycocotools(data, results),
        "ours: 12 metrics": lambda: coco_ap.summary(coco_ap.curves(tables(rows, CLASSES))),
        "ours: all of `detection`, with errors": lambda: detection(CLASSES).compute(rows),
        "ours: all, with VOC's AP and classes": lambda: detection(CLASSES, voc=True, per_class=True).compute(rows),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    differ = 0.0
    for _ in range(TURNS):
        found = {}
        for name, run in runs.items():
            elapsed, found[name] = took(run)
            seconds[name].append(elapsed)
        theirs, *ours = found.values()
        differ = max(differ, *(abs(metrics[key] - theirs[i]) for metrics in ours for i, key in enumerate(METRICS)))
    here = provenance.machine()
    print(f"\n{date.today()}, {here['processor']}, {here['cores']} cores", end="; ")
    print(", ".join(f"{name} {version(name)}" for name in ("hotcoco", "pycocotools", "numpy")))
    print(f"{IMAGES:,} images, {len(data['annotations']):,} objects, {len(results):,} detections, {CLASSES} classes.")
    print(f"Largest difference of a metric: {differ:.1e}.\n")
    print(f"| | seconds: median of {TURNS} (least to most) | pycocotools / ours |\n|---|---|---|")
    slow = statistics.median(seconds["pycocotools: 12 metrics"])
    for name, all in seconds.items():
        middle = statistics.median(all)
        print(f"| {name} | {middle:.2f} ({min(all):.2f} to {max(all):.2f}) | {slow / middle:.0f} |")


if __name__ == "__main__":
    main()
