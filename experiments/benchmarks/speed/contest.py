"""Contests: one piece of work by several programs, in turns, each in a process of its own.

A side is a function that gets everything ready and returns a `Work`; its module imports what it needs at the top, so that a
peer's side runs where jaxvision and JAX are not installed. Sides take turns block by block, after a warm-up, so that
whatever else slows the machine down slows them all. All ask for huge pages, as jaxvision's commands do. Each block is
measured by the clock and in processor time; memory is what the work adds at most to the process as it was after the imports.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import TIMEOUT_MAX, Timer
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxvision.machine import huge_pages, limits

ROOT = Path(__file__).parents[3]
PEERS = ROOT / ".peers"
"""The virtual environment of the peers, which `python -m experiments.benchmarks.peers` makes."""
LEAVING = 10.0
"""Seconds that a side has to clean up after the last block."""
PAUSE = 0.05
"""Seconds before a block, in which threads of the side before fall asleep."""
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Work(NamedTuple):
    """Work that is ready to be done."""

    run: Callable[[int], object]
    """Does so many units, and waits until they are done."""
    outcome: Callable[[], Sequence[float]] = tuple
    """Numbers that the other sides must have too, computed before anything is measured."""
    settle: Callable[[], object] = tuple
    """Ends what a block leaves under way, after it was measured and before another's turn."""
    device_bytes: Callable[[], float] | None = None
    """The most memory of the device that was used so far; None: the memory of the process counts."""


class Side(NamedTuple):
    """A program of a contest."""

    name: str
    work: str
    """The function that makes the `Work`: `module:function`."""
    given: Mapping[str, Any] = NOTHING
    """Its arguments, as JSON has them."""
    peer: bool = False
    """Whether it runs in the environment of the peers."""
    least: float | None = None
    """The aim: least time of this side by that of the first."""
    memory: float | None = None
    """The aim: most memory of the first side by that of this one."""


class Contest(NamedTuple):
    """What several programs do."""

    name: str
    sides: tuple[Side, ...]
    """Ours is the first."""
    units: int = 1
    """Units of work in a block."""
    blocks: int = 7
    lead: int = 0
    """Units before each block that are not measured.

    For work that takes a lot of memory anew each time: what is free while another has its turn may go back to the host of a
    virtual machine, and takes seconds a GB to have again. That happens between turns, not between steps of a training.
    """
    tolerance: float | None = None
    """Largest relative difference between the outcomes of the first side and of another; None: they are not compared."""
    cores: int | None = None
    """Cores that each side may use; None: all."""
    gigaflop: float | None = None
    """Arithmetic of a unit, for the share of what the machine can do."""
    gigabyte: float | None = None
    """Memory that a unit reads and writes at least."""
    slowest: float | None = None
    """The aim where the other sides are parts of what the first does: least time of the slowest of them by the first's."""


class Block(NamedTuple):
    """A measured block."""

    seconds: float
    processor_seconds: float
    bytes: float


class Told(NamedTuple):
    """A side that took part."""

    blocks: tuple[Block, ...]
    outcome: tuple[float, ...]


class Missing(NamedTuple):
    """A side that could not take part."""

    why: str


Results = dict[str, Told | Missing]
"""By the name of the side."""


class Runner:
    """A side's process."""

    def __init__(self, side: Side, cores: int | None):
        peers = PEERS / "bin" / "python"
        python = str(peers) if side.peer and peers.exists() else sys.executable
        command = [python, "-m", "experiments.benchmarks.speed.worker"]
        environment = {**os.environ, **threads(cores), **huge_pages.asking(os.environ)}
        self.wrote = tempfile.TemporaryFile(mode="w+", errors="replace")  # noqa: SIM115, closed on leaving
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.wrote,
            text=True,
            start_new_session=True,
        )
        self.first = {"work": side.work, "given": dict(side.given), "cores": cores}

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.process.communicate(timeout=LEAVING)
            self.end()  # what it started
        except subprocess.TimeoutExpired:
            self.end()
            self.process.communicate()
        self.wrote.close()

    def end(self) -> None:
        """Ends the process, and those that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def ask(self, question: Mapping[str, Any], patience: float | None = None) -> dict:
        """The answer of the process; for errors see `answer`."""
        self.send(question)
        return self.answer(patience)

    def send(self, question: Mapping[str, Any]) -> None:
        """Asks, and does not wait for the answer."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()

    def answer(self, patience: float | None = None) -> dict:
        """The answer to the question before; after these seconds the process is ended.

        Raises:
          RuntimeError: with the end of what the process wrote, where it ended instead; for an answer that did not come.
        """
        assert self.process.stdout is not None
        watch = Timer(TIMEOUT_MAX if patience is None else max(patience, 0), self.end)
        watch.daemon, began = True, time.monotonic()
        watch.start()
        answer = self.process.stdout.readline()
        watch.cancel()
        if answer:
            return json.loads(answer)
        self.process.wait()
        if patience is not None and time.monotonic() - began >= patience:
            raise RuntimeError(f"no answer within {patience:.3g} s")
        self.wrote.seek(0)
        raise RuntimeError(self.wrote.read().strip()[-2000:] or f"it ended with status {self.process.returncode}")


def threads(cores: int | None) -> dict[str, str]:
    """Variables by which libraries learn how many threads they may have."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(cores or limits.cores()))


def hold(contest: Contest) -> Results:
    """The sides' blocks; a side whose program is not installed, or that fails, is missing, with the reason.

    Raises:
      RuntimeError: where the first side fails.
      AssertionError: where outcomes differ by more than the tolerance.
    """
    results: Results = {}
    with ExitStack() as stack:
        runners = {}
        for side in contest.sides:
            runners[side.name] = runner = stack.enter_context(Runner(side, contest.cores))
            runner.send(runner.first)
            results[side.name] = ready(contest, side, runner)
        agree(contest, results)
        return turns(contest, runners, results)


def ready(contest: Contest, side: Side, runner: Runner, patience: float | None = None) -> Told | Missing:
    """The outcome of a side that was asked to get ready, or why it can't take part.

    Raises:
      RuntimeError: where the first side fails.
    """
    try:
        return Told((), tuple(runner.answer(patience)["outcome"]))
    except RuntimeError as error:
        if side is contest.sides[0]:
            raise RuntimeError(f"{contest.name}, {side.name}: {error}") from None
        return Missing(str(error).splitlines()[-1])


def turns(contest: Contest, runners: Mapping[str, Runner], results: Results, patience: float | None = None) -> Results:
    """The results with the blocks of all sides that take part, one after another.

    Raises:
      RuntimeError: where a side ends.
    """
    results = dict(results)
    for _ in range(contest.blocks):
        for name, runner in runners.items():
            if isinstance(told := results[name], Told):
                time.sleep(PAUSE)
                answer = runner.ask({"units": contest.units, "lead": contest.lead}, patience)
                results[name] = told._replace(blocks=(*told.blocks, Block(**answer)))
    return results


def agree(contest: Contest, results: Results) -> None:
    """Compares outcomes.

    Raises:
      AssertionError: for a side whose outcome is not that of the first.
    """
    if contest.tolerance is None:
        return
    first = results[contest.sides[0].name]
    assert isinstance(first, Told)
    assert first.outcome, f"{contest.name}: the first side has no outcome to compare"
    for side in contest.sides[1:]:
        told = results[side.name]
        if isinstance(told, Missing):
            continue
        difference = apart(first.outcome, told.outcome)
        assert difference <= contest.tolerance, (
            f"{contest.name}: {side.name} has {told.outcome[:4]}, {contest.sides[0].name} {first.outcome[:4]}: "
            f"{difference:.2g} apart, allowed is {contest.tolerance:.2g}"
        )


def apart(first: Sequence[float], second: Sequence[float]) -> float:
    """The largest relative difference; infinite for other numbers of them, or one that is not finite."""
    if len(first) != len(second):
        return float("inf")
    differences = (
        abs(a - b) / max(abs(a), abs(b), 1e-30) if a != b else 0.0 for a, b in zip(first, second, strict=True)
    )
    return max((each if each == each else float("inf") for each in differences), default=0.0)


class Spread(NamedTuple):
    """The median, and the quartiles."""

    median: float
    low: float
    high: float


def spread(numbers: Sequence[float]) -> Spread:
    """The median and the quartiles of some numbers, one at least."""
    if len(numbers) == 1:
        return Spread(numbers[0], numbers[0], numbers[0])
    low, median, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return Spread(median, low, high)


def slowest(results: Results) -> Told:
    """The blocks of the others than the first, of each turn the one that took longest; one of them took part at least."""
    others = [told.blocks for told in list(results.values())[1:] if isinstance(told, Told)]
    turns = (max(turn, key=lambda block: block.seconds) for turn in zip(*others, strict=True))
    return Told(tuple(turns), ())


def ratio(theirs: Told, ours: Told, field: Callable[[Block], float] = lambda block: block.seconds) -> Spread:
    """Theirs by ours, over pairs of blocks of one turn."""
    return spread([field(a) / max(field(b), 1e-12) for a, b in zip(theirs.blocks, ours.blocks, strict=True)])
