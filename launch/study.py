"""The study of a search: its trials in a journal file beside the runs; asked, told and claimed by any number of launchers.

A trial is written in one line, with all that was suggested, so that a launcher that is killed leaves none half. Whatever
the journal says of a trial that is not finished, its workdir says where the run stands. The sampler of a trial is seeded
by the seed and the number of the trial alone, and sees the trials before it: a search that was killed suggests what it
would have suggested.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from jaxvision.errors import ConfigError, WorkdirError, creating
from jaxvision.run import lease
from launch import plan
from launch.plan import Deciding
from launch.space import Space, distributions, rounded

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

FILE = "search.json"
JOURNAL = "search.journal"
LAUNCHERS = "launchers"
"""A folder in that of the search: each launcher has a lease in it while it runs."""
FORMAT = 1
NAME = "search"
LAUNCHER, MEMBER, ERROR = "launcher", "member", "error"
"""What the journal notes of a trial: who runs it, the name of its workdir, why it failed."""


Ended = Literal["COMPLETE", "PRUNED", "FAIL"]
"""How a trial ended, in Optuna's words."""


class Search(NamedTuple):
    """What makes a search this one."""

    experiment: Path
    code: str
    """Fingerprint of the experiment's code."""
    overrides: dict[str, str]
    """Texts of fields that are set for all trials."""
    space: Space
    deciding: Deciding
    sampler: str = "tpe"
    seed: int = 0
    prune: str = "none"

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Optuna's word for what is better."""
        return "maximize" if self.deciding.better == "higher" else "minimize"


def require(sampler: str) -> None:
    """Imports Optuna, which then logs problems alone; raises ConfigError where it, or what a sampler needs, is missing."""
    for package in ("optuna", *(("cmaes",) if sampler == "cmaes" else ())):
        try:
            __import__(package)
        except ImportError:
            raise ConfigError(
                f"a search needs the package {package}, which is not installed: pip install 'jaxvision[search]'"
            ) from None
    from optuna import logging

    logging.set_verbosity(logging.WARNING)


def write(search: Search, folder: Path) -> None:
    """Writes down what the search is, in its folder, or finds the same there.

    Raises:
      WorkdirError: if the folder holds another search, or the plan of a sweep, or can't be written.
    """
    path = folder / FILE
    if (folder / plan.FILE).exists() and not path.exists():
        raise WorkdirError(f"{folder} holds the plan of a sweep, not of a search; choose another folder")
    data = _described(search)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with creating(path) as partial:
            partial.write_text(json.dumps({**data, "sha256": _checksum(data)}, indent=1) + "\n", encoding="utf-8")
    except FileExistsError:
        _check_same(read(folder), data, path)
    except OSError as error:
        raise WorkdirError(f"can't write {path}: {error.strerror or error}") from error


def read(folder: Path) -> dict[str, Any]:
    """What the search in a folder is.

    Raises:
      WorkdirError: if its file can't be read, or was changed since it was written.
    """
    path = folder / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        checksum = data.pop("sha256")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise WorkdirError(f"{path} can't be read: {error}") from error
    if data.get("format") != FORMAT:
        raise WorkdirError(f"{path} is of format {data.get('format')!r}; this version reads {FORMAT}")
    if checksum != _checksum(data):
        raise WorkdirError(f"{path} was changed by hand or damaged; begin the search anew in another folder")
    return data


def _described(search: Search) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "code": search.code,
        "config": search.overrides,
        "search": search.space.texts(),
        "decide": f"{search.deciding.figure}:{search.deciding.better}",
        "sampler": search.sampler,
        "seed": search.seed,
        "prune": search.prune,
    }


def _checksum(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _check_same(theirs: dict[str, Any], ours: dict[str, Any], path: Path) -> None:
    """Raises WorkdirError that names the first thing in which two searches differ."""
    if theirs["code"] != ours["code"]:
        raise WorkdirError(f"{path} is of other code: the experiment has changed since; choose another folder")
    flat = [plan.flat(each) for each in (theirs, ours)]
    for name in sorted({*flat[0], *flat[1]}):
        there, here = (each.get(name, "not set") for each in flat)
        if there != here:
            raise WorkdirError(
                f"{path} is another search: --{name} is {there} there, {here} here; choose another folder"
            )


class Study:
    """The trials of a search, as one launcher of it sees and changes them; use it in a `with` block.

    Raises:
      WorkdirError: if the journal is damaged.
    """

    def __init__(self, search: Search, folder: Path):
        from optuna import pruners
        from optuna.storages import journal

        self.search, self.folder = search, folder
        self.journal = folder / JOURNAL
        self.launcher = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lock = journal.JournalFileOpenLock(str(folder / NAME))
        self._pruner = pruners.MedianPruner() if search.prune == "median" else None
        self._stack = ExitStack()

    def __enter__(self) -> Study:
        place = self.folder / LAUNCHERS / self.launcher
        place.mkdir(parents=True)
        self._stack.enter_context(lease.Held(place, 0)).ended(0, None)
        with self.changing():
            self._open()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()
        for file in (self.folder / LAUNCHERS / self.launcher).iterdir():
            file.unlink()
        (self.folder / LAUNCHERS / self.launcher).rmdir()

    def _open(self) -> None:
        import optuna
        from optuna.storages import JournalStorage, journal

        check(self.journal)
        with damaged(self.journal):
            self._storage = JournalStorage(journal.JournalFileBackend(str(self.journal)))
            self._study: optuna.Study = optuna.create_study(
                storage=self._storage, study_name=NAME, direction=self.search.direction, load_if_exists=True
            )

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Inside this block no other launcher changes the journal, which has no torn line at its end."""
        self._lock.acquire()
        try:
            mend(self.journal)
            yield
        finally:
            self._lock.release()

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number.

        Raises:
          WorkdirError: if the journal was damaged meanwhile.
        """
        with damaged(self.journal):
            return self._study.get_trials(deepcopy=False)

    def ask(self, most: int) -> FrozenTrial | None:
        """A new trial, of this launcher; None if there are `most` already."""
        with self.changing():
            known = self.trials()
            if len(known) >= most:
                return None
            self._study.add_trial(suggestion(self.search, known, self.launcher))
            return self.trials()[len(known)]

    def name(self, number: int, member: str) -> FrozenTrial | None:
        """Notes the workdir of a trial; returns a finished trial with the same one, if there is one."""
        with self.changing():
            known = self.trials()
            if known[number].user_attrs.get(MEMBER) != member:
                self._note(number, MEMBER, member)
            same = [each for each in known if each.number != number and each.user_attrs.get(MEMBER) == member]
            return next((each for each in same if each.state.is_finished()), None)

    def claim(self, member: str) -> bool:
        """Whether this launcher may run a workdir: no other that still runs has a trial in it. Its trials are then ours."""
        with self.changing():
            numbers = {each.number: each.user_attrs.get(LAUNCHER) for each in self.unfinished(member)}
            if any(other != self.launcher and self._runs(other) for other in numbers.values()):
                return False
            for number in [number for number, other in numbers.items() if other != self.launcher]:
                self._note(number, LAUNCHER, self.launcher)
            return True

    def unfinished(self, member: str | None = None) -> list[FrozenTrial]:
        """Trials that are not finished; those of one workdir, or all."""
        running = [each for each in self.trials() if not each.state.is_finished()]
        return [each for each in running if member is None or each.user_attrs.get(MEMBER) == member]

    def _runs(self, launcher: str | None) -> bool:
        place = self.folder / LAUNCHERS / str(launcher)
        held = lease.read(place)
        return held is not None and lease.alive(place, held)

    def _note(self, number: int, key: str, value: str) -> None:
        self._storage.set_trial_user_attr(self._id(number), key, value)

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._storage.get_study_id_from_name(NAME), number)

    def report(self, number: int, step: int, value: float) -> None:
        """Notes the deciding figure of a trial at a step, unless it is known, or the trial finished."""
        with self.changing():
            trial = self.trials()[number]
            if not trial.state.is_finished() and step not in trial.intermediate_values:
                self._storage.set_trial_intermediate_value(self._id(number), step, value)

    def prunes(self, number: int, step: int) -> bool:
        """Whether to end a trial for its figure at a step, which is the last that was reported."""
        trial = self.trials()[number]
        if self._pruner is None or trial.last_step != step or trial.state.is_finished():
            return False
        return self._pruner.prune(self._study, trial)

    def tell(self, number: int, state: Ended, value: float | None = None, why: str = "") -> None:
        """Finishes a trial, unless it is finished.

        Args:
          number: of the trial.
          state: how it ended.
          value: of the deciding figure, where it is complete.
          why: it failed.
        """
        from optuna.trial import TrialState

        with self.changing():
            if self.trials()[number].state.is_finished():
                return
            if why:
                self._note(number, ERROR, why)
            self._study.tell(number, value if state == "COMPLETE" else None, state=TrialState[state])

    def repeat(self, number: int, known: FrozenTrial) -> None:
        """Tells a trial what is known of a finished one with the same workdir."""
        for step, value in known.intermediate_values.items():
            self.report(number, step, value)
        state: Any = known.state.name
        self.tell(number, state, known.value, str(known.user_attrs.get(ERROR, "")))


def suggestion(search: Search, known: Sequence[FrozenTrial], launcher: str = "") -> FrozenTrial:
    """The next trial of a search: what its sampler suggests, seeded by the seed and the number of the trial.

    Args:
      search: its space, sampler and seed.
      known: all trials before it.
      launcher: that runs it.
    """
    import optuna

    seed = int(np.random.SeedSequence([search.seed, len(known)]).generate_state(1)[0])
    study = optuna.create_study(direction=search.direction, sampler=_sampler(search.sampler, seed))
    study.add_trials(known)
    of = distributions(search.space)
    params = study.ask(of).params
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.RUNNING,
        params=rounded(search.space, params),
        distributions=of,
        user_attrs={LAUNCHER: launcher},
        system_attrs=study.trials[-1].system_attrs,
    )


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    from optuna import samplers

    if name == "cmaes":
        return samplers.CmaEsSampler(seed=seed)
    return {"tpe": samplers.TPESampler, "random": samplers.RandomSampler}[name](seed=seed)


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
