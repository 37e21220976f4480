"""COCO evaluation of 5,000 images, boxes and masks: twelve metrics, beside pycocotools, faster-coco-eval and hotcoco.

Ours begins with the rows that a run keeps, the peers with COCO's dicts, made before. Ours calls hotcoco, with arrays. All
twelve metrics are equal.
"""

from collections.abc import Iterator

from experiments.benchmarks.speed.contest import Contest, Side

HERE = "experiments.benchmarks.speed"


def rows(small: bool) -> Iterator[Contest]:
    """Boxes and masks."""
    images = 60 if small else 5_000
    for masks in (False, True):
        given = {"images": images, "masks": masks}
        peers = (("pycocotools", 20.0), ("faster_coco_eval", 5.0), ("hotcoco", 1.0))
        sides = (
            Side("ours", f"{HERE}.coco_eval_ours:metrics", given),
            *(Side(name, f"{HERE}.coco_eval_peers:{name}", given, True, least) for name, least in peers),
        )
        name = f"COCO evaluation of {images:,} images, {'masks' if masks else 'boxes'}"
        yield Contest(name, sides, blocks=5, tolerance=1e-9)
