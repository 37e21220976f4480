"""What mask AP takes: 5,000 images of 480 x 640, 100 objects and 100 detections each, beside pycocotools on the same masks.

    python experiments/benchmarks/mask_ap.py

Ours condenses what a network like Mask R-CNN gives (28 x 28 probabilities in boxes), ten images at a time, to run lengths of
the file, keeps these as the rows of a run, and computes all figures of `metrics.instances` of them; the ground truth is
drawn in the same way. pycocotools is given the same run lengths, one step later. Each in a process of its own, whose peak
memory is that of the whole process, JAX included. `--images=N` for fewer. Takes twenty minutes on two busy cores. Prints a
table; results are in RESULTS.md beside this file.
"""

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxvision.masks import packing
from jaxvision.masks.paste import run_lengths
from jaxvision.metrics.instances import instances
from jaxvision.metrics.tables import completed
from jaxvision.run import provenance, rows
from jaxvision.run.evaluation import table
from jaxvision.types import BoxMasks, Canvas

CLASSES, OBJECTS, BATCH = 80, 100, 10
SIZE, CELLS = (480, 640), 28
METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
METRICS += ("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")


class Group(NamedTuple):
    """Ten images: what the metric observes of them, and their objects."""

    rows: dict[str, Any]
    boxes: np.ndarray
    labels: np.ndarray
    sides: np.ndarray
    masks: BoxMasks


@lru_cache(maxsize=2)
def drawn(first: int) -> Group:
    """Detections and objects as probabilities of wavy ellipses in boxes."""
    rng = np.random.default_rng(first)
    count = (BATCH, OBJECTS)
    middle, sides = rng.uniform(0, 1, (*count, 2)) * SIZE[::-1], 10 + rng.gamma(2, 30, (*count, 2))
    true = np.concatenate([middle - sides / 2, middle + sides / 2], -1)
    found = true + rng.normal(0, 0.06, true.shape) * np.concatenate([sides, sides], -1)
    labels, wrong = rng.integers(0, CLASSES, count), rng.random(count) < 0.2
    masks, true_masks = (BoxMasks(_grids(rng), boxes.astype(np.float32)) for boxes in (found, true))  # type: ignore[arg-type]
    size = np.tile(np.array(SIZE, np.int32), (BATCH, 1))
    rows = {
        "index": np.arange(first, first + BATCH),
        "boxes": np.clip(found, 0, [*SIZE[::-1]] * 2).astype(np.float32),
        "labels": np.where(wrong, rng.integers(0, CLASSES, count), labels).astype(np.int32),
        "scores": rng.random(count).astype(np.float32),
        "detected": np.ones(count, bool),
        "masks": masks,
        "size": size,
        "original_size": size,
        "window": None,
    }
    return Group(rows, np.clip(true, 0, [*SIZE[::-1]] * 2), labels, sides, true_masks)


def read(indices: np.ndarray) -> list[SimpleNamespace]:
    """Examples of the source: objects with the masks of their ellipses, every hundredth a crowd."""
    index = int(indices[0])
    given, row = drawn(index - index % BATCH), index % BATCH
    of_image = jax.tree.map(lambda column: column[row], given.masks)
    objects = SimpleNamespace(
        boxes=given.boxes[row],
        labels=given.labels[row],
        ignore=np.arange(OBJECTS) % 100 == 99,
        area=0.785 * given.sides[row].prod(-1),
        masks=list(run_lengths(of_image, range(OBJECTS), Canvas(np.zeros((0, 0, 3), np.uint8), SIZE, SIZE))),
    )
    return [SimpleNamespace(objects=objects)]


def _grids(rng: np.random.Generator) -> np.ndarray:
    """Probabilities of wavy discs, float32 `b n s s`."""
    rows, columns = (np.mgrid[:CELLS, :CELLS] + 0.5) / CELLS * 2 - 1
    angle, far = np.arctan2(rows, columns), np.hypot(rows, columns)
    waves, turn = rng.integers(2, 7, (BATCH, OBJECTS, 1, 1)), rng.uniform(0, 6, (BATCH, OBJECTS, 1, 1))
    edge = 0.85 + 0.12 * np.sin(waves * angle + turn)
    return (1 / (1 + np.exp(-12 * (edge - far)))).astype(np.float32)


class Drawings:
    """The source of the drawn images."""

    read = staticmethod(read)


def ours(images: int, folder: Path) -> dict[str, Any]:
    metric = instances(CLASSES, Drawings)
    assert metric.condense is not None
    started = time.perf_counter()
    condensed = table([metric.condense(drawn(at).rows) for at in range(0, images, BATCH)])
    middle = time.perf_counter()
    figures = metric.compute(condensed)
    ended = time.perf_counter()
    rows.write(folder, 0, {"test": condensed})
    found = [figures[f"mask_{name}"] for name in METRICS]
    length = sum(map(len, condensed["masks"])) / (images * OBJECTS)
    return {"condense": middle - started, "compute": ended - middle, "figures": found, "bytes": length}


def pycocotools(images: int, folder: Path) -> dict[str, Any]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    read = rows.read(folder, "test")
    assert read is not None
    whole = completed(read.columns)
    truth, found = [], []
    for i in range(images):
        for name, column, into in (("true_masks", "true_labels", truth), ("masks", "labels", found)):
            for j, mask in enumerate(packing.unpack(whole[name][i], SIZE)):
                of = {"image_id": i + 1, "category_id": int(whole[column][i, j]) + 1, "segmentation": mask.coco()}
                if into is truth:
                    of |= {"id": len(truth) + 1, "iscrowd": int(whole["ignore"][i, j]), "area": whole["area"][i, j]}
                else:
                    of["score"] = float(whole["scores"][i, j])
                into.append(of)
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        data: Any = COCO()
        data.dataset = {
            "images": [{"id": i + 1, "height": SIZE[0], "width": SIZE[1]} for i in range(images)],
            "categories": [{"id": k + 1} for k in range(CLASSES)],
            "annotations": truth,
        }
        data.createIndex()
        evaluation = COCOeval(data, data.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"compute": time.perf_counter() - started, "figures": evaluation.stats.tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure mask AP.")
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--side", choices=("ours", "pycocotools"))
    parser.add_argument("--folder", type=Path)
    flags = parser.parse_args()
    if flags.side:
        found = {"ours": ours, "pycocotools": pycocotools}[flags.side](flags.images, flags.folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps({**found, "peak": peak}))
        return
    with tempfile.TemporaryDirectory() as folder:
        each = {side: _measured(side, flags.images, folder) for side in ("ours", "pycocotools")}
    first, theirs = each["ours"], each["pycocotools"]
    differ = np.nanmax(np.abs(np.array(first["figures"]) - theirs["figures"]))
    here = provenance.machine()
    print(f"\n{date.today()}, {here['processor']}, {here['cores']} cores", end="; ")
    print(", ".join(f"{name} {version(name)}" for name in ("hotcoco", "pycocotools", "numpy")))
    print(f"{flags.images:,} images, {flags.images * OBJECTS:,} objects and as many detections, {CLASSES} classes;")
    print(f"{first['bytes']:.0f} bytes a mask. Largest difference of a figure: {differ:.1e}.\n")
    print("| | to run lengths, s | figures, s | peak memory, GB |\n|---|---|---|---|")
    print(f"| ours, boxes and masks | {first['condense']:.0f} | {first['compute']:.0f} | {first['peak']:.2f} |")
    print(f"| pycocotools, masks | - | {theirs['compute']:.0f} | {theirs['peak']:.2f} |")


def _measured(side: str, images: int, folder: str) -> dict[str, Any]:
    command = [sys.executable, __file__, f"--side={side}", f"--images={images}", f"--folder={folder}"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
