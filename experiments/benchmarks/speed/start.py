"""Time to the first training step, of `--help`, and of compiling each detector's step.

The run is `experiments/quickstart.py`: six convolutions with BatchNorm, dropout and a dense layer, on 10,000 images of
Fashion-MNIST, batches of 128. Beside it stand a main as Flax's examples have one, and one as timm's `train.py`, of the same
network. Ours also averages the weights, watches for numbers that are not finite, and opens a run's folder. Each process
ends when its first step is done. *Cold* is with an empty folder for compiled programs, *again* with the same program
started before, each as it is: Flax's examples keep none; beside them stands one that was told a folder.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from experiments.benchmarks.speed.contest import ROOT, Contest, Side
from experiments.benchmarks.speed.table import Figure

HERE = "experiments.benchmarks.speed"
WORK = f"{HERE}.start_process:process"
DETECTORS = ("ssd", "yolo", "yolox", "retinanet", "faster_rcnn", "mask_rcnn", "detr", "yolact")
COLD, AGAIN = 1 / 0.7, 1 / 0.35
LONGEST = 60.0
"""Seconds that a step may take to compile on two cores."""


def rows(small: bool) -> Iterator[Contest | Callable[[], list[Figure]]]:
    """Contests of whole processes, then the time of compilations."""
    blocks = 1 if small else 7
    yield Contest("first training step, cold", sides(COLD, cache="fresh"), blocks=blocks, tolerance=0.0)
    again = sides(AGAIN, cache="kept")
    told = again[1]._replace(name="Flax-style main, told to keep compilations", least=None)
    never = again[1]._replace(given={**again[1].given, "cache": "none"})
    yield Contest("first training step, again", (again[0], never, told, again[2]), blocks=blocks, tolerance=0.0)
    yield Contest("--help", sides(1.0, arguments=["--help"]), blocks=blocks)
    for name in ("detr",) if small else DETECTORS:
        yield partial(compiled, name, small)


def sides(least: float, **given: Any) -> tuple[Side, ...]:
    """Ours and the two peers; `least` is what theirs takes at least, by ours."""
    return (
        Side("ours", WORK, {"module": f"{HERE}.start_ours", **given}),
        Side("Flax-style main", WORK, {"module": f"{HERE}.start_flax", **given}, least=least),
        Side("as timm's train.py", WORK, {"module": f"{HERE}.start_torch", **given}, peer=True, least=least),
    )


def compiled(name: str, small: bool) -> list[Figure]:
    """The time of compiling a detector's step."""
    seconds, what = compilation(name, small), f"compiling the step of {name}"
    clock = Figure(f"{what}, clock", seconds["clock"], "s", most=LONGEST)
    return [clock, Figure(f"{what}, processor time", seconds["processor"], "s")]


def compilation(name: str, small: bool) -> Mapping[str, float]:
    """Seconds, by the clock and of the processor, that a detector's training step takes to compile in a fresh process."""
    command = [sys.executable, "-m", f"{HERE}.start_compile", name, *(["--small"] if small else [])]
    told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return json.loads(told.splitlines()[-1])
