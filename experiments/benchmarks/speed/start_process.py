"""Sides of the benchmark `start`: whole processes, in the environment of whoever starts them."""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from experiments.benchmarks.speed.contest import ROOT, Work
from jaxvision.machine import huge_pages

VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def process(module: str, arguments: Sequence[str] = (), cache: Literal["fresh", "kept", "none"] = "none") -> Work:
    """A program that is started anew for each unit, in a new folder.

    Args:
      module: the program.
      arguments: of its command line.
      cache: the folder for compiled programs: an empty one each time, one for all times, or none.

    Its last line is JSON, the outcome: what it trains.
    """
    kept = Path(
        tempfile.gettempdir(), f"jaxvision-{module}"
    )  # this process is killed in the end: the next one clears it
    shutil.rmtree(kept, ignore_errors=True)
    told: list[str] = []

    def run(units: int) -> None:
        for _ in range(units):
            with tempfile.TemporaryDirectory() as folder:
                told[:] = started(module, arguments, folder, {"fresh": folder, "kept": str(kept), "none": ""}[cache])

    def outcome() -> list[float]:
        run(1)
        return list(json.loads(told[-1]).values()) if told and told[-1].startswith("{") else []

    return Work(run, outcome, device_bytes=lambda: 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def started(module: str, arguments: Sequence[str], folder: str, cache: str) -> list[str]:
    """The lines that the program wrote, started with this folder to write into; raises RuntimeError where it failed."""
    environment = {name: value for name, value in os.environ.items() if name not in (VARIABLE, huge_pages.VARIABLE)}
    if cache:
        Path(cache).mkdir(exist_ok=True)
        environment |= {VARIABLE: str(Path(cache, "compilations")), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5"}
    given = arguments or [f"--workdir={Path(folder, 'run')}"]
    ended = subprocess.run(
        [sys.executable, "-m", module, *given], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    helped = "--help" in given and ended.stdout  # absl tells it, and ends with status 1
    if ended.returncode and not helped:
        raise RuntimeError((ended.stderr or ended.stdout).strip())
    return ended.stdout.strip().splitlines()
