"""One checkpoint of a run that may be under way, and may delete it meanwhile."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import cast

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from jaxvision.errors import CheckpointError
from jaxvision.experiment import Keep
from jaxvision.run.checkpoint import Checkpoints, NoSuchCheckpoint, Saved, Which, aside_of, on_all

READS = 5
"""How often a reader begins again because a checkpoint was deleted meanwhile, before it reads copies."""
COPIES = 20
"""How often it begins again with a copy, which takes less time to make than a checkpoint to read."""


def load_only(folder: Path, which: Which | None, keep: Keep, like: PyTree) -> Saved:
    """One checkpoint of a run, which may be under way; nothing in its folder is changed.

    Where the run deletes a checkpoint while it is read, the choice is made anew, in the end with a copy of all.

    Args:
      folder: of the checkpoints.
      which: the best by `keep.by`, the latest, the one of a step, or None: the best where one has that metric, finite, else
        the latest.
      keep: of the experiment.
      like: as for `Checkpoints.newest`.

    Raises:
      CheckpointError: if there is none such, it can't be read, or it holds another tree than `like`.
    """
    if not folder.is_dir():
        raise CheckpointError(f"there are no checkpoints: no folder {folder}")
    for turn in range(READS + COPIES):
        saved, stood = (_read if turn < READS else _read_copy)(folder, which, keep, like)
        if on_all(isinstance(saved, Saved)):
            return cast(Saved, saved)
        if on_all(stood):
            raise saved if isinstance(saved, Exception) else CheckpointError(f"{folder}: another process can't read it")
    raise CheckpointError(
        f"{folder}: the run deleted checkpoints while they were read, {READS + COPIES} times on end; another try, or "
        "another checkpoint, may succeed"
    )


def _read(folder: Path, which: Which | None, keep: Keep, like: PyTree) -> "tuple[Saved | Exception, bool]":
    """The checkpoint, or why there is none, and whether no checkpoint was deleted meanwhile."""
    before = _standing(folder)
    saved = _read_once(folder, which, keep, like)
    return saved, before <= _standing(folder)


def _read_copy(folder: Path, which: Which | None, keep: Keep, like: PyTree) -> "tuple[Saved | Exception, bool]":
    """Reads a copy in a temporary folder, as `_read` does; what is deleted once the copy is made does not matter."""
    with tempfile.TemporaryDirectory(prefix="jaxvision-") as scratch:
        copy, before = Path(scratch, "checkpoints"), _standing(folder)
        for source, target in ((folder, copy), (aside_of(folder), aside_of(copy))):
            with contextlib.suppress(OSError):
                for each in [path for path in source.iterdir() if path.name.isdecimal()]:
                    shutil.copytree(each, target / each.name)
        if not before <= _standing(folder):
            return NoSuchCheckpoint(f"{folder}: a checkpoint was deleted while it was copied"), False
        return _read_once(copy, which, keep, like), True


def _standing(folder: Path) -> set[tuple[str, int]]:
    """The checkpoints of a folder, each with what tells it from a later one of the same step; also those set aside."""
    found = set()
    for place in (folder, aside_of(folder)):
        with contextlib.suppress(OSError):
            found |= {
                (f"{place.name}/{each.name}", each.inode()) for each in os.scandir(place) if each.name.isdecimal()
            }
    return found


def _read_once(folder: Path, which: Which | None, keep: Keep, like: PyTree) -> "Saved | Exception":
    """The checkpoint, or why there is none; one that is being written anew is read where it stands meanwhile."""
    try:
        with Checkpoints(folder, keep, read_only=True) as checkpoints:
            return checkpoints.load(_agreed(checkpoints, which), like)
    except NoSuchCheckpoint as error:
        aside = aside_of(folder)
        saved = _read_once(aside, which, keep, like) if aside.is_dir() else error
        return saved if isinstance(saved, Saved) else error
    except Exception as error:
        return error


def _agreed(checkpoints: Checkpoints, which: Which | None) -> int:
    """The step of the checkpoint, the same on all processes: each may have listed the folder at another moment."""
    if jax.process_count() == 1:
        return checkpoints.chosen(which)
    try:
        step = checkpoints.chosen(which)
    except NoSuchCheckpoint:
        step = -1
    step = int(multihost_utils.broadcast_one_to_all(np.int64(step)))
    return checkpoints.chosen(which if step < 0 else step)
