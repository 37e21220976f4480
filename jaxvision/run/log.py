"""What a run writes down while it goes: metrics, times, progress on the terminal."""

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from jaxvision.errors import no_link, write_atomically
from jaxvision.run.damage import json_row, keep_copy
from jaxvision.run.digest import sha256

WARM_UP = 8
"""Steps that say nothing of the speed: the first is mostly compilation, the next are only handed to the device."""


class Mark(NamedTuple):
    """How far a log had come when a checkpoint was saved."""

    step: int = 0
    """Step of the checkpoint."""
    rows: int = 0
    checksum: str | None = None
    """SHA-256 of these rows; None in a checkpoint of an older version."""


class JsonLines:
    """A file of one JSON object a line, each with its `step`; numbers that are not finite are written as null."""

    def __init__(self, path: Path):
        self.path = path
        self._rows, self._written = 0, hashlib.sha256()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends a row; it is with the operating system when this returns, so that a killed run keeps it."""
        row = {"step": step, **{name: _finite_or_none(value) for name, value in metrics.items()}}
        line = json.dumps(row) + "\n"
        with open(self.path, "a", encoding="utf-8", opener=no_link) as file:
            file.write(line)
        self._rows += 1
        self._written.update(line.encode())

    def mark(self, step: int) -> Mark:
        """How far the log has come, when its rows are on the disk: no checkpoint is newer than it after a power loss."""
        if self.path.exists():
            with open(self.path, "a", encoding="utf-8", opener=no_link) as file:
                os.fsync(file.fileno())
        return Mark(step, self._rows, self._written.hexdigest())

    def read(self) -> list[dict[str, float]]:
        """All rows that can be read."""
        return [row for line in self._lines() if (row := _row(line)) is not None]

    def _lines(self) -> list[bytes]:
        """The lines with their ends; a half-written last one is left out."""
        data = self.path.read_bytes() if self.path.is_file() else b""
        return [line + b"\n" for line in data.split(b"\n")[:-1]]

    def go_on_from(self, mark: Mark) -> list[str]:
        """Keeps the rows up to the mark, atomically: a resumed run writes the others again.

        A file that was changed or damaged stays under another name, and what can be read of it is kept.

        Returns:
          What was done, a line each; nothing where nothing was.
        """
        lines = self._lines()
        kept, said = lines[: mark.rows], []
        if not self._is_as_marked(kept, mark):
            kept = _readable(lines, mark)
            what = f"of its {mark.rows:,} rows up to step {mark.step:,}, {len(kept):,} stay"
            said.append(f"warning: {self._keep_damaged()}; {what}")
        elif len(lines) > mark.rows:
            cut = f"{len(lines) - mark.rows:,} row{'s' * (len(lines) - mark.rows > 1)}"
            said.append(f"{self.path.name}: {cut} after step {mark.step:,} cut, to be written again")
        if self.path.exists() or kept:
            write_atomically(self.path, b"".join(kept))
        self._rows, self._written = len(kept), hashlib.sha256(b"".join(kept))
        return said

    def _is_as_marked(self, kept: list[bytes], mark: Mark) -> bool:
        """Whether these are the rows that the log had then."""
        if self.path.exists() and not self.path.is_file():
            return False
        intact = len(kept) == mark.rows and all(_row(line) is not None for line in kept)
        return intact and mark.checksum in (None, sha256(b"".join(kept)))

    def _keep_damaged(self) -> str:
        """Keeps the file under another name; says what was wrong with it, and where it is."""
        if not self.path.exists():
            return f"{self.path} is gone"
        return f"{self.path} was changed or damaged since it was written; kept as {keep_copy(self.path).name}"


def _row(line: bytes) -> dict[str, float] | None:
    """A row of a log, its step and numbers; None for anything else."""
    row = json_row(line)
    if row is None or not isinstance(row.get("step"), int):
        return None
    return row if all(value is None or isinstance(value, int | float) for value in row.values()) else None


def _readable(lines: Sequence[bytes], mark: Mark) -> list[bytes]:
    """The rows of a damaged log that are not written again."""
    rows = [(line, row) for line in lines if (row := _row(line)) is not None]
    return [line for line, row in rows if row["step"] <= mark.step][: mark.rows]


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


class Clock:
    """Adds up the time spent in each named part of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.began = time.perf_counter()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Counts the time of the `with` block to `part`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start

    @property
    def total(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self.began

    @property
    def training(self) -> float:
        """Seconds of the training steps and of waiting for their data: no evaluation, no checkpoint."""
        return sum(self.seconds.get(part, 0.0) for part in ("data", "step"))

    def metrics(self) -> dict[str, float]:
        """The seconds in all (`seconds`) and of each part (`data_seconds`, ...), as a row of a log."""
        return {"seconds": self.total, **{f"{part}_seconds": seconds for part, seconds in self.seconds.items()}}

    def table(self) -> str:
        """One line: each part's seconds and per cent of the whole."""
        total = self.total
        parts = {**self.seconds, "other": max(0.0, total - sum(self.seconds.values()))}
        texts = [f"{name} {seconds:.1f} s ({seconds / total:.0%})" for name, seconds in parts.items()]
        return f"{total:.1f} s: " + ", ".join(texts)


class Terminal:
    """The progress of a run for a person: a bar on a terminal, a line now and then anywhere else."""

    def __init__(
        self,
        steps: int,
        done: int,
        batch_size: int,
        clock: Clock,
        seconds_between_lines: float = 15.0,
        quiet: bool = False,
    ):
        self.batch_size, self.clock = batch_size, clock
        self.quiet = quiet
        """Shows nothing: of several processes, one speaks."""
        hidden = True if quiet else None
        self.bar = tqdm(total=steps, initial=done, unit="step", dynamic_ncols=True, disable=hidden, mininterval=0.2)
        self.steps = steps
        self.first, self.done, self.seen = done, done, 0
        self.began = self.last_line = time.perf_counter()
        self.trained = 0.0
        """Seconds of training that the speed leaves out: the first steps, which are compiled, or only handed over."""
        self.between = seconds_between_lines

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows that `step` steps are done, with the latest metrics; images a second are those of training alone."""
        self.done, self.seen = step, self.seen + 1
        now, trained = time.perf_counter(), self.clock.training
        if self.seen <= WARM_UP:
            self.first, self.began, self.trained = step, now, trained
            return
        speed = f"{(step - self.first) * self.batch_size / max(trained - self.trained, 1e-9):,.0f} images/s"
        if not self.bar.disable:
            self.bar.update(step - self.bar.n)
            self.bar.set_postfix_str(f"{describe(metrics)}{speed}", refresh=False)
        elif now - self.last_line > self.between:
            self.last_line = now
            left = (self.steps - step) * (now - self.began) / (step - self.first)
            self.say(f"step {step:,}/{self.steps:,}  {describe(metrics)}{speed}  {tqdm.format_interval(left)} left")

    def say(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        if not self.quiet:
            tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Ends the bar."""
        self.bar.close()


def describe(metrics: Mapping[str, float], names: Sequence[str] = ("loss", "accuracy")) -> str:
    """The metrics of these names as short text, with two spaces after each."""
    return "".join(f"{name} {metrics[name]:.4g}  " for name in names if name in metrics)
