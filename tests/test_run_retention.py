import os

import jax.numpy as jnp
import pytest

from jaxvision.errors import CheckpointError
from jaxvision.experiment import Keep
from jaxvision.run import checkpoint, lines, retention
from jaxvision.run.checkpoint import Checkpoints

LIKE = {"w": jnp.zeros(3)}


def saved(folder, steps, keep):
    with Checkpoints(folder, keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, {"w": jnp.full(3, float(step))}, {}, None)
    return folder


@pytest.fixture
def three(tmp_path):
    """A folder with the checkpoints 1, 2 and 3."""
    return saved(tmp_path / "checkpoints", (1, 2, 3), Keep(latest=3))


class Killed(BaseException):
    """What no part of a run catches."""


def test_a_deletion_cut_short_leaves_no_checkpoint_and_is_swept(three, monkeypatch):
    def cut_short(path):
        (path / "_CHECKPOINT_METADATA").unlink()
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(retention.shutil, "rmtree", cut_short)
        with pytest.raises(Killed):
            retention.delete(three / "3")
    assert sorted(os.listdir(three)) == ["1", "2", "3.deleted"]
    with Checkpoints(three, read_only=True) as checkpoints:
        assert checkpoints.newest(LIKE).step == 2
    assert sorted(os.listdir(three)) == ["1", "2", "3.deleted"]
    with Checkpoints(three, Keep(latest=3)) as checkpoints:
        assert checkpoints.steps == [1, 2]
    assert sorted(os.listdir(three)) == ["1", "2"]
    assert not three.with_name("checkpoints.damaged").exists()


def test_what_a_killed_run_had_not_deleted_goes_once_a_newer_one_is_read(three):
    with Checkpoints(three, Keep(latest=1)) as checkpoints:
        assert checkpoints.steps == [1, 2, 3]
        assert checkpoints.newest(LIKE).step == 3
        assert checkpoints.steps == [3]
    assert os.listdir(three) == ["3"]


def test_none_goes_for_one_that_can_not_be_read(three):
    (three / "3" / "_CHECKPOINT_METADATA").write_bytes(b"")
    with Checkpoints(three, Keep(latest=1)) as checkpoints:
        assert checkpoints.steps == [1, 2, 3]
        assert checkpoints.newest(LIKE).step == 2
    assert os.listdir(three) == ["2"]


def test_what_resists_is_told_and_tried_again(three, monkeypatch, caplog):
    def in_use(path):
        raise OSError(16, "Device or resource busy", str(path / ".nfs01"))

    with monkeypatch.context() as patched, Checkpoints(three, Keep(latest=1)) as checkpoints:
        patched.setattr(retention.shutil, "rmtree", in_use)
        checkpoints.newest(LIKE)
        assert checkpoints.steps == [3]
    assert sorted(os.listdir(three)) == ["1.deleted", "2.deleted", "3"]
    assert "2.deleted could not be removed, and is tried again at the next start: " in caplog.text
    saved(three, (4,), Keep(latest=2))
    assert sorted(os.listdir(three)) == ["3", "4"]


def test_a_checkpoint_goes_when_its_successor_is_on_disk_and_not_before(three, monkeypatch):
    checkpoints = Checkpoints(three, Keep(latest=1))
    monkeypatch.setattr(checkpoints._orbax, "save_async", lambda *_, **__: Failing())
    with pytest.raises(CheckpointError, match=r"checkpoint .*4 could not be written: disk full"):
        checkpoints.save(4, LIKE, {}, None)
    assert sorted(os.listdir(three)) == ["1", "2", "3"]
    checkpoints.close()


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("kept", [1, 2])
def test_of_equal_ones_the_earliest_is_the_best_wherever_that_is_asked(tmp_path, mode, kept):
    keep = Keep(latest=1, best=kept, by="test/x", mode=mode)
    sign, history, best = {"max": 1, "min": -1}[mode], [], []
    with Checkpoints(tmp_path / "checkpoints", keep) as checkpoints:
        for step, x in ((1, 0.3), (2, 0.5), (3, 0.5), (4, 0.1), (5, 0.5)):
            metrics = {"test/x": sign * x}
            if lines.is_best(metrics, keep, history):
                best.append(step)
            history.append({"step": step, **metrics})
            checkpoints.save(step, LIKE, {}, metrics)
        checkpoints.wait()
        assert checkpoints.best_step() == best[-1] == 2
        assert checkpoints.steps == [2, *([3] if kept == 2 else []), 5]
    (text,) = lines.evaluation_lines({"test/x": sign * 0.2}, keep, history)
    assert text.endswith("at step 2)")


def test_what_is_remembered_of_checkpoints_that_are_gone_does_not_grow(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "LISTED", 4)
    keep = Keep(latest=1, best=1, by="test/x")
    with Checkpoints(tmp_path / "checkpoints", keep) as checkpoints:
        checkpoints.save(1, LIKE, {}, {"test/x": 1.0})
        for step in range(2, 15):
            checkpoints.save(step, LIKE, {}, {"test/x": 0.5})
        checkpoints.wait()
        assert checkpoints.steps == [1, 14]
        assert checkpoints.best_step() == 1
        assert len(checkpoints._orbax.checkpoints) <= 6
        assert len(checkpoints._metrics) <= 6


class Failing:
    """A save that fails."""

    def result(self):
        raise OSError("disk full")
