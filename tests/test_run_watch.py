"""What watches a run: real compilations, real stalls, a real trace."""

import contextlib
import gzip
import itertools
import json
import re
import threading
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.run.watch import Profile, Recompilations, Watchdog, parse_steps
from jaxvision.types import Batch, Labels

LONG = 60.0
"""Seconds that no wait of these tests takes, however busy the machine is."""


def batch(count, dtype=np.uint8, target=True):
    size = jnp.full((count, 2), 8, jnp.int32)
    label = Labels(jnp.zeros(count, jnp.int32)) if target else None
    index, valid = jnp.arange(count), jnp.ones(count, bool)
    return Batch(jnp.ones((count, 8, 8, 1), dtype), size, size, index, valid, label)


def jitted():
    return jax.jit(lambda state, batch: (state + batch.image.astype(jnp.float32).mean(), {"loss": state.sum()}))


def run(step, batches, state=None):
    state = jnp.zeros(()) if state is None else state
    for each in batches:
        state, _ = step(state, each)
    return state


def test_a_batch_of_another_size_is_told_with_its_step_once():
    said = []
    step = Recompilations(jitted(), 100, said.append)
    sizes = [16, 16, 16, 10, 16, 10, 10]
    assert run(step, [batch(size) for size in sizes]) == len(sizes)
    (line,) = said
    assert line.startswith("step 103: compiling again: batch.image was uint8[16,8,8,1] and is uint8[10,8,8,1], ")
    assert line.endswith(", and 3 more")
    assert step.step._cache_size() == 2


def test_another_dtype_and_another_structure_are_told():
    said = []
    step = Recompilations(jitted(), 0, said.append)
    run(step, [batch(4), batch(4, np.float32), batch(4, np.float32, target=False), batch(4)])
    assert said[:2] == [
        "step 1: compiling again: batch.image was uint8[4,8,8,1] and is float32[4,8,8,1]",
        "step 2: compiling again: batch.target.label is gone",
    ]
    assert len(said) == 2


def test_a_compilation_without_another_shape_is_told():
    said = []
    step = Recompilations(jitted(), 0, said.append)
    state = run(step, [batch(4), batch(4)])
    assert said == []
    run(step, [batch(4)], state=jnp.zeros((2,)) + state)
    (line,) = said
    assert line.startswith("step 2: compiled again, though the batch has a known shape")


def test_it_costs_next_to_nothing():
    each = batch(4)
    wrapped = Recompilations(lambda state, batch: state, 0, pytest.fail)
    wrapped(0, each)

    def seconds():
        start = time.perf_counter()
        for _ in range(100):
            wrapped(0, each)
        return (time.perf_counter() - start) / 100

    assert min(seconds() for _ in range(20)) < 50e-6


@pytest.fixture
def watched(tmp_path):
    """A watchdog that has seen steps of a hundredth of a second, and the lines that it says."""
    told = threading.Event()
    said = []

    def say(line):
        said.append(line)
        told.set()

    with Watchdog(tmp_path / "stacks.txt", say, floor=0.3) as watchdog:
        watchdog._seconds.extend([0.01] * Watchdog.STEPS)
        watchdog.beat()
        yield watchdog, said, told


def a_function_that_hangs(until):
    until.wait(LONG)


def test_a_stall_is_told_once_with_the_stack_of_every_thread(watched):
    watchdog, said, told = watched
    ended = threading.Event()
    other = threading.Thread(target=a_function_that_hangs, args=(ended,))
    other.start()
    assert told.wait(LONG)
    time.sleep(0.5)  # still the same stall
    ended.set()
    other.join()
    (line,) = said
    assert re.match(
        r"no step for \d+\.\d s, where 0\.01 s is usual; where every thread stands is in .*stacks\.txt", line
    )
    stacks = watchdog.path.read_text()
    assert "a_function_that_hangs" in stacks
    assert "test_a_stall_is_told_once_with_the_stack_of_every_thread" in stacks
    assert re.search(r"^20\d\d-\d\d-\d\dT.*no step for", stacks, re.MULTILINE)

    told.clear()
    watchdog.beat()
    assert told.wait(LONG), "the next stall is told, too"
    assert watchdog.path.read_text().count("no step for") == len(said)


def test_pauses_and_first_steps_are_no_stalls(tmp_path):
    said = []
    with Watchdog(tmp_path / "stacks.txt", said.append, floor=0.1) as watchdog:
        for _ in range(
            Watchdog.WARM_UP + Watchdog.FEWEST - 1
        ):  # one interval too few: nothing is known of what is usual
            watchdog.beat()
        time.sleep(0.5)
        with watchdog.paused():
            watchdog._seconds.extend([0.01] * Watchdog.STEPS)
            time.sleep(0.5)
            watchdog._ended.set()
    assert said == []
    assert not (tmp_path / "stacks.txt").exists()


def test_the_time_of_a_pause_belongs_to_no_step(tmp_path, monkeypatch):
    now = itertools.count(0)
    monkeypatch.setattr("jaxvision.run.watch.time", SimpleNamespace(monotonic=lambda: next(now)))  # a second a look
    watchdog = Watchdog(tmp_path / "stacks.txt", pytest.fail)
    for _ in range(Watchdog.WARM_UP + 1):
        watchdog.beat()
    with watchdog.paused():
        now = itertools.count(100)
    watchdog.beat()
    assert list(watchdog._seconds) == [1, 1]


def test_a_stall_after_a_pause_is_told(watched):
    watchdog, _, told = watched
    with watchdog.paused(), watchdog.paused():
        pass
    told.clear()
    watchdog._reported = False
    assert told.wait(LONG)


def test_steps_that_are_slow_as_usual_are_no_stall(tmp_path):
    said = []
    with Watchdog(tmp_path / "stacks.txt", said.append, floor=0.05) as watchdog:
        watchdog._seconds.extend([LONG] * Watchdog.STEPS)
        watchdog.beat()
        time.sleep(0.5)
    assert said == []


def test_the_thread_of_a_watchdog_ends_with_its_block(tmp_path):
    with Watchdog(tmp_path / "stacks.txt", print, floor=0.1) as watchdog:
        assert watchdog._thread.is_alive()
    assert not watchdog._thread.is_alive()


def test_a_place_that_can_not_be_written_is_told(tmp_path):
    told = threading.Event()
    said = []
    with Watchdog(tmp_path / "missing" / "stacks.txt", lambda line: (said.append(line), told.set()), 0.1) as watchdog:
        watchdog._seconds.extend([0.01] * Watchdog.STEPS)
        watchdog.beat()
        assert told.wait(LONG)
    assert "the stacks could not be written: " in said[0]


def test_the_steps_to_profile():
    assert parse_steps("100:110") == range(100, 110)
    for text in ("100", "10:10", "10:5", ":5", "5:", "a:b", "-1:3", "1:2:3", ""):
        with pytest.raises(ValueError, match=f"FIRST:LAST.*not '{text}'"):
            parse_steps(text)


def test_a_profile_opens_in_perfetto_and_in_tensorboard(tmp_path):
    said = []
    with Profile(jitted(), 5, tmp_path, range(7, 9), said.append) as step:
        state = run(step, [batch(4)] * 3)
        assert said == []
        run(step, [batch(4)], state)
        (line,) = said
        run(step, [batch(4)], state)
    assert said == [line]
    assert "profile of steps 7 to 8: " in line
    (trace,) = tmp_path.glob("plugins/profile/*/perfetto_trace.json.gz")
    assert str(trace) in line
    assert f"xprof --logdir={tmp_path}" in line
    assert list(trace.parent.glob("*.xplane.pb"))
    with gzip.open(trace) as file:
        events = json.load(file)["traceEvents"]
    names = [event.get("name", "") for event in events]
    assert any("PjitFunction" in name or "Execute" in name for name in names)
    steps = {event["args"]["step_num"] for event in events if event.get("name") == "train"}
    assert steps == {"7", "8"}


def test_the_time_that_a_profile_takes_to_write_is_no_steps(tmp_path, monkeypatch):
    events = []

    @contextlib.contextmanager
    def paused():
        events.append("paused")
        yield
        events.append("on")

    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: events.append("written"))
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder, **options: None)
    (tmp_path / "plugins/profile/now").mkdir(parents=True)
    with Profile(jitted(), 0, tmp_path, range(0, 1), print, paused) as step:
        run(step, [batch(4)])
    assert events == ["paused", "written", "on"]


def test_a_run_that_ends_within_the_profile_keeps_what_there_is(tmp_path):
    said = []
    with Profile(jitted(), 0, tmp_path, range(1, 100), said.append) as step:
        run(step, [batch(4)] * 3)
    (line,) = said
    assert "profile of steps 1 to 2: " in line
    assert list(tmp_path.glob("plugins/profile/*/perfetto_trace.json.gz"))


@pytest.mark.parametrize(
    ("done", "reason"),
    [(8, "the run starts at step 8, past step 7"), (0, "the run ends at step 2, before step 7 is done")],
)
def test_a_profile_that_can_not_be_is_told(tmp_path, done, reason):
    said = []
    with Profile(jitted(), done, tmp_path, range(7, 9), said.append) as step:
        run(step, [batch(4)] * 2)
    assert said == [f"no profile: {reason}"]
    assert not list(tmp_path.iterdir())
