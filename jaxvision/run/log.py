"""What a run writes down while it goes: metrics, times, progress on the terminal."""

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from jaxvision.errors import write_atomically

WARM_UP = 8
"""Steps that say nothing of the speed: the first is mostly compilation, the next are only handed to the device."""


class JsonLines:
    """A file of one JSON object a line, each with its `step`; numbers that are not finite are written as null."""

    def __init__(self, path: Path):
        self.path = path
        self._count: int | None = None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends a row; it is with the operating system when this returns, so that a killed run keeps it."""
        row = {"step": step, **{name: _finite_or_none(value) for name, value in metrics.items()}}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._count is not None:
            self._count += 1

    def count(self) -> int:
        """How many rows there are."""
        if self._count is None:
            self._count = len(self.read())
        return self._count

    def sync(self) -> None:
        """Returns when the rows are on the disk, so that no checkpoint is newer than the log after a power loss."""
        if self.path.exists():
            with self.path.open("a", encoding="utf-8") as file:
                os.fsync(file.fileno())

    def read(self) -> list[dict[str, float]]:
        """All whole rows; a half-written last line is left out."""
        if not self.path.exists():
            return []
        rows = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def cut(self, count: int) -> None:
        """Keeps the first `count` rows, atomically: a resumed run writes the others again."""
        if not self.path.exists():
            return
        rows = self.read()[:count]
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        self._count = len(rows)


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
