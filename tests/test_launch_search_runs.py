"""Whole searches: killed and started again, by two launchers at once, with trials that fail, repeat, or are pruned."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import description, journal, plan, state, status
from launch.study import Study

pytest.importorskip("optuna")
pytestmark = pytest.mark.slow
LINEAR = Path(__file__).parent / "linear_experiment.py"
RATE = "--search.learning_rate=log_uniform(1e-4, 1.0)"


def start(folder, *more):
    environment = {**os.environ, "PYTHONPATH": f"{LINEAR.parent}:{LINEAR.parent.parent}"}
    flags = (f"--config={LINEAR}", f"--workdir={folder}", "--decide=test/accuracy", *more)
    return subprocess.Popen(
        [sys.executable, "-m", "launch.search", *flags], cwd=LINEAR.parent.parent, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def found(folder):
    """Fields, state and figure of each trial, from the journal as Optuna itself reads it."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / journal.FILE)))
    trials = optuna.load_study(study_name=journal.NAME, storage=storage).trials
    return [(trial.params, trial.state.name, trial.value) for trial in trials]


def wait_for(folder, wanted, seconds=120):
    """The name of the first run whose state is as wanted."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (folder / plan.FILE).exists():
            for name, at in state.states(plan.read(folder), folder).items():
                if wanted(at):
                    return name
        time.sleep(0.02)
    raise AssertionError(f"no run is as wanted: {list(folder.iterdir())}")


def test_a_search_killed_twice_has_the_trials_of_one_that_was_not(tmp_path):
    flags = ("--trials=12", RATE, "--search.seed=uniform(0, 99)", "--config.steps=24")
    out, err = start(tmp_path / "whole", *flags).communicate(timeout=400)
    assert "12 trials: 12 done" in out, err
    killed = tmp_path / "killed"
    for done in (3, 8):
        launcher = start(killed, *flags)
        name = wait_for(
            killed, lambda at, done=done: at.kind == "running" and at.step >= 4 and finished(killed) >= done
        )
        launcher.send_signal(signal.SIGKILL)
        os.kill(json.loads((killed / name / "lease.json").read_text())["process"], signal.SIGKILL)
        launcher.communicate()
        assert [ended for _, ended, _ in found(killed)].count("RUNNING") == 1
        assert wait_for(killed, lambda at: at.kind == "lost") == name
    out, err = start(killed, *flags).communicate(timeout=400)
    assert f"{name}: goes on" in err
    assert "12 trials: 12 done" in out
    trials = found(killed)
    assert trials == found(tmp_path / "whole")  # so is the best
    assert len({json.dumps(params) for params, _, _ in trials}) == 12
    members = plan.read(killed).members
    assert [len(state.starts(killed / member.name)) for member in members].count(2) == 2
    assert len(members) == 12
    assert status.main([str(killed)]) == 0


def finished(folder):
    return sum(ended != "RUNNING" for _, ended, _ in found(folder))


def test_two_launchers_of_one_search_run_no_trial_twice(tmp_path):
    flags = ("--trials=6", "--search.learning_rate=0.01,0.1", "--search.seed=0,1", "--sampler=random", "--workers=1")
    both = [start(tmp_path, *flags) for _ in range(2)]
    ends = [launcher.communicate(timeout=300) for launcher in both]
    assert [launcher.returncode for launcher in both] == [0, 0], ends
    assert all("6 trials: 6 done" in out for out, _ in ends)
    trials, members = found(tmp_path), plan.read(tmp_path).members
    assert len(trials) == 6
    assert len(members) == len({json.dumps(params) for params, _, _ in trials}) < 6  # the others are repeated
    assert [len(state.starts(tmp_path / member.name)) for member in members] == [1] * len(members)
    for params, _, value in trials:
        assert value == next(value for other, _, value in trials if other == params)


def test_a_trial_without_a_figure_fails_and_stops_the_search(tmp_path):
    flags = ("--trials=5", "--search.learning_rate=1e38,2e38,3e38,4e38", "--sampler=random", "--retries=0")
    launcher = start(tmp_path, *flags, "--stop-after-failures=1")
    out, err = launcher.communicate(timeout=200)
    assert launcher.returncode == 1
    assert "1 trial: 1 failed" in out
    assert "not finite" in err
    assert "no further one is started (--stop-after-failures)" in err
    launcher = start(tmp_path, "--trials=1", *flags[1:])
    out, err = launcher.communicate(timeout=200)
    assert launcher.returncode == 0  # nothing is left to do
    assert "1 trial: 1 failed" in out


def test_a_trial_below_the_median_is_ended_and_its_state_says_so(tmp_path):
    from launch import search

    flags = ("--trials=6", RATE, "--sampler=random", "--prune=median", "--config.steps=1000000")
    parsed, overrides, texts = arguments(tmp_path, flags)
    description.require("random")
    of = search.asked(parsed, overrides, texts)
    description.write(of, tmp_path)
    with Study(of, tmp_path) as opened:
        for number in range(5):  # trials before it that are better than any can be
            trial = opened.ask(6)
            for step in (2, 4, 6):
                opened.report(number, step, 2.0)
            opened.name(trial.number, f"another{number}")
            opened.tell(number, "COMPLETE", 2.0)
    launcher = start(tmp_path, *flags)
    out, err = launcher.communicate(timeout=200)
    assert launcher.returncode == 0, err
    assert "6 trials: 5 done, 1 pruned" in out
    (member,) = plan.read(tmp_path).members
    at = state.state(tmp_path / member.name)
    assert at.kind == "pruned"
    assert at.detail.startswith("at step 2: test/accuracy")
    lease = json.loads((tmp_path / member.name / "lease.json").read_text())
    assert (lease["state"], lease["detail"]) == ("interrupted", "SIGTERM")
    assert found(tmp_path)[5][1] == "PRUNED"
    assert "pruned" in out


def arguments(folder, flags):
    """The flags as the command reads them."""
    from jaxvision import commands
    from launch import search, sweep

    given = [f"--config={LINEAR}", f"--workdir={folder}", "--decide=test/accuracy", *flags]
    texts, rest = sweep.split_sweep(given, print, search.PREFIX)
    return *commands.parsed(search.parser(), rest), texts
