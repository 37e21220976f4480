"""Random masks of detections and objects, as rows of `metrics.instances` and as COCO's dicts. Not a test itself."""

import contextlib
import io
from functools import cache

import numpy as np
from detection_cases import corner
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jaxvision.masks import packing, runs

CLASSES, MOST = 3, 120


def shape(rng, height, width):
    """An ellipse, a ring, a few pixels or nothing."""
    kind = rng.choice(["ellipse", "ring", "pixels", "nothing"], p=[0.7, 0.15, 0.1, 0.05])
    rows, columns = np.mgrid[:height, :width]
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    a, b = rng.uniform(2, height / 1.6), rng.uniform(2, width / 1.6)
    far = ((rows - y) / a) ** 2 + ((columns - x) / b) ** 2
    return {
        "ellipse": far < 1,
        "ring": (far < 1) & (far > 0.3),
        "pixels": rng.random((height, width)) < 0.02,
        "nothing": far < -1,
    }[kind]


def moved(rng, mask):
    """The mask shifted by some pixels."""
    return np.roll(mask, rng.integers(-4, 5, 2), (0, 1)) if rng.random() < 0.8 else mask


def box(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if len(rows) else [0, 0, 0, 0]


@cache
def random_case(seed, images=4):
    """Condensed rows, and the masks of each image: `(detected, true)`, lists of bool arrays."""
    rng = np.random.default_rng(seed)
    rows = {name: np.zeros((images, MOST), np.int32) for name in ("labels", "detected")}
    rows |= {"boxes": np.zeros((images, MOST, 4), np.float32), "scores": np.zeros((images, MOST), np.float32)}
    rows |= {"index": np.arange(images), "original_size": rng.integers(40, 160, (images, 2))}
    masks, packed, tables = [], {"masks": [], "true_masks": []}, []
    for i, (height, width) in enumerate(rows["original_size"]):
        true = [shape(rng, height, width) for _ in range(rng.integers(0, 7))]
        count = rng.choice([0, 5, 12, 115 if seed % 10 == 0 else 20])
        found = [
            moved(rng, true[rng.integers(len(true))]) if true and rng.random() < 0.8 else None for _ in range(count)
        ]
        found = [shape(rng, height, width) if each is None else each for each in found]
        masks.append((found, true))
        for name, each in (("masks", found), ("true_masks", true)):
            packed[name].append(packing.pack(map(runs.encode, each)))
        places = np.sort(rng.permutation(MOST)[:count])
        rows["detected"][i, places] = True
        rows["boxes"][i, places] = np.array([box(mask) for mask in found]).reshape(-1, 4)
        area = [mask.sum() * rng.choice([1, 0.7, 3]) for mask in true]
        columns = (
            [box(mask) for mask in true],
            rng.integers(0, CLASSES - 1, len(true)),
            rng.random(len(true)) < 0.2,
            area,
        )
        boxes, *others = (np.array(column, np.float64) for column in columns)
        tables.append(np.column_stack([boxes.reshape(-1, 4), *others]))
    rows["detected"] = rows["detected"] > 0
    rows["labels"] = rng.integers(0, CLASSES, (images, MOST)).astype(np.int32)
    rows["scores"] = np.round(rng.random((images, MOST)), 1 if seed % 2 else 6).astype(np.float32)
    column = lambda values: np.array([*values, b""], object)[:-1]
    true = {"true_objects": column(table.tobytes() for table in tables)}
    return {**rows, **{name: column(each) for name, each in packed.items()}, **true}, masks, tables


def pycoco(rows, masks, tables):
    """pycocotools' evaluation of the masks, run."""
    rle = lambda mask: coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    truth, found = [], []
    for i, (detected, true) in enumerate(masks):
        for mask, row in zip(true, tables[i], strict=True):
            area = {"bbox": corner(row[:4]), "area": float(row[6]), "iscrowd": int(row[5])}
            of = {"id": len(truth) + 1, "image_id": i + 1, "category_id": int(row[4]) + 1}
            truth.append({**of, "segmentation": rle(mask), **area})
        for mask, j in zip(detected, np.flatnonzero(rows["detected"][i]), strict=True):
            of = {"image_id": i + 1, "category_id": int(rows["labels"][i, j]) + 1, "score": float(rows["scores"][i, j])}
            found.append({**of, "segmentation": rle(mask)})
    size = enumerate(rows["original_size"].tolist(), 1)
    data = COCO()
    data.dataset = {
        "images": [{"id": i, "height": height, "width": width} for i, (height, width) in size],
        "categories": [{"id": k + 1, "name": str(k)} for k in range(CLASSES)],
        "annotations": truth,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        data.createIndex()
        if found:
            results = data.loadRes(found)
        else:
            results = COCO()
            results.dataset = {**data.dataset, "annotations": []}
            results.createIndex()
        evaluation = COCOeval(data, results, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation
