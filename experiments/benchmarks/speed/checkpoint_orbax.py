"""Side of Orbax in the benchmark `checkpoint`: no jaxvision in it."""

import atexit
import shutil
import tempfile
from pathlib import Path

import jax
from orbax.checkpoint import v1 as ocp

from experiments.benchmarks.speed.checkpoint_state import arrays, told
from experiments.benchmarks.speed.contest import Work


def synchronous(width: int) -> Work:
    """`save`, which returns when all is on disk, the checkpoint before removed after the block."""
    state = jax.device_put(arrays(width))
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    step = 0

    def run(units: int) -> None:
        nonlocal step
        for _ in range(units):
            step += 1
            ocp.save(str(folder / str(step)), state)

    def settle() -> None:
        for old in folder.iterdir():
            if old.name != str(step):
                shutil.rmtree(old)

    def outcome() -> list[float]:
        run(1)
        return told(ocp.load(str(folder / str(step))))

    return Work(run, outcome, settle)
