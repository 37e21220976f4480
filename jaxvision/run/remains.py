"""What a run that has ended leaves for comparisons with others: rows of its last evaluation, hashes of its parameters."""

import logging
from collections.abc import Callable, Iterable

from jaxvision.errors import WorkdirError
from jaxvision.run import hashes, processes, rows
from jaxvision.run.checkpoint import on_all
from jaxvision.run.evaluation import Evaluator
from jaxvision.run.workdir import Workdir
from jaxvision.train import TrainState
from jaxvision.types import Batch, Stream

logger = logging.getLogger(__name__)


def leave(workdir: Workdir, evaluator: Evaluator, state: TrainState, feed: Callable[[Stream], Iterable[Batch]]) -> None:
    """Writes the hash of the last parameters and the rows of the last evaluation, evaluating again where they are not known.

    Raises:
      Stopped: where a signal comes in that evaluation.
      WorkdirError: if they can't be written.
    """
    step = int(state.step)
    note_parameters(workdir, "last", state)
    known = on_all(all(left(workdir, name, step) for name in evaluator.evaluations))
    if evaluator.newest.step != step and not known:
        evaluator.evaluate(state.averaged, feed, step)
    if evaluator.newest.step == step and processes.is_first():
        rows.write(workdir.path, step, {name: each.rows for name, each in evaluator.newest.results.items()})


def left(workdir: Workdir, name: str, step: int) -> bool:
    """Whether the rows of this evaluation and step can be read."""
    try:
        table = rows.read(workdir.path, name)
    except WorkdirError as error:
        logger.warning("%s; the evaluation is made again", error)
        return False
    return table is not None and table.step == step


def note_parameters(workdir: Workdir, moment: hashes.Moment, state: TrainState) -> None:
    """Writes the hash of the parameters of a state into the workdir."""
    found = hashes.Hash(int(state.step), hashes.of(state))
    if processes.is_first():
        hashes.note(workdir.path, moment, found)
