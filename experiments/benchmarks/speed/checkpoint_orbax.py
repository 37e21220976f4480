"""Sides of Orbax in the benchmark `checkpoint`: no jaxvision in them."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from experiments.benchmarks.speed.checkpoint_state import arrays, told
from experiments.benchmarks.speed.contest import Work


def synchronous(width: int) -> Work:
    """`save`, which returns when all is on disk, the checkpoint before removed after the block."""
    return _work(width, ocp.save)


def asynchronous(width: int) -> Work:
    """`save_async`, which returns when its caller may go on; what it writes is awaited after the block."""
    return _work(width, ocp.save_async)


def _work(width: int, save: Callable[[str, PyTree], Any]) -> Work:
    state = jax.device_put(arrays(width))
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    step, under_way = 0, None

    def run(units: int) -> None:
        nonlocal step, under_way
        for _ in range(units):
            step += 1
            under_way = save(str(folder / str(step)), state)

    def settle() -> None:
        if under_way is not None:
            under_way.result()
        for old in folder.iterdir():
            if old.name != str(step):
                shutil.rmtree(old)

    def outcome() -> list[float]:
        run(1)
        settle()
        return told(ocp.load(str(folder / str(step))))

    return Work(run, outcome, settle)
