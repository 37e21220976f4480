"""Whole sweeps: run, killed, started again, cancelled, by two launchers at once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import plan, report, state

pytestmark = pytest.mark.slow
TINY = Path(__file__).parent / "tiny_experiment.py"
SWEEP = (
    *(sys.executable, "-m", "launch.sweep", f"--config={TINY}", "--sweep.learning_rate=0.001,0.01", "--seeds=0,1"),
    *("--workers=2", "--decide=test/accuracy", "--config.checkpoint=2", "--config.steps=40", "--config.evaluate=10"),
)


def start(folder, *more):
    environment = {**os.environ, "PYTHONPATH": f"{TINY.parent}:{TINY.parent.parent}"}
    return subprocess.Popen(
        [*SWEEP, f"--workdir={folder}", *more], cwd=TINY.parent.parent, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def table(folder):
    """Figures of each run, and how often each was started."""
    planned = plan.read(folder)
    found = state.states(planned, folder)
    assert {at.kind for at in found.values()} == {"done"}
    return {name: ((folder / name / "metrics.jsonl").read_bytes(), at.figures) for name, at in found.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sweep that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    out, err = start(folder).communicate(timeout=300)
    assert "4 runs: 4 done" in out, err
    return folder


def test_a_sweep_runs_each_member_once(whole):
    assert all(len(state.starts(whole / member.name)) == 1 for member in plan.read(whole).members)
    process = start(whole)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "4 runs: 4 done" in out
    assert not err
    assert all(len(state.starts(whole / member.name)) == 1 for member in plan.read(whole).members)
    assert report.main([str(whole), "--draws=0"]) == 0


def test_launchers_killed_at_random_and_two_at_once_give_the_same_table(whole, tmp_path):
    chance = random.Random(0)
    for _ in range(3):
        launcher = start(tmp_path)
        time.sleep(chance.uniform(8, 14))
        launcher.send_signal(signal.SIGKILL)
        launcher.communicate()
    both = [start(tmp_path), start(tmp_path)]
    ends = [launcher.communicate(timeout=300) for launcher in both]
    assert [launcher.returncode for launcher in both] == [0, 0], ends
    assert table(tmp_path) == table(whole)
    for member in plan.read(tmp_path).members:  # the runs went on while their launcher was gone
        assert len(state.starts(tmp_path / member.name)) == 1


def test_a_killed_member_goes_on_from_its_checkpoint(whole, tmp_path):
    launcher = start(tmp_path)
    killed = wait_for(tmp_path, lambda at: at.kind == "running" and at.step >= 10)
    held = json.loads((tmp_path / killed / "lease.json").read_text())
    os.kill(held["process"], signal.SIGKILL)
    _, err = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, err
    assert f"{killed}: failed: killed by SIGKILL; it is tried again" in err
    assert f"{killed}: goes on" in err
    assert table(tmp_path) == table(whole)
    first, second = state.starts(tmp_path / killed)
    assert (first["step"], second["step"] > 0) == (0, True)


def test_a_cancelled_sweep_saves_and_goes_on(tmp_path):
    long = ("--config.steps=100000", "--workers=1")
    for reached in (5, 10):
        launcher = start(tmp_path, *long)
        wait_for(tmp_path, lambda at, reached=reached: at.kind == "running" and at.step >= reached)
        subprocess.run([sys.executable, "-m", "launch.cancel", str(tmp_path)], cwd=TINY.parent.parent, check=True)
        _, err = launcher.communicate(timeout=120)
        assert launcher.returncode == 75, err
        kinds = [at.kind for at in state.states(plan.read(tmp_path), tmp_path).values()]
        assert sorted(kinds) == ["interrupted", "waiting", "waiting", "waiting"]
    assert ": goes on" in err


def test_members_that_fail_stop_the_sweep(tmp_path):
    launcher = start(tmp_path, "--config.blow_up_at=3", "--retries=1", "--stop-after-failures=1", "--workers=1")
    out, err = launcher.communicate(timeout=300)
    assert launcher.returncode == 1
    assert err.count("it is tried again") >= 1
    assert "no further one is started (--stop-after-failures)" in err
    assert "1 failed, 3 waiting" in out
    assert "not finite" in out  # the last line of its error


def wait_for(folder, wanted, seconds=120):
    """The name of the first run whose state is as wanted."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (folder / plan.FILE).exists():
            for name, at in state.states(plan.read(folder), folder).items():
                if wanted(at):
                    return name
        time.sleep(0.05)
    raise AssertionError(f"no run is as wanted: {list(folder.iterdir())}")
