"""Side of jaxvision in the benchmark `coco_eval`."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from experiments.benchmarks.speed import coco_rows
from experiments.benchmarks.speed.contest import Work
from jaxvision.masks import packing, runs
from jaxvision.metrics import coco_ap, file_masks
from jaxvision.metrics.instances import masks_of
from jaxvision.metrics.tables import tables


def metrics(images: int, masks: bool) -> Work:
    """From the rows that a run keeps to the twelve metrics, which are the outcome."""
    rows = coco_rows.rows(images)
    if masks:
        rows |= {"masks": packed(rows, "boxes", "detected"), "true_masks": packed(rows, "true_boxes", "annotated")}
        rows["original_size"] = np.tile(coco_rows.SIZE, (images, 1))

    def once() -> list[float]:
        found = tables(rows, coco_rows.CLASSES)
        curves = coco_ap.mask_curves(found, masks_of(rows, found)) if masks else coco_ap.curves(found)
        return list(coco_ap.summary(curves).values())

    def run(units: int) -> None:
        for _ in range(units):
            once()

    return Work(run, once)


def packed(rows: Mapping[str, np.ndarray], boxes: str, chosen: str) -> np.ndarray:
    """The masks of each image as a run keeps them."""
    each = [runs.of_coco(found) for found in coco_rows.encoded(rows[boxes][rows[chosen]])]
    ends = np.concatenate([[0], np.cumsum(rows[chosen].sum(1))])
    return file_masks.column([packing.pack(each[first:end]) for first, end in pairwise(ends)])
