"""The journal of a study: Optuna's file of all that happened, a line each, as it is after kills and damage."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jaxvision.errors import WorkdirError, amount
from launch.description import require
from launch.plan import Deciding

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

FILE = "search.journal"
NAME = "search"
"""Name of the study in the journal."""


def mend(journal: Path) -> None:
    """Cuts off a last line without an end, which a launcher that was killed, or a full disk, left."""
    if not journal.is_file() or not journal.stat().st_size:
        return
    with journal.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read() == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def check(journal: Path) -> None:
    """Raises WorkdirError for a line of a journal that is none of Optuna's."""
    for number, line in enumerate(journal.read_bytes().splitlines() if journal.exists() else (), 1):
        try:
            intact = {"op_code", "worker_id"} <= set(json.loads(line))
        except (ValueError, TypeError, RecursionError):
            intact = False
        if not intact:
            raise WorkdirError(
                f"{journal}: damaged in line {number}; put a copy of it back, or begin the search anew in another folder"
            )


@contextmanager
def damaged(journal: Path) -> Iterator[None]:
    """Inside this block what Optuna raises for a damaged journal is a WorkdirError that names it."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise WorkdirError(f"{journal}: damaged ({type(error).__name__}: {error})") from error


def storage(path: Path) -> optuna.storages.JournalStorage:
    """Optuna's storage over a journal, which is made if there is none."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path)))


def trials_of(folder: Path) -> list[FrozenTrial]:
    """The trials of the search in a folder, by number; only looks, so that launchers may go on meanwhile.

    Raises:
      ConfigError: if Optuna is not installed.
      WorkdirError: if the journal is damaged.
    """
    require("tpe")
    path = folder / FILE
    if not path.exists():
        return []
    import optuna

    with damaged(path):
        return optuna.load_study(study_name=NAME, storage=storage(path)).get_trials(deepcopy=False)


def summary(trials: Sequence[FrozenTrial], deciding: Deciding) -> str:
    """How many trials ended in which way, and the best of them."""
    names = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "not finished"}
    states = [trial.state.name for trial in trials]
    counts = ", ".join(f"{states.count(state)} {name}" for state, name in names.items() if state in states)
    lines = [f"{amount(len(trials), 'trial')}: {counts or 'none'}"]
    done = [(trial.value, trial) for trial in trials if trial.state.name == "COMPLETE" and trial.value is not None]
    if done:
        sign = 1 if deciding.better == "higher" else -1
        value, best = max(done, key=lambda each: sign * each[0])
        values = ", ".join(f"{field}={chosen}" for field, chosen in best.params.items())
        lines.append(
            f"best: trial {best.number}, {deciding.figure} {value:.4g}, {values} (selected: chosen among {len(done)} by "
            "this figure, so it is better than that of fresh seeds would be)"
        )
    return "\n".join(lines)
