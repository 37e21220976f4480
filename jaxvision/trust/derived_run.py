"""Derived runs: a workdir made from another one, with another task or other variables, that all commands read.

Its experiment file imports that of the other run, which is kept in `code/`; its only checkpoint is of the same step.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from jaxvision.errors import WorkdirError, raised_as
from jaxvision.experiment import Experiment
from jaxvision.run import first_use, restore
from jaxvision.run.checkpoint import Checkpoints, Saved
from jaxvision.run.own_modules import KEPT
from jaxvision.run.restore import Restored
from jaxvision.run.workdir import Recipe, Workdir
from jaxvision.train import TrainState


def check_new(output: Path, what: str) -> None:
    """Raises WorkdirError for the folder of a new run that is there already; `what` the message calls the run."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise WorkdirError(f"{output} is there already: choose another folder for the {what} run")


def write(
    run: Restored,
    saved: Saved,
    output: Path,
    original: str,
    text: Callable[[str], str],
    state: Callable[[Experiment], TrainState],
    command: Sequence[str] = (),
) -> None:
    """Writes the new workdir, whole or not at all.

    Args:
      run: the other run, which is left as it is, its config without overrides.
      saved: the checkpoint that the new one is made of.
      output: folder of the new run; not there, or empty.
      original: name of the module that keeps the experiment file of the other run; a number is added where that is taken.
      text: from this name to the experiment file of the new run.
      state: from the experiment that this file builds to the state that is saved.
      command: the command line, which the new run keeps.
    """
    with _beside(output) as partial, tempfile.TemporaryDirectory(prefix="jaxvision-") as scratch:
        source = _experiment_file(run.workdir, Path(scratch), original, text)
        first_use.note(source)
        recipe = Recipe(source, restore.recipe(run.workdir.path).config, command)
        workdir = Workdir(partial)
        with workdir.held():
            workdir.open(recipe, run.fingerprints, classes=run.classes, parent=run.workdir.path)
            experiment = restore.restore(partial).experiment
            with Checkpoints(workdir.checkpoints, experiment.keep) as checkpoints:
                checkpoints.save(saved.step, state(experiment), saved.notes, _metrics_of(saved))
            workdir.note_saved(saved.step)


def _metrics_of(saved: Saved) -> dict[str, float] | None:
    """Metrics of the checkpoint as it was, so that the only one of the new run is its best; None where it has none."""
    found = next((each for each in saved.notes.get("history", ()) if each["step"] == saved.step), None)
    return None if found is None else {name: value for name, value in found.items() if name != "step"}


def _experiment_file(run: Workdir, scratch: Path, original: str, text: Callable[[str], str]) -> Path:
    """The new experiment file, with that of the run and its modules beside it."""
    if (run.path / KEPT).is_dir():
        shutil.copytree(run.path / KEPT, scratch / KEPT)
    taken = {path.stem for path in (scratch / KEPT).glob("*")}
    name = next(each for each in (f"{original}{n or ''}" for n in count()) if each not in taken)
    shutil.copyfile(run.source, scratch / f"{name}.py")
    source = scratch / "experiment.py"
    source.write_text(text(name), encoding="utf-8")
    return source


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder beside this one, which takes its place if the block ends without an error."""
    partial = folder.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        yield partial
        with raised_as(WorkdirError):
            os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
