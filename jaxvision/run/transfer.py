"""What one network learned, for another run: its weights to start from, or its features to train on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxvision import optimize
from jaxvision.errors import ConfigError
from jaxvision.pretrained.export import named, own_sources
from jaxvision.pretrained.strict import load
from jaxvision.run import devices, restore
from jaxvision.run.checkpoint import Which
from jaxvision.run.evaluation import make_observe, observed, table
from jaxvision.types import Metric, Stream, Task, Variables


class FromRun(NamedTuple):
    """The `start` of an experiment that begins with what another run learned; `from_run` makes one."""

    workdir: Path
    """Parent of the run that begins so, which notes it in `starts.jsonl`."""
    which: Which | None
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def __call__(self, variables: Variables) -> Variables:
        """The variables, filled; it prints what became of every array."""
        saved = restore.load_checkpoint(restore.restore(self.workdir), self.which, devices.device_mesh())
        if not jax.tree.leaves(saved.state.params):
            raise ConfigError(f"{self.workdir} holds no parameters to start from{_made_of(self.workdir)}")
        arrays = named(own_sources, optimize.whole(saved.state.averaged))
        try:
            loaded = load(own_sources(variables), arrays, variables, new=self.new, unused=self.unused)
        except ValueError as error:
            raise ValueError(f"{self.workdir}, step {saved.step}: {error}") from error
        print(f"{self.workdir}, step {saved.step}: {loaded.report}", flush=True)
        return loaded.variables


def _made_of(workdir: Path) -> str:
    """What a message says of the run that this one was made of, if any."""
    file = workdir / "starts.jsonl"
    first = file.read_text(encoding="utf-8").splitlines()[:1] if file.is_file() else []
    parent = json.loads(first[0]).get("parent") if first else None
    return f": it was made of {parent}, start from that" if parent else ""


def from_run(
    workdir: str | Path, which: Which | None = None, *, new: Sequence[str] = (), unused: Sequence[str] = ()
) -> FromRun:
    """Fills fresh variables from a checkpoint of another run, averaged ones where it has some: for `Experiment.start`.

    It prints what became of every array. Arrays are named as in "params/backbone/stem_conv/kernel".

    Args:
        workdir: of the other run, which is left as it is.
        which: the checkpoint, as for `restore.load_checkpoint`.
        new: patterns of names (without the collection) that keep their fresh values.
        unused: patterns of names of the other run (with it) that are left aside.

    Returns:
        A function that raises as `restore.restore`, `restore.load_checkpoint` and `strict.load` do.
    """
    return FromRun(Path(workdir), which, tuple(new), tuple(unused))


def extract(task: Task, variables: Variables, stream: Stream) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The features of every image of an evaluation stream: for `data.features.cached`.

    Args:
        task: classification with a network without a head, whose "logits" are features `b d`.
        variables: of the network.
        stream: of labelled images.

    Returns:
        The features `n d`, the labels `n`, both without images that were skipped, and the names of the classes.
    """
    metric = Metric(lambda scores, batch: {"features": scores.logits, "label": batch.target.label}, lambda rows: {})
    observe = make_observe(task.predict, metric)
    rows = table(observed(observe, variables, stream.batches(0)))
    return rows["features"], rows["label"], stream.about().classes
