"""Sides of jaxvision in the benchmark `checkpoint`."""

import atexit
import tempfile
from contextlib import ExitStack
from pathlib import Path

import jax

from experiments.benchmarks.speed.checkpoint_state import arrays, told
from experiments.benchmarks.speed.contest import Work
from jaxvision.experiment import Keep
from jaxvision.run.checkpoint import Checkpoints


def asynchronous(width: int, wait: bool = False) -> Work:
    """A save of a run, until training may go on; the outcome is what is read back."""
    state = jax.device_put(arrays(width))
    open_ = ExitStack()
    atexit.register(open_.close)
    folder = Path(open_.enter_context(tempfile.TemporaryDirectory()))
    checkpoints = open_.enter_context(Checkpoints(folder / "checkpoints", Keep(latest=1)))
    step = 0

    def run(units: int) -> None:
        nonlocal step
        for _ in range(units):
            step += 1
            checkpoints.save(step, state, {}, None)
            if wait:
                checkpoints.wait()

    def outcome() -> list[float]:
        run(1)
        return told(checkpoints.load(step, state).state)

    return Work(run, outcome, checkpoints.wait)


def whole(width: int) -> Work:
    """A save until it is on disk."""
    return asynchronous(width, wait=True)
