"""Training steps of whole detectors, beside torchvision's and transformers': time, memory, and whether all stays finite.

    python experiments/benchmarks/detectors.py

Faster R-CNN and RetinaNet on ResNet-50-FPN beside torchvision's, DETR-R50 beside transformers', random weights, everything
trained but normalisation: forward, loss, gradient, SGD with momentum. Every measurement is a process of its own; ours and
theirs take turns. Time is the median of the steps after the first; memory is what such a step adds at most to that of a
process that has imported everything: of the process on a CPU, of the device on a GPU. On a GPU, at the published size:

    python experiments/benchmarks/detectors.py --size 800 1333 --images 2 --steps 50 --dtype bfloat16

`--ours` leaves the others away, and adds YOLOX-S. Needs torch, torchvision and transformers (the extra `parity`). About
ten minutes on two CPU cores. Prints a table; results are in RESULTS.md beside this file.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

CLASSES = 80
OBJECTS = 8
NAMES = ("faster_rcnn", "retinanet", "detr", "yolox_s")
RATE, MOMENTUM = 1e-4, 0.9
GIGA = 1e9


class Scene(NamedTuple):
    """Images and their objects, as NumPy arrays."""

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


def scene(count: int, height: int, width: int) -> Scene:
    random = np.random.default_rng(0)
    corner = random.uniform(0, 0.6, (count, OBJECTS, 2)) * (width, height)
    side = random.uniform(0.05, 0.4, (count, OBJECTS, 2)) * (width, height)
    images = random.uniform(0, 255, (count, height, width, 3)).astype(np.float32)
    boxes = np.concatenate([corner, corner + side], -1).astype(np.float32)
    return Scene(images, boxes, random.integers(0, CLASSES, (count, OBJECTS)).astype(np.int32))


Step = Callable[[], float]
"""Takes a step; returns its loss, when all is done."""


def ours(name: str, given: Scene, dtype: str) -> Step:
    import jax
    import jax.numpy as jnp
    import optax

    from jaxvision.tasks.detr import detr, detr_resnet50
    from jaxvision.tasks.faster_rcnn import faster_rcnn, faster_rcnn_resnet50_fpn
    from jaxvision.tasks.retinanet import retinanet, retinanet_resnet50_fpn
    from jaxvision.tasks.yolox import yolox, yolox_s
    from jaxvision.train import init_state, make_train_step
    from jaxvision.types import Batch, Objects

    kind = jnp.dtype(dtype)
    task = {
        "faster_rcnn": lambda: faster_rcnn(faster_rcnn_resnet50_fpn(CLASSES, dtype=kind), dtype=kind),
        "retinanet": lambda: retinanet(retinanet_resnet50_fpn(CLASSES, dtype=kind), dtype=kind),
        "detr": lambda: detr(detr_resnet50(CLASSES, dtype=kind), dtype=kind),
        "yolox_s": lambda: yolox(yolox_s(CLASSES, dtype=kind), dtype=kind),
    }[name]()
    count, height, width, _ = given.images.shape
    size, index = jnp.tile(jnp.int32([[height, width]]), (count, 1)), jnp.arange(count, dtype=jnp.int32)
    valid = jnp.ones((count, OBJECTS), bool)
    target = Objects(jnp.asarray(given.boxes), jnp.asarray(given.labels), valid, ~valid)
    batch = Batch(jnp.asarray(given.images), size, size, index, index >= 0, target)
    sgd = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(RATE, MOMENTUM))
    spec = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    state = init_state(task, sgd, jax.random.key(0), spec)
    run = jax.jit(make_train_step(task, sgd), donate_argnums=0)

    def step() -> float:
        nonlocal state
        state, metrics = run(state, batch)
        return float(metrics["loss"])

    return step


def theirs(name: str, given: Scene, dtype: str) -> Step:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    half = torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")
    model, loss = _of_transformers(given, device) if name == "detr" else _of_torchvision(name, given, device)
    sgd = torch.optim.SGD(model.parameters(), RATE, MOMENTUM)

    def step() -> float:
        sgd.zero_grad()
        with half:
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        sgd.step()
        return value.item()

    return step


def _of_torchvision(name: str, given: Scene, device: str) -> tuple[Any, Callable]:
    import torch
    from torchvision.models.detection import fasterrcnn_resnet50_fpn, retinanet_resnet50_fpn
    from torchvision.ops.misc import FrozenBatchNorm2d

    height, width = given.images.shape[1:3]
    make = {"faster_rcnn": fasterrcnn_resnet50_fpn, "retinanet": retinanet_resnet50_fpn}[name]
    sizes = {"min_size": min(height, width), "max_size": max(height, width)}
    model = make(weights=None, weights_backbone=None, num_classes=CLASSES + 1, trainable_backbone_layers=5, **sizes)
    _freeze(model, torch.nn.BatchNorm2d, FrozenBatchNorm2d)
    model.to(device).train()
    images = [torch.from_numpy(x.transpose(2, 0, 1) / 255).to(device) for x in given.images]
    labels = given.labels.astype(np.int64) + 1
    targets = [
        {"boxes": torch.from_numpy(boxes).to(device), "labels": torch.from_numpy(numbers).to(device)}
        for boxes, numbers in zip(given.boxes, labels, strict=True)
    ]
    return model, lambda: torch.stack(list(model(images, targets).values())).sum()


def _freeze(model: Any, kind: type, frozen: type) -> None:
    """Puts frozen normalisation where there is other: without pretrained weights torchvision has it trained."""
    for name, child in model.named_children():
        if isinstance(child, kind):
            setattr(model, name, frozen(child.num_features))  # type: ignore[attr-defined]
        else:
            _freeze(child, kind, frozen)


def _of_transformers(given: Scene, device: str) -> tuple[Any, Callable]:
    import torch
    from transformers import DetrConfig, DetrForObjectDetection

    height, width = given.images.shape[1:3]
    config = DetrConfig(backbone="resnet50", num_labels=CLASSES, auxiliary_loss=True)
    model = DetrForObjectDetection(config).to(device).train()
    x0, y0, x1, y1 = np.moveaxis(given.boxes / np.array([width, height, width, height], np.float32), -1, 0)
    unit = np.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], -1)
    labels = [
        {
            "class_labels": torch.from_numpy(numbers.astype(np.int64)).to(device),
            "boxes": torch.from_numpy(boxes).to(device),
        }
        for numbers, boxes in zip(given.labels, unit, strict=True)
    ]
    pixels = torch.from_numpy((given.images.transpose(0, 3, 1, 2) / 255 - 0.45) / 0.225).to(device)
    mask = torch.ones(len(pixels), height, width, dtype=torch.long, device=device)
    return model, lambda: model(pixel_values=pixels, pixel_mask=mask, labels=labels).loss


class Memory:
    """What the steps add at most to the memory that is used now, in bytes."""

    def __init__(self, side: str):
        self.side = side
        self.gpu = self._device() is not None
        self.before = self._now("VmRSS")

    def begin(self) -> None:
        """Forgets the most so far: compilation and the first step."""
        if self.gpu and self.side == "theirs":
            self._device().reset_peak_memory_stats()
        elif not self.gpu:
            Path("/proc/self/clear_refs").write_text("5")

    def most(self) -> float:
        """What was used at most since."""
        if not self.gpu:
            return self._now("VmHWM") - self.before
        device = self._device()
        return (
            device.max_memory_allocated()
            if self.side == "theirs"
            else device.memory_stats()["peak_bytes_in_use"]  # the whole process's: there is no reset
        )

    def _device(self) -> Any:
        if self.side == "theirs":
            import torch

            return torch.cuda if torch.cuda.is_available() else None
        import jax

        return jax.devices()[0] if jax.default_backend() == "gpu" else None

    @staticmethod
    def _now(field: str) -> float:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return 1024.0 * int(lines[field].split()[0])


def measure(side: str, name: str, args: argparse.Namespace) -> dict:
    """In a process of its own: seconds of every step but the first, most memory, the last loss."""
    given = scene(args.images, *args.size)
    if side == "ours":
        import jax

        from jaxvision.run.devices import keep_compilations

        keep_compilations()
        jax.block_until_ready(jax.numpy.zeros(1))
    else:
        import torch
        import torchvision.models.detection  # noqa: F401
        import transformers  # noqa: F401

        torch.zeros(1)
    memory = Memory(side)
    step = {"ours": ours, "theirs": theirs}[side](name, given, args.dtype)
    losses, seconds = [step()], []
    memory.begin()
    for _ in range(args.steps):
        start = time.perf_counter()
        losses.append(step())
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "bytes": memory.most(), "losses": losses}


def child(side: str, name: str, argv: list[str]) -> dict:
    command = [sys.executable, __file__, *argv, f"--measure={side}/{name}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{side} {name} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def report(name: str, runs: dict[str, list[dict]], images: int) -> str:
    """A row of the table."""
    seconds = {side: [statistics.median(run["seconds"]) for run in each] for side, each in runs.items()}
    least = {side: min(run["bytes"] for run in each) / GIGA for side, each in runs.items()}
    finite = all(math.isfinite(loss) for each in runs.values() for run in each for loss in run["losses"])
    show = lambda x: f"{statistics.median(x):.3g} ({min(x):.3g} to {max(x):.3g})"
    cells = [name, show(seconds["ours"]), f"{images / statistics.median(seconds['ours']):.3g}"]
    if "theirs" in runs:
        ratios = [b / a for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)]
        cells += [show(seconds["theirs"]), show(ratios), f"{least['ours']:.2f}", f"{least['theirs']:.2f}"]
    else:
        cells += ["", "", f"{least['ours']:.2f}", ""]
    return f"| {' | '.join(cells)} | {'yes' if finite else 'NO'} |"


def main() -> None:
    argv = sys.argv[1:]
    parser = argparse.ArgumentParser(description="Training steps of detectors beside torchvision's and transformers'.")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--images", type=int, default=2, help="in a batch (2)")
    parser.add_argument("--steps", type=int, default=3, help="after the first one (3)")
    parser.add_argument("--times", type=int, default=3, help="turns of each (3)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--ours", action="store_true", help="leave the others away")
    parser.add_argument("--only", choices=NAMES, nargs="+", help="these detectors")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure:
        side, name = args.measure.split("/")
        print(json.dumps(measure(side, name, args)))
        return
    sides = ("ours",) if args.ours else ("ours", "theirs")
    print(f"{args.images} images of {args.size[0]} x {args.size[1]}, {args.dtype}")
    print("| step | ours, s | ours, images/s | theirs, s | theirs / ours | ours, GB | theirs, GB | finite |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.only or NAMES[: None if args.ours else -1]:
        runs: dict[str, list[dict]] = {side: [] for side in sides}
        for _ in range(args.times):
            for side in sides:
                runs[side].append(child(side, name, argv))
        print(report(name, runs, args.images), flush=True)


if __name__ == "__main__":
    main()
