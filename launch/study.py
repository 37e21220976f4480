"""The study of a search: its trials in a journal file beside the runs; asked, told and claimed by any number of launchers.

A trial is written in one line, with all that was suggested, so that a launcher that is killed leaves none half. Whatever
the journal says of a trial that is not finished, its workdir says where the run stands. The sampler of a trial is seeded
by the seed and the number of the trial alone, and sees the trials before it: a search that was killed suggests what it
would have suggested.
"""

from __future__ import annotations

import os
import shutil
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxvision.run import lease
from launch import journal
from launch.description import Search
from launch.space import distributions, rounded

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

LAUNCHERS = "launchers"
"""A folder in that of the search: each launcher has a lease in it while it runs."""
LAUNCHER, MEMBER, ERROR = "launcher", "member", "error"
"""What the journal notes of a trial: who runs it, the name of its workdir, why it failed."""
Ended = Literal["COMPLETE", "PRUNED", "FAIL"]
"""How a trial ended, in Optuna's words."""


class Study:
    """The trials of a search, as one launcher of it sees and changes them; use it in a `with` block.

    Raises:
      WorkdirError: if the journal is damaged.
    """

    def __init__(self, search: Search, folder: Path):
        from optuna import pruners
        from optuna.storages.journal import JournalFileOpenLock

        self.search, self.folder = search, folder
        self.journal = folder / journal.FILE
        self.launcher = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lock = JournalFileOpenLock(str(folder / journal.NAME))
        self._pruner = pruners.MedianPruner() if search.prune == "median" else None
        self._stack = ExitStack()

    def __enter__(self) -> Study:
        for launcher in (self.folder / LAUNCHERS).glob(f"*/{lease.FILE}"):
            if not self._runs(launcher.parent.name) and lease.age(launcher.parent) > lease.STALE:
                shutil.rmtree(launcher.parent, ignore_errors=True)  # of one that was killed
        place = self.folder / LAUNCHERS / self.launcher
        place.mkdir(parents=True)
        self._stack.callback(shutil.rmtree, place, ignore_errors=True)
        self._stack.enter_context(lease.Held(place, 0)).ended(0, None)
        with ExitStack() as undone, self.changing():
            undone.push(self._stack)
            self._open()
            undone.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def _open(self) -> None:
        import optuna

        journal.check(self.journal)
        with journal.damaged(self.journal):
            self._storage = journal.storage(self.journal)
            self._study: optuna.Study = optuna.create_study(
                storage=self._storage, study_name=journal.NAME, direction=self.search.direction, load_if_exists=True
            )

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Inside this block no other launcher changes the journal, which has no torn line at its end."""
        self._lock.acquire()
        try:
            journal.mend(self.journal)
            yield
        finally:
            self._lock.release()

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number.

        Raises:
          WorkdirError: if the journal was damaged meanwhile.
        """
        with journal.damaged(self.journal):
            return self._study.get_trials(deepcopy=False)

    def ask(self, most: int) -> FrozenTrial | None:
        """A new trial, of this launcher; None if there are `most` already."""
        if len(self.trials()) >= most:
            return None
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

    def is_planned_elsewhere(self, trial: FrozenTrial) -> bool:
        """Whether another launcher, which runs, has not said yet which workdir a trial has."""
        other = trial.user_attrs.get(LAUNCHER)
        return MEMBER not in trial.user_attrs and other != self.launcher and self._runs(other)

    def _runs(self, launcher: str | None) -> bool:
        place = self.folder / LAUNCHERS / str(launcher)
        held = lease.read(place)
        return held is not None and lease.alive(place, held)

    def _note(self, number: int, key: str, value: str) -> None:
        self._storage.set_trial_user_attr(self._id(number), key, value)

    def _id(self, number: int) -> int:
        of = self._storage.get_study_id_from_name(journal.NAME)
        return self._storage.get_trial_id_from_study_id_trial_number(of, number)

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
