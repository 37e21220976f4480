"""The pool of processes on this machine: what it tells its runs, what it makes of how they end. Runs are small programs."""

import json
import os
import signal
import sys
import threading
import time

import pytest

from jaxvision.run import lease
from launch import cancel, local
from launch.command import Command

SLEEPS = "import time; time.sleep(60)"


@pytest.fixture
def pool(tmp_path):
    """A pool of programs, each in a workdir of its own that is there, and the lines that it says."""

    def make(*programs, **options):
        commands, lines = [], []
        for number, program in enumerate(programs):
            workdir = tmp_path / f"run{number}"
            workdir.mkdir()
            arguments = (sys.executable, "-c", f"workdir = {str(workdir)!r}\n{program}")
            commands.append(Command(workdir.name, arguments, workdir, {}))
        slots = [local.Slot(frozenset(os.sched_getaffinity(0)), {})]
        made = local.Pool(commands, slots, tmp_path / "logs", say=lines.append, **options)
        return made, lines, tmp_path

    return make


def held(folder, host="elsewhere", state="running", detail="", process=1):
    with lease.Held(folder / "run0", 20):
        pass
    content = json.loads((folder / "run0" / lease.FILE).read_text())
    content |= {"host": host, "state": state, "detail": detail, "process": process, "born": ""}
    (folder / "run0" / lease.FILE).write_text(json.dumps(content))


def test_a_signal_that_comes_while_a_run_is_started_reaches_it(pool, monkeypatch):
    made, lines, _ = pool(SLEEPS, SLEEPS)
    spawn = made._spawn

    def interrupted(*arguments):
        process = spawn(*arguments)
        signal.raise_signal(signal.SIGTERM)
        return process

    monkeypatch.setattr(made, "_spawn", interrupted)
    began = time.monotonic()
    outcome = made.run()
    assert time.monotonic() - began < 20
    assert (outcome.failed, outcome.left, outcome.signal) == ((), ("run1", "run0"), "SIGTERM")
    assert "again: they are killed" in lines[-1]


def test_a_launcher_that_fails_ends_its_runs(pool, monkeypatch):
    made, _, _ = pool(SLEEPS)
    monkeypatch.setattr(made, "_collect", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made.run()
    process, _, _ = made.running["run0"]
    assert process.wait(20) == -signal.SIGTERM


def test_a_cancelled_run_whose_lease_names_another_host_is_told_by_its_launcher(pool):
    made, _, folder = pool(SLEEPS)

    def later():
        held(folder)
        time.sleep(0.5)
        (folder / cancel.FILE).touch()

    thread = threading.Thread(target=later)
    thread.start()
    began = time.monotonic()
    outcome = made.run()
    thread.join()
    assert time.monotonic() - began < 20
    assert (outcome.failed, outcome.signal) == ((), "launch.cancel")


def test_a_run_that_ends_early_without_a_step_is_not_started_for_ever(pool):
    made, lines, _ = pool("raise SystemExit(75)", retries=1)
    assert made.run().failed == ("run0",)
    assert sum(line == "run0: starts" for line in lines) == 3  # once more for having been interrupted


def test_a_workdir_that_another_process_has_entered_is_no_failure(pool, monkeypatch):
    monkeypatch.setattr(local, "ELSEWHERE", 0.1)
    program = """
import pathlib, sys
mark = pathlib.Path(workdir, "mark")
if not mark.exists():
    mark.touch()
    print(f"jaxvision: the workdir {workdir} is in use by another process")
    sys.exit(2)
"""
    made, lines, _ = pool(program, retries=0)
    assert made.run().failed == ()
    assert "run0: done, " in lines


def test_the_reason_of_a_failure_is_that_of_this_start(pool):
    made, lines, folder = pool("print('jaxvision: the reason'); raise SystemExit(2)", retries=0)
    held(folder, state="failed", detail="an old reason")
    assert made.run().failed == ("run0",)
    assert "run0: failed: jaxvision: the reason" in lines


def test_a_lease_on_a_disk_that_may_only_be_read_still_counts(tmp_path, monkeypatch):
    (tmp_path / "run0").mkdir()
    held(tmp_path)

    def refused(**options):
        raise PermissionError("read-only")

    monkeypatch.setattr(lease.tempfile, "NamedTemporaryFile", refused)
    assert lease.age(tmp_path / "run0") < 60
    assert lease.alive(tmp_path / "run0", lease.read(tmp_path / "run0"))


def test_a_cancelled_launcher_that_gets_sigterm_too_kills_no_run(pool):
    program = """
import pathlib, signal, time
def end(*_):
    time.sleep(1)  # it saves
    raise SystemExit(75)
signal.signal(signal.SIGTERM, end)
pathlib.Path(workdir, "ready").touch()
time.sleep(60)
"""
    made, _, folder = pool(program)

    def later():
        while not (folder / "run0/ready").exists():
            time.sleep(0.05)
        (folder / cancel.FILE).touch()
        time.sleep(2 * local.POLL)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=later)
    thread.start()
    outcome = made.run()
    thread.join()
    assert (outcome.failed, outcome.left, outcome.signal) == ((), ("run0",), "launch.cancel")
    assert made._asked == 1
