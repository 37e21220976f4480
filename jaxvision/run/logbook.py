"""All that a run reports while it goes, as one: its two logs, the trackers, the terminal, the watchdog."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from jaxvision.run.log import Clock, JsonLines, Mark, Terminal
from jaxvision.run.trackers import OpenTracker, Speed, TensorBoard, Tracker, Trackers
from jaxvision.run.watch import FirstCall, Profile, Recompilations, Step, Watchdog


class Logbook:
    """Use it in a `with` block. Of several processes one writes and speaks; every one has its own watchdog."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        *,
        mark: Mark,
        steps: int,
        batch_size: int,
        every: int,
        process: int = 0,
        trackers: Sequence[OpenTracker] = (),
        profile: range | None = None,
    ):
        """Opens what is to be written.

        Args:
          folder: the workdir.
          config: as JSON data.
          mark: the step that the run starts at, and the rows of an earlier start that stay in the log.
          steps: of the run.
          batch_size: of a step, for images per second.
          every: steps between two reports of the speed.
          process: the number of this process; 0 writes.
          trackers: beside TensorBoard.
          profile: the steps to trace.

        Raises:
          TrackerError: if a tracker that was asked for can't be had.
        """
        self.folder, self.first, self.process, self.profile = folder, mark.step, process, profile
        self.clock = Clock()
        self.begun = int(time.time())
        """When this start of the run began, in seconds since 1970."""
        self.metrics, self.timing = JsonLines(folder / "metrics.jsonl"), JsonLines(folder / "timing.jsonl")
        self.terminal = Terminal(steps, mark.step, batch_size, self.clock, quiet=not self.writes)
        self.say = self.terminal.say
        self.trackers = Trackers(self._opened(trackers, config, mark) if self.writes else [])
        self.speed = Speed(self.clock, batch_size, every, self.trackers.metrics)
        name = "stacks.txt" if self.writes else f"stacks.{process}.txt"
        self.watchdog = Watchdog(folder / name, self.say)
        self._open, self._training = ExitStack(), ExitStack()

    @property
    def writes(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.process == 0

    def _opened(self, trackers: Sequence[OpenTracker], config: Mapping[str, Any], mark: Mark) -> list[Tracker]:
        for line in self.metrics.go_on_from(mark):
            self.say(line)
        kept = self.metrics.read()
        others = [open_tracker(self.folder, config, kept) for open_tracker in trackers]
        try:
            return [*others, TensorBoard(self.folder / "tensorboard", config, kept)]
        except OSError as error:
            self.say(f"warning: TensorBoard's files can't be written: {error}. The run goes on without them.")
            return others

    def __enter__(self) -> "Logbook":
        self._open.callback(self.trackers.close)
        self._training.callback(self.terminal.close)
        self._open.enter_context(self.watchdog)
        return self

    def __exit__(self, *error) -> None:
        self.trained()
        self._open.close()

    def trained(self) -> None:
        """The last step is done: ends the progress bar, and a profile under way."""
        self._training.close()

    def watched(self, step: Step) -> Step:
        """The jitted training step, which reports compilations and is profiled where that is asked for; call it once."""
        step = FirstCall(Recompilations(step, self.first, self.say), self.say)
        if self.profile is None or not self.writes:
            return step
        folder = self.folder / "profile"
        profile = Profile(step, self.first, folder, self.profile, self.say, self.paused)
        return self._training.enter_context(profile)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes a row of the log."""
        if self.writes:
            self.metrics.write(step, metrics)
            self._write_timing(step)
            self.trackers.metrics(step, metrics)

    def _write_timing(self, step: int) -> None:
        self.timing.write(step, {"begun": self.begun, **self.clock.metrics(), **self.speed.newest})

    def stepped(self, step: int, metrics: Mapping[str, float]) -> None:
        """Called after every step with the number of the steps done and the latest metrics."""
        self.watchdog.beat()
        self.speed.step(step)
        self.terminal.step(step, metrics)

    def paused(self) -> AbstractContextManager[None]:
        """The time of the block is no step's."""
        return self.watchdog.paused()

    def marked(self, step: int) -> Mark:
        """How far the log has come, when its rows are on the disk; nowhere, on a process that writes none."""
        return self.metrics.mark(step) if self.writes else Mark(step)

    def report(self, draw: Callable[[Sequence[Mapping]], Path], step: int) -> None:
        """Draws the pictures of the run from the rows of its log, into a folder; notes the time it took in all."""
        if self.writes:
            with self.clock("report"):
                self.trackers.pictures(draw(self.metrics.read()))
            self._write_timing(step)

    def curves(self, draw: Callable[[Sequence[Mapping]], None]) -> None:
        """Draws the curves of a run that ends early, from the rows of its log; it is not marked as done."""
        if self.writes:
            draw(self.metrics.read())
