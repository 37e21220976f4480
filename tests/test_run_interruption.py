"""SIGTERM and Ctrl-C at every moment of a run: what is kept, and that the run goes on as if none had come."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from jaxvision import commands, main
from jaxvision.errors import replacing
from jaxvision.machine.signals import Stopped
from jaxvision.run import checkpoint, interruption, training

TINY = Path(__file__).with_name("tiny_experiment.py")
FIELDS = {"steps": 12, "log": 4, "evaluate": 6, "checkpoint": 3, "report": True}


def train(workdir):
    fields = [f"--config.{name}={value}" for name, value in FIELDS.items()]
    return main.main([f"--config={TINY}", f"--workdir={workdir}", *fields])


def end_of(workdir):
    """The log, and all that the last checkpoint holds."""
    with warnings.catch_warnings(), ocp.training.Checkpointer(str(workdir / "checkpoints")) as checkpoints:
        warnings.simplefilter("ignore")  # Orbax would rather be told the shardings
        digest = int(checkpoints.load(FIELDS["steps"])[checkpoint.DIGEST])
        notes = checkpoints.metadata(FIELDS["steps"]).custom_metadata["notes"]
        return (workdir / "metrics.jsonl").read_text(), digest, notes


def steps_of(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())


class Moment:
    """Sends a signal to this process at a call of a function, once."""

    def __init__(self, number, at):
        self.number, self.at, self.calls = number, at, 0

    def __call__(self):
        self.calls += 1
        if self.calls == self.at:
            signal.raise_signal(self.number)


def while_it_waits(patch, moment, evaluation):
    """The signal comes while a batch of the training, or of the evaluation, is awaited."""
    feeder = training.feeder

    def patched(mesh):
        feed = feeder(mesh)

        def awaited(stream, step=None):
            for batch in feed(stream) if step is None else feed(stream, step):
                if (step is None) == evaluation:
                    moment()
                yield batch

        return awaited

    patch.setattr(training, "feeder", patched)


def before(owner, name):
    def patched(patch, moment):
        plain = getattr(owner, name)
        patch.setattr(owner, name, lambda *args, **options: (moment(), plain(*args, **options))[1])

    return patched


MOMENTS = {
    # At which call of what the signal comes, and the step that is saved then.
    "compiling": (before(training, "fitted"), 1, signal.SIGTERM, 0),
    "evaluation": (lambda patch, moment: while_it_waits(patch, moment, True), 2, signal.SIGTERM, 6),
    "training": (lambda patch, moment: while_it_waits(patch, moment, False), 2, signal.SIGTERM, 7),
    "saving": (before(checkpoint.Checkpoints, "save"), 1, signal.SIGINT, 10),
    "last evaluation": (lambda patch, moment: while_it_waits(patch, moment, True), 2, signal.SIGINT, 12),
    "drawing": (before(training, "draw_report"), 1, signal.SIGTERM, 12),
}


@pytest.mark.slow
def test_a_run_that_was_interrupted_at_every_moment_ends_as_one_that_was_not(tmp_path, monkeypatch, capfd):
    assert train(tmp_path / "whole") == 0
    workdir = tmp_path / "run"
    for when, (arrange, at, number, last) in MOMENTS.items():
        with monkeypatch.context() as patch:
            moment = Moment(number, at)
            arrange(patch, moment)
            assert train(workdir) == main.INTERRUPTED, when
        assert moment.calls == at + (when == "saving"), f"{when}: it went on after the signal"
        assert max(steps_of(workdir), default=0) == last, when
        assert f"stopped by {signal.Signals(number).name} at step {last} of 12" in capfd.readouterr().err, when
        assert {path.name for path in (workdir / "report").glob("*")} <= {"curves.png"}
        assert evaluated(workdir) == {6, 12} & set(range(last + (when == "drawing"))), when
    assert train(workdir) == 0
    assert end_of(workdir) == end_of(tmp_path / "whole")
    assert (workdir / "report/curves.png").exists()


def evaluated(workdir):
    """The steps of the evaluations in the log."""
    path = workdir / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {row["step"] for row in rows if "test/accuracy" in row}


ASLEEP = """
import hashlib, signal, sys, threading
from jaxvision.run.interruption import Interruption
with Interruption(first=0) as signals:
    if sys.argv[1] == "begun":
        signals.requested(1)
    threading.Timer(0.5, signal.pthread_kill, [threading.main_thread().ident, signal.SIGTERM]).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", int(sys.argv[2]))
sys.exit(7)
"""


@pytest.mark.slow
def test_sigterm_ends_a_first_compilation_but_not_a_later_one(monkeypatch):
    """A compilation is a call into which no handler of a signal comes."""
    began = time.monotonic()
    endless = subprocess.run([sys.executable, "-c", ASLEEP, "first", str(2**31 - 1)], capture_output=True, timeout=120)
    assert endless.returncode == main.INTERRUPTED
    assert b"SIGTERM: ended before the first step was compiled" in endless.stderr
    assert time.monotonic() - began < 100
    later = subprocess.run([sys.executable, "-c", ASLEEP, "begun", str(3 * 10**6)], capture_output=True, timeout=120)
    assert later.returncode == 7
    assert b"saving a checkpoint, then ending" in later.stderr


def test_sigterm_ends_a_command_with_nothing_half_written(tmp_path, capsys):
    def write():
        with replacing(tmp_path / "predictions.csv") as partial:
            partial.write_text("half")
            signal.raise_signal(signal.SIGTERM)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    assert commands.status_of(write) == 143
    assert capsys.readouterr().err == "jaxvision: ended by SIGTERM\n"
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_signal_kills_but_for_one_that_comes_at_once():
    program = """
import signal, time
from jaxvision.run import interruption
with interruption.Interruption() as signals:
    signals.requested(1)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)  # the same request
    print(signals.requested(2), flush=True)
    interruption.ONCE = 0
    signal.raise_signal(signal.SIGTERM)
    print("alive")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "True\n"), ended.stderr


def test_the_same_request_does_not_kill_a_run_that_is_ending():
    """A scheduler's SIGTERM may come after a launcher's, while the checkpoint and the lease are being written."""
    program = """
import signal
from jaxvision.run import interruption
signal.signal(signal.SIGTERM, lambda *_: print("as before", flush=True))
with interruption.Interruption() as signals:
    signals.requested(1)
    signal.raise_signal(signal.SIGTERM)
signal.raise_signal(signal.SIGTERM)
print("saved", flush=True)
interruption.ONCE = 0
signal.raise_signal(signal.SIGTERM)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "saved\nas before\n"), ended.stderr


def test_a_signal_raises_where_nothing_is_lost():
    with interruption.Interruption() as signals, pytest.raises(Stopped):
        signal.raise_signal(signal.SIGTERM)
    with interruption.Interruption() as signals:
        assert not signals.requested(1)
        with pytest.raises(Stopped):
            list(signals.awaited(signal.raise_signal(signal.SIGTERM) for _ in range(3)))
        assert signals.name == "SIGTERM"


def test_batches_are_passed_on_and_checked_one_by_one():
    with interruption.Interruption() as signals:
        assert not signals.requested(1)
        seen = []

        def stop_at_two(each):
            seen.append(each)
            if each == 2:
                signal.raise_signal(signal.SIGTERM)

        assert list(signals.awaited(iter(np.arange(3)))) == [0, 1, 2]
        with pytest.raises(Stopped):
            list(map(stop_at_two, signals.awaited(range(5), checked=True)))
        assert seen == [0, 1, 2]


@pytest.mark.slow
def test_ctrl_c_in_a_long_compilation_ends_the_process_soon(tmp_path):
    shapes = TINY.parent.parent / "experiments/shapes.py"
    program = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "runpy.run_module('jaxvision.main', run_name='__main__', alter_sys=True)"
    command = [sys.executable, "-c", program, f"--config={shapes}", "--config.detector=ssd"]
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    environment = {name: text for name, text in environment.items() if name != "JAX_DISABLE_MOST_OPTIMIZATIONS"}
    with subprocess.Popen(
        [*command, f"--workdir={tmp_path / 'run'}", "--config.steps=3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "compiling the training step" in line:
                time.sleep(3)
                process.send_signal(signal.SIGINT)
            if "stopped by SIGINT" in line:
                break
        began = time.monotonic()
        assert process.wait(60) == 75, lines
        assert time.monotonic() - began < 5
    assert "nothing is saved yet" in lines[-1]


def test_it_leaves_no_file_open():
    def opened():
        return len(list(Path("/proc/self/fd").iterdir()))

    with interruption.Interruption():
        pass
    time.sleep(0.1)
    before = opened()
    for _ in range(5):
        with interruption.Interruption():
            pass
    until = time.monotonic() + 5
    while opened() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert opened() == before
