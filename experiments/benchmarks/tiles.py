"""How well a detector with masks does on large images in tiles, beside the same images whole.

    python -m jaxvision.main --config=experiments/shapes.py --workdir=runs/shapes --config.detector=mask_rcnn
    python experiments/benchmarks/tiles.py runs/shapes

Scenes of 2,000 x 2,000 pixels with 256 shapes of 10 to 48 px, as large as the detector has seen them in training, on one
ground. Whole, the canvas has the size of the scene; in tiles, that of a tile. Both have the same weights and keep 400 objects
an image. Prints mask AP (pycocotools, up to 1,000 detections an image), and how many shapes were found twice: by two objects
of its class with a score of 0.5 and a mask IoU of 0.5 or more. Takes some minutes and 3 GB. Results are in RESULTS.md beside
this file.
"""

import argparse
import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvision import run
from jaxvision.data import synthetic
from jaxvision.masks import runs
from jaxvision.masks.runs import Runs
from jaxvision.run import tiles

SIDE, CELLS, SHAPE, KEPT = 2_000, 16, 96, 400
WAYS = (None, (512, 128), (256, 64), (256, 32))


class Scene(NamedTuple):
    """A large image with its objects."""

    pixels: np.ndarray
    labels: list[int]
    masks: list[Runs]


def scene(seed: int) -> Scene:
    """The shapes of small images, one each in the cells of a grid, moved by chance, on one gradient with noise."""
    random = np.random.default_rng(seed)
    along = np.linspace(0, 1, SIDE, dtype=np.float32)
    ground = 80 + 80 * (along[:, None, None] + along[None, :, None]) / 2 + random.uniform(-10, 10, 3)
    pixels = np.clip(ground + random.uniform(-8, 8, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    labels, masks, room = [], [], SIDE // CELLS - SHAPE
    source = synthetic.shapes(CELLS**2, seed=seed, size=SHAPE, max_objects=1)
    for place, example in enumerate(source.read(np.arange(CELLS**2))):
        objects, (row, column) = example.objects, divmod(place, CELLS)
        assert objects is not None
        assert objects.masks is not None
        top, left = (SIDE // CELLS * each + int(random.integers(0, room)) for each in (row, column))
        window = pixels[top : top + SHAPE, left : left + SHAPE]
        for label, mask in zip(objects.labels, objects.masks, strict=True):
            inside = np.asarray(mask, bool)
            window[inside] = np.asarray(example.image)[inside]
            labels.append(int(label))
            masks.append(runs.of_window(inside, (top, left), (SIDE, SIDE)))
    return Scene(pixels, labels, masks)


def found(workdir: str, way: tuple[int, int] | None, images: Sequence[np.ndarray], detector: str) -> list[list[dict]]:
    """The objects of each image."""
    size = SIDE if way is None else way[0]
    kept = KEPT if way is None else max(50, KEPT * size**2 * 2 // SIDE**2)
    overrides = {"size": str(size), f"{detector}.proposals": str(kept)}
    model = run.load(workdir, "latest", overrides=overrides, batch_size=1)
    tiling = None if way is None else tiles.checked(*way)
    return [model.predict([image], score_threshold=0.05, tiling=tiling)[0]["objects"] for image in images]


def mask_ap(scenes: Sequence[Scene], objects: Sequence[list[dict]], classes: int) -> tuple[float, float]:
    """AP and AP50, in per cent."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    truth["categories"] = [{"id": label + 1, "name": str(label)} for label in range(classes)]
    results = []
    for number, (known, each) in enumerate(zip(scenes, objects, strict=True), 1):
        truth["images"].append({"id": number, "height": SIDE, "width": SIDE})
        for label, mask in zip(known.labels, known.masks, strict=True):
            x0, y0, x1, y1 = runs.box(mask).tolist()
            entry = {"id": len(truth["annotations"]) + 1, "image_id": number, "category_id": label + 1, "iscrowd": 0}
            shape = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": runs.area(mask), "segmentation": mask.coco()}
            truth["annotations"].append(entry | shape)
        fields = ("category_id", "segmentation", "score")
        results += [{"image_id": number, **{field: one[field] for field in fields}} for one in each]
    with contextlib.redirect_stdout(io.StringIO()):
        coco: Any = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "segm")
        evaluation.params.maxDets = [1, 100, 1_000]
        evaluation.evaluate()
        evaluation.accumulate()
    precision: Any = evaluation.eval["precision"][:, :, :, 0, 2]
    return 100 * float(precision.mean()), 100 * float(precision[0].mean())


def twice(known: Scene, objects: list[dict]) -> int:
    """How many shapes two objects of their class were found for."""
    count = 0
    for label in set(known.labels):
        sure = [one for one in objects if one["category_id"] == label + 1 and one["score"] >= 0.5]
        truth = [mask for mask, each in zip(known.masks, known.labels, strict=True) if each == label]
        iou = runs.iou([runs.of_coco(one["segmentation"]) for one in sure], truth, [False] * len(truth))
        count += int(((np.asarray(iou) >= 0.5).sum(0) > 1).sum()) if sure else 0
    return count


def main() -> None:
    """Prints a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir")
    parser.add_argument("--scenes", type=int, default=4)
    flags = parser.parse_args()
    config = json.loads((Path(flags.workdir) / "config.json").read_text("utf-8"))
    detector = config.get("config", config)["detector"]
    scenes = [scene(2_000 + number) for number in range(flags.scenes)]
    total = sum(len(each.labels) for each in scenes)
    print(f"{flags.scenes} scenes, {total} shapes, weights of {flags.workdir}")
    for way in WAYS:
        objects = found(flags.workdir, way, [each.pixels for each in scenes], detector)
        ap, ap50 = mask_ap(scenes, objects, 3)
        doubled = sum(map(twice, scenes, objects))
        name = "whole" if way is None else f"tiles of {way[0]}, overlap {way[1]}"
        print(f"{name:26} mask AP {ap:.2f}, AP50 {ap50:.2f}; {sum(map(len, objects))} objects, {doubled} shapes twice")


if __name__ == "__main__":
    main()
