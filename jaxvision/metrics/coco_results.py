"""Detections as COCO's results JSON, which pycocotools' `loadRes` and COCO's servers read."""

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from jaxvision.errors import replacing
from jaxvision.metrics.tables import detections_of


def write_coco_results(
    path: str | PathLike, rows: Mapping[str, np.ndarray], image_ids: Sequence[int], category_ids: Sequence[int]
) -> None:
    """Writes a list of `{"image_id", "category_id", "bbox": [x0, y0, w, h], "score"}`, the best of an image first.

    Args:
      path: where the file is written, whole or not at all.
      rows: those of `metrics.detection`, with `index`; boxes are in pixels of the image files.
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
    columns = (index[detected.image], detected.label, corner, detected.score)
    with replacing(Path(path)) as partial, partial.open("w", encoding="utf-8") as file:
        before = "["
        for example, label, box, score in zip(*(column.tolist() for column in columns), strict=True):
            ids = {"image_id": int(image_ids[example]), "category_id": int(category_ids[label])}
            file.write(before + json.dumps({**ids, "bbox": box, "score": score}))
            before = ",\n"
        file.write("]\n" if before != "[" else "[]\n")
