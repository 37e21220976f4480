"""All benchmarks of a GPU in one call of at most nine minutes: whoever has a GPU for a quarter of an hour fills the table.

    pip install --no-deps --target build/carried jaxtyping wadler-lindig
    PYTHONPATH=build/carried python -m experiments.benchmarks.gpu --output=gpu.md

Runs in a checkout, without network, on Python 3.11 or later with JAX and its CUDA plugin, Flax, Optax, torch, torchvision,
timm, transformers, NumPy and what these bring along; TensorFlow and ml_collections are not needed. What jaxvision needs
beside them is in the folder that the first command makes where there is a network, and that is carried along (2 MB, pure
Python). For Fashion-MNIST, carry its four files and set FASHION_MNIST to their folder; without them a sample has to do.

Every side is a process of its own and takes of the GPU's memory what it needs, no more. The sides of a row get ready at the
same time, and those of the next row with them; while a row is measured, block by block in turns, the processes of other rows
are stopped. A row whose outcomes do not agree is measured all the same, and says so. Rows come in the order in which they
are wanted; what there is no time for is named. After each row the file is written, so that what was measured is kept; rows
that it has already are left out with `--resume`; without it a file that is there is refused. The table is printed at the
end. `--small` tries all on a CPU. With less than 100 GB of memory on the GPU, `--ahead=0` has the processes of one row there
at a time.
"""

import argparse
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from experiments.benchmarks.speed import gpu_peaks, table
from experiments.benchmarks.speed.contest import Contest, Results, Runner, Side, Told, agree, ready, spread, turns
from experiments.benchmarks.speed.place import gpus, place

HERE = "experiments.benchmarks.speed"
BENCHMARKS = (f"{HERE}.training_gpu", f"{HERE}.fashion_gpu")
"""Modules with rows for a GPU."""
MFU = 40.0
"""The aim for vision transformers: per cent of the published peak."""
BLOCK = 60.0
"""Seconds that a block may take at most."""


class Found(NamedTuple):
    """What there is to tell of a row."""

    name: str
    lines: tuple[str, ...] = ()
    """Rows of the table."""
    notes: tuple[str, ...] = ()
    seconds: float | None = None
    """Time of a unit of our side."""
    gigaflop: float | None = None


def main(argv: Sequence[str] | None = None) -> int:
    began = time.monotonic()
    parser = argparse.ArgumentParser(description="Measure all that needs a GPU, within a time.", allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="ROW", help="beginnings of the names of rows (all)")
    parser.add_argument(
        "--output", type=Path, default=Path("gpu.md"), metavar="FILE", help="where the table goes (gpu.md)"
    )
    parser.add_argument("--seconds", type=float, default=510, help="after which no more is measured (510)")
    parser.add_argument("--row", type=float, default=150, metavar="SECONDS", help="in which sides must be ready (150)")
    parser.add_argument("--ahead", type=int, default=1, help="rows that get ready while others are measured (1)")
    parser.add_argument("--resume", action="store_true", help="keep the file's rows, and measure the others")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try whether all runs: on a CPU, too")
    flags = parser.parse_args(argv)
    if flags.output.exists() and not flags.resume:
        parser.error(f"{flags.output} is there: --resume keeps its rows, --output=FILE writes another")
    if not flags.output.absolute().parent.is_dir():
        parser.error(f"--output={flags.output}: there is no folder {flags.output.parent}")
    every = list(rows(flags.small))
    for name in flags.names:
        if not any(each.name.startswith(name) for each in every):
            parser.error(f"no row begins with {name!r}; there are {'; '.join(each.name for each in every)}")
    environment(flags.output)
    kept = kept_lines(flags.output) if flags.resume else []
    contests = [each for each in every if wanted(each.name, flags.names, kept)]
    print(f"{len(contests)} rows, {flags.seconds:.0f} s at most; a row is told when it is done", flush=True)
    command = f"python -m experiments.benchmarks.gpu{' --small' if flags.small else ''}"
    machine, found = probes(flags.small), []
    deadline = began + flags.seconds
    for each in measured(contests, machine, flags.row, deadline, flags.ahead):
        found.append(each)
        print(f"{time.monotonic() - began:.0f} s: {each.name}", *each.notes, sep="\n  ", flush=True)
        text = "\n".join(report(found, kept, machine, command))
        flags.output.write_text(text + "\n", encoding="utf-8")
    print("\n" + "\n".join(report(found, kept, machine, command)))
    return 0


def environment(output: Path) -> None:
    """Sets what all processes inherit: memory as it is needed, and caches beside the file, for a second call."""
    caches = output.absolute().parent / "gpu_caches"
    for name, value in {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": str(caches / "jax"),
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)


def rows(small: bool) -> Iterator[Contest]:
    """All contests, in order."""
    for module in BENCHMARKS:
        yield from import_module(module).rows(small)


def wanted(name: str, names: Sequence[str], kept: Sequence[str]) -> bool:
    """Whether a row is asked for, and not there yet."""
    asked = not names or any(name.startswith(each) for each in names)
    return asked and not any(line.startswith(f"| {name} |") for line in kept)


def kept_lines(output: Path) -> list[str]:
    """The rows and figures in a file that was written before, without the sides that are missing."""
    lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
    return [
        line for line in lines if line.startswith(("| ", "- MFU")) and line != table.HEAD and "| missing: " not in line
    ]


def probes(small: bool) -> tuple[float, float] | None:
    """GFLOP/s of a matrix product in bfloat16, and GB/s of a copy; None where the probe fails."""
    side, numbers = (64, 1 << 12) if small else (8192, 1 << 28)
    work = {"gemm": 2 * side**3 / 1e9, "copy": 8 * numbers / 1e9}
    rates = []
    for (name, amount), given in zip(work.items(), ({"side": side}, {"numbers": numbers}), strict=True):
        contest = Contest(name, (Side("JAX", f"{HERE}.gpu_probes:{name}", given),), units=20, blocks=3)
        try:
            with Row(contest) as row:
                told = row.measured(90, 90)[0]["JAX"]
        except RuntimeError as error:
            print(f"no probe of {name}: {error}", flush=True)
            return None
        assert isinstance(told, Told)
        rates.append(amount / min(block.seconds for block in told.blocks))
    return rates[0], rates[1]


class Row(ExitStack):
    """A contest whose sides get ready, all at the same time."""

    def __init__(self, contest: Contest):
        super().__init__()
        self.contest, self.began = contest, time.monotonic()
        self.runners = {side.name: self.enter_context(Runner(side, contest.cores)) for side in contest.sides}
        for runner in self.runners.values():
            runner.send(runner.first)

    def ready(self, patience: float) -> Results:
        """What the sides say that are ready in time; see `contest.ready` for errors."""
        left = lambda: max(patience - (time.monotonic() - self.began), 1.0)
        return {side.name: ready(self.contest, side, self.runners[side.name], left()) for side in self.contest.sides}

    def measured(self, patience: float, block: float, others: Sequence["Row"] = ()) -> tuple[Results, tuple[str, ...]]:
        """All blocks, while the others are stopped, and what there is to note."""
        results, notes = self.ready(patience), ()
        try:
            agree(self.contest, results)
        except AssertionError as error:
            notes = (str(error).removeprefix(f"{self.contest.name}: "),)
        with stopped(others):
            return turns(self.contest, self.runners, results, block), notes

    def signal(self, number: int) -> None:
        """Sends a signal to all processes."""
        for runner in self.runners.values():
            with suppress(ProcessLookupError):
                os.killpg(runner.process.pid, number)


@contextmanager
def stopped(others: Sequence[Row]) -> Iterator[None]:
    """Stops the processes of other rows."""
    for row in others:
        row.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for row in others:
            row.signal(signal.SIGCONT)


def measured(
    contests: Sequence[Contest], machine: tuple[float, float] | None, patience: float, deadline: float, ahead: int
) -> Iterator[Found]:
    """What there is to tell of each row, as soon as it is known."""
    waiting, going = deque(contests), deque()
    try:
        while waiting or going:
            while waiting and len(going) <= ahead and time.monotonic() < deadline:
                going.append(Row(waiting.popleft()))
            if not going:
                yield from (Found(each.name, notes=("no time was left",)) for each in waiting)
                return
            with going.popleft() as row:
                yield told_of(row, machine, patience, deadline, going)
    finally:
        for row in going:
            row.close()


def told_of(row: Row, machine: tuple[float, float] | None, patience: float, deadline: float, others) -> Found:
    """What there is to tell of a row."""
    contest, left = row.contest, deadline - time.monotonic()
    try:
        results, notes = row.measured(
            min(patience, time.monotonic() - row.began + left), min(BLOCK, max(left, 5)), others
        )
    except RuntimeError as error:
        return Found(contest.name, notes=(f"not measured: {str(error).splitlines()[-1]}",))
    ours = results[contest.sides[0].name]
    assert isinstance(ours, Told)
    took = spread([block.seconds for block in ours.blocks]).median
    lines = tuple(table.lines(contest, results, machine or (float("inf"), float("inf"))))
    return Found(contest.name, lines, notes, took, contest.gigaflop)


def report(
    found: Sequence[Found], kept: Sequence[str], machine: tuple[float, float] | None, command: str
) -> Iterator[str]:
    """A section of RESULTS.md."""
    yield f"## Benchmark: {'on a GPU' if gpus() else 'of a GPU, on a CPU'}"
    yield ""
    yield f"`{command}`, {date.today()}, {place()}."
    if "--small" in command:
        yield "Tiny sizes, to try whether all runs: the times say nothing."
    if machine:
        reached = f"{machine[0] / 1e3:,.3g} TFLOP/s, a copy in its memory {machine[1]:,.0f} GB/s"
        yield f"In that run a matrix product in bfloat16 reached {reached}."
    before = [line for line in kept if line.startswith("| ")]
    yield from ("", table.HEAD, table.RULE, *before, *(line for each in found for line in each.lines))
    notes = [line for line in kept if line not in before] + [table.figure(each) for each in utilised(found)]
    notes += [f"- {each.name}: {note}" for each in found for note in each.notes]
    if notes:
        yield from ("", *notes)


def utilised(found: Sequence[Found]) -> Iterator[table.Figure]:
    """The share of the published peak that the arithmetic of our steps is (MFU)."""
    peak = published_peak()
    for each in found:
        if peak and each.gigaflop and each.seconds:
            percent = 100 * each.gigaflop / each.seconds / (1e3 * peak)
            aim = MFU if each.name.startswith("ViT") else None
            yield table.Figure(f"MFU of {each.name}", percent, f"% of the published {peak:g} TFLOP/s", least=aim)


def published_peak() -> float | None:
    """The published TFLOP/s of this machine's GPU."""
    return gpu_peaks.peak(gpus())


if __name__ == "__main__":
    sys.exit(main())
