"""Two runs side by side: what differs, where they part, and a run that is run again."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxvision import run
from jaxvision.errors import ConfigError, WorkdirError
from jaxvision.run import config
from launch import compare, differences, parting, replay

HERE = Path(__file__).parent
EXPERIMENT = """
import pathlib

import jax
import numpy as np
import optax
from network_of_its_own import Linear
from ml_collections import ConfigDict

from jaxvision.data import arrays, order
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.tasks.classification import classification
from jaxvision.train import Every


def get_config():
    return ConfigDict({"seed": 0, "steps": 60, "data": "", "pixel_at": -1, "keep": 2, "precision": "float32"})


def changed(stream, at):
    def batches(step, *shard):
        for number, batch in enumerate(stream.batches(step, *shard), step + 1):
            if number == at:
                image = np.array(batch.image)
                image[1, 2, 3, 0] ^= 4
                batch = batch.replace(image=image)
            yield batch

    return stream._replace(batches=batches)


def build(config):
    def source():
        pixels = np.load(config.data)
        return arrays.source(pixels, np.arange(len(pixels)) % 2, ("even", "odd"))

    options = {"canvas": 4, "batch_size": 4, "channels": 1}
    return Experiment(
        task=classification(Linear(2), mean=127.0, std=64.0),
        optimizer=optax.adam(0.01),
        steps=config.steps,
        train=changed(arrays.training(source, order=order.shuffled(config.seed), **options), config.pixel_at),
        evaluations={"test": Evaluation(arrays.evaluation(source, **options), metrics(2))},
        seed=config.seed,
        every=Every(log=10, evaluate=30, checkpoint=10),
        keep=Keep(latest=config.keep),
    )
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    (folder / "mine.py").write_text(EXPERIMENT)
    (folder / "network_of_its_own.py").write_bytes((HERE / "linear_network.py").read_bytes())
    pixels = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 1), dtype=np.uint8)
    np.save(folder / "pixels.npy", pixels)
    pixels[5, 1, 1] ^= 1
    np.save(folder / "other.npy", pixels)
    return folder


def trained(folder, name, data="pixels.npy", **fields):
    texts = {"data": str(folder / data), **{key: str(value) for key, value in fields.items()}}
    experiment, recipe = config.build(folder / "mine.py", texts)
    run.train(experiment, folder / name, recipe, report=False)
    return folder / name


@pytest.fixture(scope="module")
def one(folder):
    return trained(folder, "one")


@pytest.mark.parametrize(("keep", "replayed_from"), [(2, 0), (10, 30)])
def test_the_first_difference_is_one_pixel_of_the_batch_of_step_37(folder, one, keep, replayed_from, capsys):
    one = one if keep == 2 else trained(folder, f"kept{keep}", keep=keep)
    other = trained(folder, f"pixel{keep}", keep=keep, pixel_at=37)
    found = parting.find(one, other)
    assert (found.step, found.replayed_from) == (37, replayed_from)
    assert [array.name for array in found.arrays] == ["batch.image"]
    assert (found.arrays[0].different, found.arrays[0].entries, found.arrays[0].largest) == (1, 64, 4.0)
    assert len(found.arrays[0].examples) == 1
    assert compare.main([str(one), str(other), "--first-difference"]) == 1
    said = capsys.readouterr().out
    assert "config pixel_at: -1 | 37" in said
    assert re.search(r"the runs part at step 37: batch.image: 1 of 64 entries, by 4 at most, of \w+", said)


def test_other_seeds_part_before_the_first_step(folder, one):
    found = parting.find(one, trained(folder, "seed", seed=1))
    assert found.step == 0
    assert found.arrays[0].name.startswith("state.params")
    assert "before the first step" in found.lines()[0]


def test_runs_that_are_the_same_do_not_part(folder, one, capsys):
    again = trained(folder, "again")
    assert differences.between(one, again) == []
    assert parting.find(one, again) == parting.Parting(60, (), 60)
    assert compare.main([str(one), str(again)]) == 0
    assert capsys.readouterr().out == "no difference\n"


def test_a_replay_is_the_same_bit_for_bit(folder, one, capsys):
    assert replay.main([str(one), f"--workdir={folder / 'replay'}"]) == 0
    assert "the same: parameters after step 60, log and figures, bit for bit" in capsys.readouterr().out


def test_a_replay_names_a_changed_seed(folder, one, capsys):
    assert replay.main([str(one), f"--workdir={folder / 'reseeded'}", "--config.seed=1"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("not the same\n  parameters first: ")
    assert said.endswith("made with:\n  config seed: 0 | 1\n")


def test_a_replay_names_changed_data_and_code(folder, capsys):
    (folder / "moving.npy").write_bytes((folder / "pixels.npy").read_bytes())
    first = trained(folder, "moved", data="moving.npy")
    (folder / "moving.npy").write_bytes((folder / "other.npy").read_bytes())
    assert replay.main([str(first)]) == 1
    said = capsys.readouterr().out
    assert re.search(r"made with:\n  data evaluation test: \w+ \| \w+\n  data train: \w+ \| \w+\n$", said)
    code = (folder / "mine.py").read_text()
    (folder / "mine.py").write_text(code.replace("optax.adam(0.01)", "optax.adam(0.02)"))
    other = trained(folder, "recoded", data="moving.npy")
    (folder / "mine.py").write_text(code)
    found = [each for each in differences.between(folder / "moved-replay", other) if each.is_cause]
    assert [each.line() for each in found] == ["code experiment.py: there | other code"]


@pytest.mark.slow
def test_a_replay_names_a_changed_package_and_number_of_cores(folder, one):
    information = folder / "site/optional-1.2.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: optional\nVersion: 1.2\n")
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'site'}:{HERE.parent}"}
    command = [sys.executable, "-m", "launch.replay", str(one), f"--workdir={folder / 'narrow'}"]
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, list(cores)[:1])
    try:
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    finally:
        os.sched_setaffinity(0, cores)
    assert found.returncode in (0, 1), found.stderr
    assert "package optional: absent | 1.2" in found.stdout
    assert f"machine cores: {len(cores)} | 1" in found.stdout


def test_what_can_not_be_compared_is_said(folder, one, tmp_path):
    with pytest.raises(WorkdirError, match="holds no run"):
        differences.between(one, tmp_path)
    with pytest.raises(WorkdirError, match="there is no workdir"):
        replay.ended(tmp_path / "none")
    with pytest.raises(WorkdirError, match="has not ended"):
        replay.ended(tmp_path)
    assert replay.main([str(one), f"--workdir={one}"]) == 2
    (folder / "mine.py").write_text(EXPERIMENT.replace("Linear(2)", "Linear(3)").replace("metrics(2)", "metrics(3)"))
    other = trained(folder, "three", steps=10)
    (folder / "mine.py").write_text(EXPERIMENT)
    with pytest.raises(ConfigError, match=r"the runs have other arrays, from the first step on: .*Dense_0/bias is"):
        parting.find(one, other)
