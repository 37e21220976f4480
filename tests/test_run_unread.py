"""Checkpoints that can't be read for a moment, for the machine's reason: none of them is deleted or moved."""

import errno
import os

import jax.numpy as jnp
import pytest

from jaxvision.errors import CheckpointError
from jaxvision.experiment import Keep
from jaxvision.run import checkpoint, damage
from jaxvision.run.checkpoint import Checkpoints
from jaxvision.run.reader import load_only

BY_X = Keep(latest=1, best=1, by="test/x")
LIKE = {"w": jnp.zeros(3)}


@pytest.fixture
def folder(tmp_path):
    """A folder with the checkpoints 1, the best, and 3, the latest."""
    with Checkpoints(tmp_path / "checkpoints", BY_X) as checkpoints:
        for step, x in ((1, 0.9), (2, 0.5), (3, 0.4)):
            checkpoints.save(step, {"w": jnp.full(3, float(step))}, {}, {"test/x": x})
    return tmp_path / "checkpoints"


@pytest.fixture
def failing(monkeypatch):
    """Lets the n-th read of what a checkpoint says of itself fail, of that of step 1."""

    def arrange(number, error):
        read, count = checkpoint.ocp.metadata, iter(range(1, 1_000))

        def once(path, *more, **options):
            if str(path).endswith("/1") and next(count) == number:
                raise error
            return read(path, *more, **options)

        monkeypatch.setattr(checkpoint.ocp, "metadata", once)

    return arrange


def of(number):
    return OSError(number, os.strerror(number), "checkpoints/1")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ESTALE, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("read", [1, 2])
def test_the_best_stays_where_its_score_could_not_be_read(folder, failing, caplog, read, number):
    failing(read, of(number))
    with Checkpoints(folder, BY_X) as checkpoints:
        assert checkpoints.newest(LIKE).step == 3
        assert checkpoints.steps == [1, 3]
        assert checkpoints.best_step() == 1
        checkpoints.save(4, LIKE, {}, {"test/x": 0.3})
    assert sorted(os.listdir(folder)) == ["1", "4"]
    assert sorted(os.listdir(folder.parent)) == ["checkpoints"]
    assert os.strerror(number) in caplog.text
    assert "damaged" not in caplog.text


def test_the_best_stays_where_its_score_can_not_be_read_for_long(folder, monkeypatch):
    read = checkpoint.ocp.metadata

    def never(path, *more, **options):
        if str(path).endswith("/1"):
            raise of(errno.EMFILE)
        return read(path, *more, **options)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.ocp, "metadata", never)
        with Checkpoints(folder, BY_X) as checkpoints:
            checkpoints.newest(LIKE)
            checkpoints.save(4, LIKE, {}, {"test/x": 0.3})
            with pytest.raises(CheckpointError, match=r"checkpoint .*/1 could not be read: .*Too many open files"):
                checkpoints.best_step()
        with pytest.raises(CheckpointError, match=r"checkpoint .*/1 could not be read: .*Too many open files"):
            load_only(folder, "best", BY_X, LIKE)
        assert load_only(folder, "latest", BY_X, LIKE).step == 4
    with Checkpoints(folder, BY_X) as checkpoints:
        assert checkpoints.newest(LIKE).step == 4
        assert checkpoints.best_step() == 1


def test_one_that_is_damaged_when_it_is_scored_is_not_deleted(folder, failing, caplog):
    failing(2, ValueError("junk"))
    with Checkpoints(folder, BY_X) as checkpoints:
        checkpoints.newest(LIKE)
        assert checkpoints.steps == [1, 3]
    assert "1 is damaged, the best of none: junk" in caplog.text


def test_metrics_of_an_older_version_stay_where_they_could_not_be_read(folder, monkeypatch):
    kept = folder / "1" / "metrics"
    kept.mkdir()
    (kept / "metrics").write_text('{"test/x": 0.9}')
    read = type(kept).read_text

    def text(path, *more, **options):
        if path == kept / "metrics":
            raise of(errno.EMFILE)
        return read(path, *more, **options)

    monkeypatch.setattr(type(kept), "read_text", text)
    with pytest.raises(CheckpointError, match=r"1/metrics/metrics .*Too many open files"):
        Checkpoints(folder, BY_X)
    assert sorted(os.listdir(folder.parent)) == ["checkpoints"]


def test_which_errors_are_the_machines():
    wrapped = ValueError("it can't be opened")
    wrapped.__cause__ = of(errno.EMFILE)
    for error in (MemoryError(), of(errno.ENOMEM), wrapped, ValueError("RESOURCE_EXHAUSTED: Too many open files")):
        assert damage.of_machine(error)
    for error in (of(errno.ENOENT), of(errno.ENOTDIR), of(errno.EISDIR), ValueError("junk"), OSError("cut off")):
        assert not damage.of_machine(error)
