"""What watches a run: compilations that should not be, steps that do not end, where a step's time goes.

A step that is compiled a second time is reported with the shape that changed. When a step takes ten times as long as usual,
`stacks.txt` in the workdir has what every thread was doing. `--profile=100:110` traces these steps.
"""

import contextlib
import faulthandler
import functools
import re
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.monitoring
from jaxtyping import PyTree

from jaxvision.errors import no_link
from jaxvision.machine import freed

Step = Callable[[Any, Any], Any]
Say = Callable[[str], None]
Pause = Callable[[], contextlib.AbstractContextManager[None]]


class Signature(NamedTuple):
    """What a compiled program is specific to: the structure of its input, the shape and dtype of each array."""

    structure: Any
    arrays: tuple[tuple[tuple[int, ...], Any], ...]

    def texts(self) -> dict[str, str]:
        """The name of each array to its dtype and shape."""
        tree = jax.tree.unflatten(self.structure, [f"{d}[{','.join(map(str, s))}]" for s, d in self.arrays])
        return {jax.tree_util.keystr(path): text for path, text in jax.tree_util.tree_leaves_with_path(tree)}


def signature(tree: PyTree) -> Signature:
    """The signature of a tree of arrays."""
    leaves, structure = jax.tree.flatten(tree)
    return Signature(structure, tuple([(leaf.shape, leaf.dtype) for leaf in leaves]))


class Recompilations:
    """A jitted training step that says when and why it is compiled again."""

    def __init__(self, step: Step, done: int, say: Say):
        """Wraps a step.

        Args:
          step: jitted; `(state, batch) -> ...`.
          done: how many steps are done before its first call.
          say: gets a line about each compilation but the first.
        """
        self.step, self.done, self.say = step, done, say
        self._seen: set[Signature] = set()
        self._last: Signature | None = None
        _count_compilations()

    def __call__(self, state: Any, batch: Any) -> Any:
        """Does the step."""
        now = signature(batch)
        new = now not in self._seen
        if new and self._last is not None:
            self.say(f"step {self.done:,}: compiling again: {difference(self._last, now)}")
        before = _compilations()
        result = self.step(state, batch)
        if not new and _compilations() > before:
            self.say(
                f"step {self.done:,}: compiled again, though the batch has a known shape: the state, or where the arrays "
                "lie, has changed"
            )
        self._seen.add(now)
        self._last, self.done = now, self.done + 1
        return result


class FirstCall:
    """A training step that says how long its first call took, which compiles it.

    Memory that this has freed goes back to the system.
    """

    def __init__(self, step: Step, say: Say):
        """Wraps a step; `say` gets the line."""
        self.step, self.say = step, say
        self._called = False

    def __call__(self, state: Any, batch: Any) -> Any:
        """Does the step."""
        if self._called:
            return self.step(state, batch)
        began = time.perf_counter()
        result = self.step(state, batch)
        self._called = True
        freed.give_back()
        self.say(f"compiled in {time.perf_counter() - began:.1f} s")
        return result


_counts = threading.local()


def _compilations() -> int:
    """How many programs this thread has compiled since they are counted."""
    return getattr(_counts, "compilations", 0)


@functools.cache
def _count_compilations() -> None:
    """Counts compilations from now on; listeners of JAX stay."""

    def listen(event: str, duration_secs: float, **more: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            _counts.compilations = _compilations() + 1

    jax.monitoring.register_event_duration_secs_listener(listen)


def difference(old: Signature, new: Signature, most: int = 3) -> str:
    """What differs between two batches: `batch.image was uint8[128,28,28,1] and is uint8[64,28,28,1]`."""
    was, now = old.texts(), new.texts()
    lines = [f"batch{name} is gone" for name in was if name not in now]
    lines += [f"batch{name} is new" for name in now if name not in was]
    lines += [
        f"batch{name} was {was[name]} and is {now[name]}" for name in now if name in was and was[name] != now[name]
    ]
    more = f", and {len(lines) - most} more" if len(lines) > most else ""
    return ", ".join(lines[:most]) + more


class Watchdog:
    """A thread that writes down where every thread stands when a step takes far longer than usual.

    Usual is the median of the last steps; nothing is said before a few of them are known. The first ones don't count:
    they are compiled, or only handed to the device. Use it in a `with` block.
    """

    TIMES = 10.0
    STEPS = 50
    FEWEST = 5
    WARM_UP = 8

    def __init__(self, path: Path, say: Say, floor: float = 10.0):
        """Makes a watchdog that does not run yet.

        Args:
          path: gets the stacks, one stall after another.
          say: gets a line about each stall.
          floor: seconds that are never called a stall.
        """
        self.path, self.say, self.floor = path, say, floor
        self._seconds: deque[float] = deque(maxlen=self.STEPS)
        self._beat: float | None = None
        self._beats = 0
        self._reported = False
        self._pauses = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self) -> None:
        """Called after every step."""
        now = time.monotonic()
        if self._beat is not None and self._beats >= self.WARM_UP:
            self._seconds.append(now - self._beat)
        self._beat, self._reported, self._beats = now, False, self._beats + 1

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The time of the block is no step's: an evaluation, a checkpoint."""
        self._pauses += 1
        try:
            yield
        finally:
            self._beat = time.monotonic()
            self._pauses -= 1

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self.floor / 10):
            beat, seconds = self._beat, list(self._seconds)
            if beat is None or self._pauses or self._reported or len(seconds) < self.FEWEST:
                continue
            usual, passed = statistics.median(seconds), time.monotonic() - beat
            if passed > max(self.TIMES * usual, self.floor):
                self._reported = True
                self._tell(passed, usual)

    def _tell(self, passed: float, usual: float) -> None:
        stall = f"no step for {passed:.1f} s, where {usual:.3g} s is usual"
        try:
            with open(self.path, "a", encoding="utf-8", opener=no_link) as file:
                file.write(f"\n{datetime.now().astimezone().isoformat(timespec='seconds')}  {stall}\n\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError as error:
            self.say(f"{stall}; the stacks could not be written: {error}")
        else:
            self.say(f"{stall}; where every thread stands is in {self.path}")


def parse_steps(text: str) -> range:
    """The steps of `FIRST:LAST`, LAST not among them.

    Raises:
      ValueError: for anything else, or no step at all.
    """
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError(f"steps to profile are FIRST:LAST, such as 100:110 for the ten from step 100 on, not {text!r}")
    return range(int(match[1]), int(match[2]))


class Profile:
    """A training step, some calls of which are traced; use it in a `with` block, which ends a trace under way."""

    def __init__(
        self, step: Step, done: int, folder: Path, steps: range, say: Say, paused: Pause = contextlib.nullcontext
    ):
        """Wraps a step.

        Args:
          step: `(state, batch) -> ...`.
          done: how many steps are done before its first call.
          folder: gets the trace: `plugins/profile/TIME/`.
          steps: to trace, see `parse_steps`.
          say: gets a line: where the trace lies and how to open it, or why there is none.
          paused: makes a block around the writing of the trace, the time of which is no step's.
        """
        self.step, self.done, self.folder, self.steps, self.say = step, done, folder, steps, say
        self.paused = paused
        self._tracing = False

    def __enter__(self) -> "Profile":
        if self.done > self.steps.start:
            self.say(f"no profile: the run starts at step {self.done:,}, past step {self.steps.start:,}")
        return self

    def __call__(self, state: Any, batch: Any) -> Any:
        """Does the step."""
        if self.done == self.steps.start:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self.folder, create_perfetto_trace=True)
            self._tracing = True
        if not self._tracing:
            self.done += 1
            return self.step(state, batch)
        with jax.profiler.StepTraceAnnotation("train", step_num=self.done):
            result = self.step(state, batch)
        self.done += 1
        if self.done == self.steps.stop:
            jax.block_until_ready(result)
            self._stop()
        return result

    def __exit__(self, *error) -> None:
        if self._tracing:
            self._stop()
        elif self.done <= self.steps.start:
            self.say(f"no profile: the run ends at step {self.done:,}, before step {self.steps.start:,} is done")

    def _stop(self) -> None:
        self._tracing = False
        with self.paused():
            jax.profiler.stop_trace()
        newest = max((self.folder / "plugins" / "profile").iterdir())
        self.say(
            f"profile of steps {self.steps.start:,} to {self.done - 1:,}: drop {newest}/perfetto_trace.json.gz on "
            f"https://ui.perfetto.dev, or: pip install xprof && xprof --logdir={self.folder}"
        )
