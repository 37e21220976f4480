"""Kill -9 at random steps, the same command again: bit for bit the uninterrupted run."""

import random
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from PIL import Image

from jaxvision.data import samples

TINY = Path(__file__).with_name("tiny_experiment.py")
STEPS = 120
pytestmark = pytest.mark.slow


def start(workdir, fields):
    command = [sys.executable, "-m", "jaxvision.main", f"--config={TINY}", f"--workdir={workdir}", "--no-report"]
    return subprocess.Popen([*command, *fields], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    return printed


def kill_after(process, workdir, rows, seconds):
    """Kills the process a little after its log has so many rows."""
    path = workdir / "metrics.jsonl"
    while not (path.exists() and path.read_bytes().count(b"\n") >= rows):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.001)
    time.sleep(seconds)
    assert process.poll() is None, "the run ended before it could be killed"
    process.kill()
    process.communicate()


def final_state(workdir):
    with warnings.catch_warnings(), ocp.training.Checkpointer(str(workdir / "checkpoints")) as checkpoints:
        warnings.simplefilter("ignore")  # Orbax would rather be told the shardings
        assert checkpoints.latest.step == STEPS
        return checkpoints.load(STEPS)["state"], checkpoints.metadata(STEPS).custom_metadata


def bits(array):
    if jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.asarray(array).tobytes()


@pytest.fixture(scope="module")
def fashion_folder(tmp_path_factory):
    """The bundled photographs, cut into PNG tiles of two uneven classes."""
    folder = tmp_path_factory.mktemp("folder")
    for name, count in (("astronaut", 40), ("coffee", 15)):
        (folder / name).mkdir()
        with Image.open(samples.photos_dir() / f"{name}.jpg") as photo:
            for i in range(count):
                x, y = 37 * (i % 8), 45 * (i // 8)
                photo.crop((x, y, x + 60, y + 50 + i)).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    ("source", "order"),
    [
        ("tfds", "mixture"),
        ("folder", "balanced"),
        ("arrays", "balanced"),
        ("resident", "balanced"),
        ("tfds", "shuffled"),
    ],
)
def test_a_killed_run_ends_as_one_that_was_not(tmp_path, fashion_folder, source, order):
    fields = [f"--config.source={source}", f"--config.order={order}", f"--config.steps={STEPS}", "--config.log=3"]
    fields += ["--config.checkpoint=7", "--config.evaluate=25", "--config.network.channels=(16, 32)"]
    if source == "folder":
        fields += [f"--config.data_dir={fashion_folder}", "--config.classes=2", "--config.channels=3"]
    finish(start(tmp_path / "whole", fields))

    seed = time.time_ns()
    print(f"{seed=}")
    chance = random.Random(seed)
    for earliest in (2, 14, 26):  # rows of the log, one every three steps
        killed = start(tmp_path / "killed", fields)
        kill_after(killed, tmp_path / "killed", earliest + chance.randrange(9), chance.random() * 0.05)
    printed = finish(start(tmp_path / "killed", fields))
    assert "going on from step" in printed

    whole, whole_notes = final_state(tmp_path / "whole")
    killed, killed_notes = final_state(tmp_path / "killed")
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(whole)]
    assert any("ema" in name for name in names)
    assert any("opt_state" in name for name in names)
    different = [
        name
        for name, a, b in zip(names, jax.tree.leaves(whole), jax.tree.leaves(killed), strict=True)
        if bits(a) != bits(b)
    ]
    assert not different
    assert killed_notes == whole_notes
    assert (tmp_path / "killed/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
