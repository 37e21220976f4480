"""Side of torch in the benchmark `checkpoint`."""

import atexit
import shutil
import tempfile
from pathlib import Path

import torch

from experiments.benchmarks.speed.checkpoint_state import arrays, told
from experiments.benchmarks.speed.contest import Work


def saved(width: int) -> Work:
    """`torch.save` into a file, over the one before."""
    state = {kind: {name: torch.from_numpy(x) for name, x in named.items()} for kind, named in arrays(width).items()}
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

    def run(units: int) -> None:
        for _ in range(units):
            torch.save(state, folder / "state.pt")

    def outcome() -> list[float]:
        run(1)
        return told(torch.load(folder / "state.pt"))

    return Work(run, outcome)
