"""What is said and saved of a step that was not finite."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from jax.sharding import Mesh

from jaxvision.data.features import write_npz
from jaxvision.errors import amount
from jaxvision.experiment import Experiment, task_of
from jaxvision.run import devices, processes
from jaxvision.run.checkpoint import Checkpoints
from jaxvision.train import NonFiniteLoss, TrainState, example_finite
from jaxvision.types import Batch


def explain(error: NonFiniteLoss, chosen: Experiment, mesh: Mesh, folder: Path) -> None:
    """Adds to the error the names of the examples behind it, and where their batch and the state before it are saved.

    Args:
      error: as the loop raised it.
      chosen: the experiment.
      mesh: of the devices.
      folder: where to save; what an earlier step left goes.
    """
    batch = next(chosen.train.batches(error.step))
    state = error.progress.state.replace(failed_step=error.progress.state.failed_step * 0 - 1)
    good = example_finite(task_of(chosen), chosen.augment)(devices.here(state, mesh), batch)
    error.remarks.append(blame([int(i) for i in batch.index], good, chosen.train.about().name))
    try:
        save_step(folder, error.step, state, batch)
        error.remarks.append(f"the batch and the state before it are in {folder}")
    except Exception as trouble:
        error.remarks.append(f"its batch and state could not be saved: {trouble}")
    error.remarks.append("nonfinite='skip' in the experiment goes on without such a step")


def blame(index: Sequence[int], good: Sequence[bool], name: Callable[[int], str]) -> str:
    """Which examples, each alone, have a loss or a gradient that is not finite; none is named where that tells nothing."""
    bad = [name(i) for i, fine in zip(index, good, strict=True) if not fine]
    if not bad:
        return f"each of its {amount(len(good), 'example')} alone is finite"
    if len(bad) == len(good) > 1:
        return f"every one of its {amount(len(good), 'example')} alone is not finite"
    return f"not finite for {', '.join(bad[:5])}" + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")


def save_step(folder: Path, step: int, state: TrainState, batch: Batch) -> None:
    """Saves the batch as `batch_<step>.npz` and the state as a checkpoint, in place of what an earlier step left."""
    if folder.is_dir() and processes.is_first():
        shutil.rmtree(folder)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(step, state, {"history": [], "interval": [], "rows": 0}, None)
    leaves = {jax.tree_util.keystr(path).strip("."): x for path, x in jax.tree_util.tree_leaves_with_path(batch)}
    if processes.is_first():
        write_npz(folder / f"batch_{step}.npz", **leaves)
