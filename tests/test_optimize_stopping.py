"""Early stopping and reduction on a plateau: when they trigger, against NumPy, whole runs and resumed ones."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from orbax.checkpoint import v1 as ocp

from jaxvision import main
from jaxvision.optimize import stopping
from jaxvision.run import interruption

EXPERIMENT = Path(__file__).with_name("plateau_experiment.py")
FIELDS = ["--config.log=1", "--config.evaluate=5", "--config.checkpoint=4", "--config.batch_size=8"]

figure = st.one_of(
    st.floats(-1, 1).map(lambda x: round(x, 1)), st.just(math.nan), st.sampled_from([math.inf, -math.inf])
)


def waits_by_keras(values, better, min_delta):
    """How many evaluations without improvement there have been after each: Keras' EarlyStopping.on_epoch_end."""
    improves, sign = (np.greater, 1) if better == "higher" else (np.less, -1)
    best, wait, waits = -sign * np.inf, 0, []
    for value in np.asarray(values, np.float64):
        wait += 1
        if improves(value - sign * min_delta, best):
            best, wait = value, 0
        waits.append(wait)
    return waits


def first_stop(values, stop):
    history = [{"step": i, "test/loss": float(value)} for i, value in enumerate(values)]
    return next((i for i in range(len(history)) if stop(history[: i + 1])), None)


@given(
    st.lists(figure, min_size=1, max_size=12),
    st.integers(1, 4),
    st.sampled_from(["higher", "lower"]),
    st.sampled_from([0.0, 0.25]),
)
def test_it_stops_at_the_evaluation_that_a_replay_gives(values, patience, better, min_delta):
    stop = stopping.early("test/loss", patience, better=better, min_delta=min_delta)
    waits = waits_by_keras(values, better, min_delta)
    expected = next((i for i, waited in enumerate(waits) if waited >= patience), None)
    assert first_stop(values, stop) == expected


@given(st.lists(figure, min_size=1, max_size=12), st.integers(1, 4))
def test_without_a_least_difference_it_counts_from_the_last_strict_record(values, patience):
    values = np.asarray(values)
    before = np.concatenate([[np.inf], np.fmin.accumulate(values)[:-1]])
    before = np.where(np.isnan(before), np.inf, before)
    last = np.maximum.accumulate(np.where(values < before, np.arange(len(values)), -1))
    waited = np.arange(len(values)) - last
    expected = next(iter(np.flatnonzero(waited >= patience)), None)
    assert first_stop(values, stopping.early("test/loss", patience, better="lower")) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "patience is 0 and min_delta is 0.0; they must be >= 1 and >= 0"),
        ({"min_delta": -1.0}, "min_delta is -1.0"),
        ({"better": "more"}, "better is 'more'; allowed: 'higher', 'lower'"),
    ],
)
def test_values_that_are_not_allowed_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        stopping.early(**{"metric": "test/loss", "patience": 2, "better": "lower", **options})


def test_a_figure_that_no_evaluation_gives_is_answered_with_the_nearest():
    stop = stopping.early("test/acuracy", 2, better="higher")
    with pytest.raises(ValueError, match="no evaluation gives 'test/acuracy'; the nearest metrics are test/accuracy, "):
        stop([{"step": 1, "test/accuracy": 0.5, "test/log_loss": 2.0}])


# Whole runs.


def losses_and_figures(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    return losses, {row["step"]: row["test/log_loss"] for row in rows if "test/log_loss" in row}


def reductions(losses, patience=2, accumulation=2, rtol=1e-4):
    """After which steps the rate is lower: the mean of each `accumulation` losses, compared with the best one so far."""
    means = np.asarray(losses[: len(losses) // accumulation * accumulation], np.float32)
    best, waited, steps = np.float32(np.inf), 0, []
    for i, mean in enumerate(means.reshape(-1, accumulation).mean(1), 1):
        best, waited = (mean, 0) if mean < (1 - rtol) * best else (best, waited + 1)
        if waited == patience:
            waited = 0
            steps.append(i * accumulation)
    return steps


def final_state(workdir):
    with (
        pytest.warns(UserWarning, match="sharding"),
        ocp.training.Checkpointer(str(workdir / "checkpoints")) as checkpoints,
    ):
        return checkpoints.load(checkpoints.latest.step)["state"]


def bits(state):
    def of(x):
        return np.asarray(
            jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        ).tobytes()

    return [(jax.tree_util.keystr(path), of(x)) for path, x in jax.tree_util.tree_leaves_with_path(state)]


def plateau_scale(state):
    [scale] = [
        x for path, x in jax.tree_util.tree_leaves_with_path(state) if "scale" in jax.tree_util.keystr(path[-1:])
    ]
    return float(scale)


def check_a_run(workdir):
    """The run ended where a replay of its own log says, at the rate that a replay says; gives its steps."""
    losses, figures = losses_and_figures(workdir)
    done = max(losses)
    assert list(losses) == list(range(1, done + 1))
    waits = waits_by_keras(list(figures.values()), "lower", 0.01)
    assert [waited >= 3 for waited in waits] == [False] * (len(waits) - 1) + [True]
    assert list(figures)[-1] == done
    lowered = reductions(list(losses.values()))
    assert len(lowered) >= 2
    assert plateau_scale(final_state(workdir)) == 0.5 ** len(lowered)
    return done, lowered


def check_equal(killed, whole):
    assert bits(final_state(killed)) == bits(final_state(whole))
    assert (killed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_a_run_that_crashed_stops_and_lowers_its_rate_where_an_uninterrupted_one_does(tmp_path, monkeypatch):
    def run(name):
        return main.main([f"--config={EXPERIMENT}", f"--workdir={tmp_path / name}", "--no-report", *FIELDS])

    assert run("whole") == 0
    done, lowered = check_a_run(tmp_path / "whole")
    assert lowered[0] + 2 < lowered[1] < done

    def crash(signals, step):
        if step == lowered[0] + 2:
            raise KeyboardInterrupt
        return False

    with monkeypatch.context() as patched:
        patched.setattr(interruption.Interruption, "requested", crash)
        assert run("killed") == 130
    assert run("killed") == 0
    check_equal(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_run_stops_and_lowers_its_rate_where_an_uninterrupted_one_does(tmp_path):
    def start(name):
        command = [
            sys.executable,
            "-m",
            "jaxvision.main",
            f"--config={EXPERIMENT}",
            f"--workdir={tmp_path / name}",
            "--no-report",
        ]
        return subprocess.Popen([*command, *FIELDS], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def finish(process):
        printed, _ = process.communicate(timeout=200)
        assert process.returncode == 0, printed

    finish(start("whole"))
    done, lowered = check_a_run(tmp_path / "whole")
    log = tmp_path / "killed/metrics.jsonl"
    for rows in (lowered[0] + 1, done // 2):
        process = start("killed")
        while process.poll() is None and not (log.exists() and log.read_bytes().count(b'"loss"') >= rows):
            time.sleep(0.001)
        assert process.poll() is None, process.communicate()[0]
        os.kill(process.pid, 9)
        process.communicate()
    finish(start("killed"))
    check_equal(tmp_path / "killed", tmp_path / "whole")
