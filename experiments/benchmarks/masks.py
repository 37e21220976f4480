"""How much memory and processor time it takes to bring predicted masks to the size of a photograph, beside torchvision.

    python experiments/benchmarks/masks.py

100 masks of 28 px in boxes of all sizes in an image of 4,000 x 3,000 pixels, as run lengths: ours (`masks.paste`, both
geometries), and torchvision's `paste_masks_in_image` followed by pycocotools' encoding. Each measurement is a process of its
own, in turns; memory is what the work adds at most to a process that has imported everything. torchvision's runs take 9 GB.
The run lengths of the geometry that is torchvision's are compared with its own. Needs torchvision and pycocotools (the extras
`parity` and `test`). Takes a minute or two on two CPU cores. Prints a table; results are in RESULTS.md beside this file.
"""

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

HEIGHT, WIDTH, COUNT, TURNS = 3_000, 4_000, 100, 3
WAYS = ("ours", "ours, torchvision's geometry", "torchvision, pasted", "torchvision, pasted and encoded")


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of blobs, and boxes from 20 px to two thirds of the image."""
    random = np.random.default_rng(0)
    sides = np.exp(random.uniform(np.log(20), np.log([2_600, 2_000]), (COUNT, 2)))
    low = random.uniform(0, 1, (COUNT, 2)) * ([WIDTH, HEIGHT] - sides)
    y, x = (np.mgrid[:28, :28] + 0.5) / 14 - 1
    angle, wave = np.arctan2(y, x), random.uniform(0, 2 * np.pi, (COUNT, 1, 1))
    edge = 0.8 + 0.15 * np.cos(3 * angle + wave)
    blobs = 1 / (1 + np.exp(-12 * (edge - np.hypot(x, y))))
    return blobs.astype(np.float32), np.concatenate([low, low + sides], 1).astype(np.float32)


def ours(geometry: str) -> Callable[[], Iterator[bytes]]:
    """The run lengths of each mask, one after another."""
    from jaxvision.masks.paste import run_lengths
    from jaxvision.types import BoxMasks, Canvas

    probabilities, boxes = scene()
    masks = BoxMasks(probabilities, boxes, geometry)  # type: ignore[arg-type]
    canvas = Canvas(np.zeros((1, 1, 3), np.uint8), (HEIGHT, WIDTH), (HEIGHT, WIDTH))
    next(run_lengths(masks, [0], canvas))
    return lambda: (runs.counts for runs in run_lengths(masks, range(COUNT), canvas))


def torchvisions(encoded: bool) -> Callable[[], Iterator[bytes]]:
    """The pasted masks, all of them at once, and their run lengths if wanted."""
    import torch
    from pycocotools import mask as coco
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    probabilities, boxes = map(torch.from_numpy, scene())

    def run() -> Iterator[bytes]:
        pasted = paste_masks_in_image(probabilities[:, None], boxes, (HEIGHT, WIDTH))
        for each in pasted[:, 0] if encoded else ():
            found: Any = coco.encode(np.asfortranarray((each > 0.5).numpy()))
            yield found["counts"]

    return run


def measured(way: str) -> dict[str, float | str]:
    """Seconds, processor seconds and memory of one way, in this process."""
    run = ours("aligned" if way == WAYS[0] else "torchvision") if way in WAYS[:2] else torchvisions(way == WAYS[3])
    before, processor, clock = resident(), time.process_time(), time.perf_counter()
    most, done = [before], threading.Event()
    watch = threading.Thread(target=watched, args=(most, done))
    watch.start()
    digest = hashlib.sha256()
    for counts in run():
        digest.update(counts)
    done.set()
    watch.join()
    return {
        "seconds": time.perf_counter() - clock,
        "processor": time.process_time() - processor,
        "megabytes": (max(most) - before) / 2**20,
        "digest": digest.hexdigest(),
    }


def watched(most: list[int], done: threading.Event) -> None:
    """The memory of this process, looked at every millisecond."""
    while not done.wait(0.001):
        most[0] = max(most[0], resident())


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    """All ways in turns, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=WAYS, help="measure one in this process")
    parser.add_argument("--turns", type=int, default=TURNS)
    chosen = parser.parse_args()
    if chosen.way:
        print(json.dumps(measured(chosen.way)))
        return
    found: dict[str, list[dict]] = {way: [] for way in WAYS}
    for _ in range(chosen.turns):
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{date.today()}, load {os.getloadavg()[0]:.1f}; torchvision {version('torchvision')}\n")
    print("| way | seconds | processor seconds | memory added, MB |\n|---|---|---|---|")
    for way, turns in found.items():
        cells = []
        for name in ("seconds", "processor", "megabytes"):
            values = [turn[name] for turn in turns]
            cells.append(f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})")
        print(f"| {way} | {' | '.join(cells)} |")
    same = found[WAYS[1]][0]["digest"] == found[WAYS[3]][0]["digest"]
    print(f"\nRun lengths of torchvision's geometry are {'equal to' if same else 'DIFFERENT from'} its own.")


if __name__ == "__main__":
    main()
