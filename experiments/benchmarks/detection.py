"""Operators of detection and a training step of SSD300, beside torchvision's, in one run.

    python experiments/benchmarks/detection.py

NMS of 1,000, 5,000 and 20,000 boxes at IoU 0.5, ROIAlign of 512 regions on a 50x50 map of 256 channels with its
gradient, and one step of SSD300-VGG16 on two images (forward, loss, gradient). Ours and theirs take turns; float32, on
whatever device JAX and torch each find (CPU both, unless both have a GPU). Needs torch and torchvision (the extra
`parity`). About two minutes on two CPU cores. Prints a table; results are in RESULTS.md beside this file.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torchvision import ops
from torchvision.models.detection import ssd300_vgg16 as their_ssd

from jaxvision.ops.nms import nms
from jaxvision.ops.roi_align import roi_align
from jaxvision.tasks.ssd import SSD300, ssd, ssd300_vgg16
from jaxvision.types import Batch, Objects

DEVICE = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"


def boxes_and_scores(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of an image of 1,000 px in clusters, as before NMS, and scores."""
    random = np.random.default_rng(seed)
    centre = random.uniform(0, 1000, (max(count // 20, 1), 2))[random.integers(0, max(count // 20, 1), count)]
    centre, half = centre + random.normal(0, 8, (count, 2)), random.uniform(10, 60, (count, 2))
    return np.concatenate([centre - half, centre + half], 1).astype(np.float32), random.random(count, np.float32)


def nms_of(count: int) -> tuple[Callable, Callable]:
    boxes, scores = boxes_and_scores(count)
    arrays = jnp.asarray(boxes), jnp.asarray(scores), jnp.ones(count, bool)
    run = jax.jit(lambda boxes, scores, valid: nms(boxes, scores, valid, 0.5))
    tensors = torch.from_numpy(boxes).to(DEVICE), torch.from_numpy(scores).to(DEVICE)
    kept = np.sort(ops.nms(*tensors, 0.5).cpu().numpy())
    assert np.array_equal(np.flatnonzero(run(*arrays)), kept), "they keep different boxes"
    return lambda: run(*arrays).block_until_ready(), lambda: ops.nms(*tensors, 0.5)


def alignment(regions: int = 512, channels: int = 256, side: int = 50) -> tuple[Callable, Callable]:
    random = np.random.default_rng(0)
    features = random.standard_normal((side, side, channels), np.float32)
    boxes, _ = boxes_and_scores(regions)
    boxes = np.clip(boxes, 0, 16 * side)
    loss = lambda x, boxes: roi_align(x, boxes, size=7, scale=1 / 16).sum()
    run, arrays = jax.jit(jax.value_and_grad(loss)), (jnp.asarray(features), jnp.asarray(boxes))
    given = torch.from_numpy(features.transpose(2, 0, 1)[None].copy()).to(DEVICE).requires_grad_()
    where = [torch.from_numpy(boxes).to(DEVICE)]

    def theirs() -> None:
        given.grad = None
        ops.roi_align(given, where, 7, 1 / 16, 2).sum().backward()

    theirs()
    assert np.allclose(run(*arrays)[1], given.grad[0].cpu().numpy().transpose(1, 2, 0), atol=1e-3)
    return lambda: jax.block_until_ready(run(*arrays)), theirs


def training_step(count: int = 2) -> tuple[Callable, Callable]:
    random = np.random.default_rng(0)
    pixels = random.uniform(0, 255, (count, 300, 300, 3)).astype(np.float32)
    boxes = np.asarray([[[10, 20, 110, 90], [150, 30, 290, 260]]] * count, np.float32)
    labels, valid = np.asarray([[1, 5]] * count, np.int32), np.ones((count, 2), bool)
    size, index = jnp.full((count, 2), 300, jnp.int32), jnp.arange(count, dtype=jnp.int32)
    target = Objects(jnp.asarray(boxes), jnp.asarray(labels), jnp.asarray(valid), jnp.asarray(~valid))
    batch = Batch(jnp.asarray(pixels), size, size, index, index >= 0, target)
    task = ssd(ssd300_vgg16(90), SSD300)
    variables = jax.jit(task.init)(jax.random.key(0), batch)
    run = jax.jit(jax.value_and_grad(lambda v, batch: task.loss(v, batch, jax.random.key(0))[0]))

    model = their_ssd(weights=None, weights_backbone=None, num_classes=91).to(DEVICE).train()
    images = [torch.from_numpy(x.transpose(2, 0, 1) / 255).to(DEVICE) for x in pixels]
    targets = [
        {"boxes": torch.from_numpy(b).to(DEVICE), "labels": torch.from_numpy(n.astype(np.int64) + 1).to(DEVICE)}
        for b, n in zip(boxes, labels, strict=True)
    ]

    def theirs() -> None:
        model.zero_grad()
        torch.stack(list(model(images, targets).values())).sum().backward()

    return lambda: jax.block_until_ready(run(variables, batch)), theirs


def seconds(run: Callable) -> float:
    start = time.perf_counter()
    run()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(name: str, pair: tuple[Callable, Callable], times: int) -> str:
    for run in pair:
        run()
    taken = [[seconds(run) * 1e3 for run in pair] for _ in range(times)]
    ours, theirs = zip(*taken, strict=True)
    ratios = [b / a for a, b in taken]
    show = lambda x: f"{statistics.median(x):.4g} ({min(x):.4g} to {max(x):.4g})"
    return f"| {name} | {show(ours)} | {show(theirs)} | {show(ratios)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Detection beside torchvision.")
    parser.add_argument("--times", type=int, default=9, help="turns of each (9)")
    times = parser.parse_args().times
    print(f"JAX {jax.__version__} on {jax.devices()[0].device_kind}, torch {torch.__version__} on {DEVICE}")
    print("| ms: median (least to most) | ours | torchvision | torchvision / ours |\n|---|---|---|---|")
    for count in (1_000, 5_000, 20_000):
        print(compare(f"NMS of {count:,} boxes", nms_of(count), times), flush=True)
    print(compare("ROIAlign, 512 regions, with gradient", alignment(), times), flush=True)
    print(compare("SSD300 step, 2 images", training_step(), max(times // 3, 3)), flush=True)


if __name__ == "__main__":
    main()
