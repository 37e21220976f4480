"""Readers of a run that is under way: no checkpoint that is deleted meanwhile is called damaged."""

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import run
from jaxvision.errors import CheckpointError
from jaxvision.experiment import Keep
from jaxvision.run import reader, retention, transfer
from jaxvision.run.checkpoint import Checkpoints
from jaxvision.run.reader import load_only

KEEP = Keep(latest=2, best=1, by="test/x")
WRITER = """
import itertools
import sys
from pathlib import Path

import jax.numpy as jnp

from jaxvision import run
from jaxvision.errors import CheckpointError
from jaxvision.experiment import Keep
from jaxvision.run import reader, retention, transfer
from jaxvision.run import reader, retention, transfer
from jaxvision.run.checkpoint import Checkpoints

with Checkpoints(Path(sys.argv[1]), Keep(latest=int(sys.argv[2]), best=1, by="test/x")) as checkpoints:
    for step in itertools.count(1):
        metrics = {"test/x": step % 7} if step % 2 else None
        checkpoints.save(step, {"w": jnp.full((64, 64), step, jnp.float32)}, {"step": step}, metrics)
        if step % 5 == 0:
            checkpoints.save(step, {"w": jnp.full((64, 64), step, jnp.float32)}, {"step": step}, {"test/x": 3})
        if step == 1:
            print("saving", flush=True)
"""


@contextmanager
def saving(folder, latest=2):
    """Another process that saves and deletes checkpoints as fast as it can."""
    command = [sys.executable, "-c", WRITER, str(folder), str(latest)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert writer.stdout.readline() == "saving\n", writer.communicate()[1]
        yield
        assert writer.poll() is None, writer.communicate()[1]
    finally:
        writer.kill()
        writer.communicate()


LIKE = {"w": jnp.zeros((64, 64), jnp.float32)}


@pytest.mark.slow
def test_fifty_reads_beside_a_run_that_deletes_checkpoints(tmp_path):
    folder = tmp_path / "checkpoints"
    steps = []
    with saving(folder):
        for number in range(50):
            saved = load_only(folder, ("latest", "best", None)[number % 3], KEEP, LIKE)
            assert saved.notes == {"step": saved.step}
            np.testing.assert_array_equal(saved.state["w"], saved.step)
            steps.append(saved.step)
    assert steps[-3] > steps[0]


@pytest.fixture
def four(tmp_path):
    """A folder with the checkpoints 1 to 4, the best of which is 2."""
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder, Keep(latest=4)) as checkpoints:
        for step in (1, 2, 3, 4):
            checkpoints.save(step, {"w": jnp.full((64, 64), step, jnp.float32)}, {}, {"test/x": -abs(step - 2)})
    return folder


@pytest.fixture
def deleting(four, monkeypatch):
    """Lets these steps, in turn, be deleted just before one is read."""

    def arrange(*steps, part="load"):
        doomed, act = list(steps), getattr(Checkpoints, part)

        def meanwhile(self, *of):
            if doomed:
                retention.delete(four / str(doomed.pop(0)))
            return act(self, *of)

        monkeypatch.setattr(Checkpoints, part, meanwhile)

    return arrange


@pytest.mark.parametrize("part", ["chosen", "load"])
def test_of_checkpoints_that_are_deleted_meanwhile_the_next_is_taken(four, deleting, part):
    deleting(4, 3, part=part)
    assert load_only(four, "latest", KEEP, LIKE).step == 2


def test_the_best_that_is_deleted_meanwhile_gives_way_to_the_best_that_is_left(four, deleting):
    deleting(2)
    assert load_only(four, "best", KEEP, LIKE).step == 1  # as good as 3, and earlier


def test_a_step_that_is_deleted_meanwhile_is_gone_and_not_damaged(four, deleting):
    deleting(3)
    with pytest.raises(CheckpointError, match=r"has no checkpoint 3; there are: 1, 2, 4$"):
        load_only(four, 3, KEEP, LIKE)


def test_a_run_that_always_is_faster_is_told(four, deleting, monkeypatch):
    monkeypatch.setattr(reader, "READS", 2)
    monkeypatch.setattr(reader, "COPIES", 0)
    deleting(4, 3)
    with pytest.raises(CheckpointError, match="deleted checkpoints while they were read, 2 times on end; another try"):
        load_only(four, "latest", KEEP, LIKE)


def test_a_copy_is_read_where_checkpoints_are_deleted_faster_than_they_are_read(four, deleting, monkeypatch):
    monkeypatch.setattr(reader, "READS", 2)
    deleting(4, 3, 2)  # the last of them once the copies of 1 and 2 are made
    found = load_only(four, "latest", KEEP, LIKE)
    assert found.step == 2
    np.testing.assert_array_equal(found.state["w"], 2)
    assert not (four / "2").exists()


def test_a_damaged_one_is_damaged_although_another_comes_meanwhile(four, monkeypatch):
    (four / "4" / "_CHECKPOINT_METADATA").write_bytes(b"")
    load = Checkpoints.load

    def meanwhile(self, *of):
        (four / "5").mkdir()
        return load(self, *of)

    monkeypatch.setattr(Checkpoints, "load", meanwhile)
    with pytest.raises(CheckpointError, match="4 is damaged"):
        load_only(four, "latest", KEEP, LIKE)


def test_one_that_is_written_anew_is_read_where_it_stands_meanwhile(tmp_path):
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder, KEEP) as checkpoints:
        checkpoints.save(7, {"w": jnp.full((64, 64), 7.0)}, {}, None)
        checkpoints.wait()
        checkpoints._set_aside(7)
        assert load_only(folder, "latest", KEEP, LIKE).step == load_only(folder, 7, KEEP, LIKE).step == 7
        with pytest.raises(CheckpointError, match="checkpoints has no checkpoint 8; there are: none"):
            load_only(folder, 8, KEEP, LIKE)


READER = """
import gc
import inspect
import logging
import sys
import time
from pathlib import Path

import jax.numpy as jnp
from orbax.checkpoint._src.serialization import serialization

from jaxvision import commands
from jaxvision.run.checkpoint import Checkpoints, DamagedCheckpoint

LIKE = {str(number): jnp.zeros((128, 128)) for number in range(40)}


async def another():
    try:
        await Never()
    except BaseException:
        raise ValueError("of no reader")


class Never:
    def __await__(self):
        yield


def main():
    for _ in range(6):
        with Checkpoints(Path(sys.argv[1]), read_only=True) as checkpoints:
            try:
                checkpoints.load(1, LIKE)
            except DamagedCheckpoint:
                print("damaged")
        time.sleep(0.2)
        gc.collect()  # as happens sooner or later
    read = serialization._read_array_index_and_device_put
    read(**dict.fromkeys(inspect.signature(read).parameters))  # one that had not begun
    thrown_away = another()
    thrown_away.send(None)
    return 0


logging.getLogger("absl").setLevel(logging.CRITICAL)  # as `status_of` does
commands.enter(main)
"""


def test_a_command_is_silent_on_reads_that_go_on_after_another_has_failed(tmp_path):
    arrays = np.random.default_rng(0).normal(size=(40, 128, 128)).astype(np.float32)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(1, {str(number): jnp.asarray(each) for number, each in enumerate(arrays)}, {}, None)
    file = max((tmp_path / "checkpoints/1/state").glob("**/d/*"), key=lambda path: path.stat().st_size)
    data = np.frombuffer(file.read_bytes(), np.uint8).copy()
    data[1000:-3000:7] ^= 0x10  # the arrays, not what says where they are
    file.write_bytes(data.tobytes())
    done = subprocess.run([sys.executable, "-c", READER, str(tmp_path / "checkpoints")], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["damaged"] * 6
    said = [line for line in done.stderr.splitlines() if not line.startswith("WARNING:root:")]  # Orbax's log, of old
    first, *_, last = said
    assert first.startswith("Exception ignored in: <coroutine object another")
    assert last == "ValueError: of no reader"
    assert done.stderr.count("Exception ignored") == 1


@pytest.mark.slow
def test_all_that_reads_a_workdir_beside_the_run_in_it(tmp_path):
    """`evaluate` as a command and from Python, `load`, and another run that starts from its weights."""
    workdir, file = tmp_path / "run", Path(__file__).with_name("tiny_experiment.py")
    fields = ["--config.source=arrays", "--config.steps=1000000", "--config.checkpoint=1", "--config.evaluate=9"]
    command = [sys.executable, "-m", "jaxvision.main", f"--config={file}", f"--workdir={workdir}", *fields]
    with (tmp_path / "said").open("w") as said:
        training = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        log = workdir / "metrics.jsonl"
        while not log.is_file() or "test/" not in log.read_text():
            assert training.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.1)
        steps = [run.evaluate(workdir, which).step for which in ("latest", "latest", "best", None)]
        assert steps[1] > steps[0]
        model = run.load(workdir)
        filled = transfer.from_run(workdir)(jax.tree.map(np.zeros_like, model.variables))
        assert all(np.any(kernel) for kernel in jax.tree.leaves(filled["params"]) if np.ndim(kernel) > 1)
        asked = [sys.executable, "-m", "jaxvision.evaluate", f"--workdir={workdir}", "--checkpoint=latest"]
        evaluated = subprocess.run(asked, capture_output=True, text=True)
        assert evaluated.returncode == 0, evaluated.stderr
        assert json.loads(evaluated.stdout.splitlines()[-1])["step"] > steps[0]
        assert evaluated.stderr == ""
        assert training.poll() is None, (tmp_path / "said").read_text()
    finally:
        training.kill()
        training.communicate()
    assert not list(tmp_path.glob("run/checkpoints.*"))
