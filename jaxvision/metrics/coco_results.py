"""Detections as COCO's results JSON, which pycocotools' `loadRes` and COCO's servers read."""

import json
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from jaxvision.errors import replacing
from jaxvision.masks import packing
from jaxvision.masks.runs import Runs
from jaxvision.metrics.file_masks import original_size
from jaxvision.metrics.tables import Detected, detections_of


def write_coco_results(
    path: str | PathLike, rows: Mapping[str, np.ndarray], image_ids: Sequence[int], category_ids: Sequence[int]
) -> None:
    """Writes a list of `{"image_id", "category_id", "bbox": [x0, y0, w, h], "score"}`, the best of an image first.

    Rows of `metrics.instances` have `segmentation`, run lengths, in the place of `bbox`: from a file with both pycocotools
    takes the size of a detection from its box, and finds other figures by size.

    Args:
      path: where the file is written, whole or not at all.
      rows: those of `metrics.detection` or `metrics.instances`, with `index`; boxes are in pixels of the image files.
      image_ids: id of every example of the data, by its index.
      category_ids: id of every class, by its label.

    Raises:
      ValueError: for an example or a label without an id.
    """
    detected, index = detections_of(rows), np.asarray(rows["index"])
    for what, numbers, ids in (("example", index, image_ids), ("label", detected.label, category_ids)):
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(ids):
            raise ValueError(f"{what}s go from {numbers.min()} to {numbers.max()}, but there are {len(ids)} ids")
    corner = np.concatenate([detected.box[:, :2], detected.box[:, 2:] - detected.box[:, :2]], 1)
    told = ({"bbox": box} for box in corner.tolist())
    if "masks" in rows:
        told = ({"segmentation": mask.coco()} for mask in masks_of(rows, detected))
    columns = (column.tolist() for column in (index[detected.image], detected.label, detected.score))
    with replacing(Path(path)) as partial, partial.open("w", encoding="utf-8") as file:
        before = "["
        for example, label, score, where in zip(*columns, told, strict=True):
            ids = {"image_id": int(image_ids[example]), "category_id": int(category_ids[label])}
            file.write(before + json.dumps({**ids, **where, "score": score}))
            before = ",\n"
        file.write("]\n" if before != "[" else "[]\n")


def masks_of(rows: Mapping[str, np.ndarray], detected: Detected) -> Iterator[Runs]:
    """The masks of the detections, in their order."""
    first = np.searchsorted(detected.image, np.arange(len(rows["masks"]) + 1))
    for image, packed in enumerate(rows["masks"]):
        masks, number = packing.unpack(packed, original_size(rows, image)), np.cumsum(rows["detected"][image]) - 1
        yield from (masks[number[place]] for place in detected.place[first[image] : first[image + 1]])
