"""What a person calls from Python: train, load, predict, evaluate, without a process or a command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from finished_run import TINY, finished_run
from PIL import Image

from jaxvision import run
from jaxvision.data import samples
from jaxvision.errors import ConfigError, DataError, WorkdirError
from jaxvision.run import config

QUICKSTART = Path(__file__).parent.parent / "experiments" / "quickstart.py"


def test_the_quickstart_from_python(tmp_path, imported):
    experiment, recipe = config.build(QUICKSTART, {"epochs": "1", "batch_size": "32", "channels": "(8, 16)"})
    experiment = experiment._replace(steps=25)
    trained = run.train(experiment, tmp_path / "run", recipe, report=False)
    assert (trained.step, trained.interrupted) == (25, None)
    assert trained.metrics["test/accuracy"] > 0.2

    model = run.load(tmp_path / "run", "latest")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    files = [pixels, tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes()]
    records = model.predict(files, top_k=3)
    assert [len(record["classes"]) for record in records] == [3] * 4
    for record in records[1:]:  # a row of a batch may be rounded otherwise than another
        for found, first in zip(record["classes"], records[0]["classes"], strict=True):
            assert found == {**first, "probability": pytest.approx(first["probability"], abs=1e-6)}
    assert records[0]["classes"][0]["name"] in model.classes

    results = run.evaluate(tmp_path / "run", "latest")
    assert results.step == 25
    assert results.evaluations["test"].metrics["accuracy"] == pytest.approx(trained.metrics["test/accuracy"])
    current = run.evaluate(tmp_path / "run", "latest", weights="current")
    assert (results.weights, current.weights) == ("averaged", "current")
    assert results.evaluations["test"].metrics != current.evaluations["test"].metrics
    again = run.evaluate(model)
    assert again.evaluations["test"].metrics == results.evaluations["test"].metrics


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_run(tmp_path_factory.getbasetemp() / "finished_run")


def test_an_experiment_without_a_file_trains_resumes_and_is_opened_with_itself(tmp_path):
    experiment = config.build(TINY, {"steps": "4", "evaluate": "2", "checkpoint": "2", "log": "2"}).experiment
    experiment = experiment._replace(scalars={"twice": lambda step: 2 * step})
    trained = run.train(experiment._replace(steps=2), tmp_path / "run", report=False)
    assert (trained.step, trained.checkpoints) == (2, (2,))
    trained = run.train(experiment, tmp_path / "run", report=False)
    assert (trained.step, trained.steps, trained.checkpoints) == (4, 4, (2, 4))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row.get("twice")) for row in rows] == [(2, 2), (2, None), (4, 6), (4, None)]
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"data.json", "classes.json", "provenance.json", "metrics.jsonl"}
    assert not names & {"config.json", "experiment.py", "command.txt", "report"}
    assert json.loads((tmp_path / "run" / "starts.jsonl").read_text().splitlines()[0])["command"] == ""

    with pytest.raises(WorkdirError, match="it has no experiment.py and no config.json"):
        run.load(tmp_path / "run")
    pixels = np.zeros((28, 28), np.uint8)
    (record,) = run.load(tmp_path / "run", experiment=experiment).predict([pixels])
    assert sum(each["probability"] for each in record["classes"]) <= 1 + 1e-6
    found = run.evaluate(tmp_path / "run", "latest", experiment=experiment).evaluations["test"].metrics
    assert found["accuracy"] == pytest.approx(trained.metrics["test/accuracy"])

    recipe = config.build(TINY, {"steps": "4"}).recipe
    with pytest.raises(WorkdirError, match="config.json can't be read"):
        run.train(experiment, tmp_path / "run", recipe, report=False)


def test_a_run_of_a_file_is_not_gone_on_with_by_an_experiment_without_one(finished):
    experiment = config.build(finished / "experiment.py", {"steps": "12"}).experiment
    with pytest.raises(WorkdirError, match="it was built from experiment.py, this one from none"):
        run.train(experiment, finished, report=False)


def test_images_come_in_order_whatever_their_number(finished):
    model = run.load(finished, batch_size=4)
    files = sorted((finished.parent / "images").rglob("*.png"))[:7]
    together = model.predict(files)
    assert model.predict([]) == []
    for file, record in zip(files, together, strict=True):
        (alone,) = model.predict([file])
        for a, b in zip(alone["classes"], record["classes"], strict=True):
            assert a["name"] == b["name"]
            assert a["probability"] == pytest.approx(b["probability"], abs=1e-6)


def test_what_can_not_be_predicted_is_named(finished, tmp_path):
    model = run.load(finished)
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad\.png: not an image"):
        model.predict([tmp_path / "bad.png"])
    with pytest.raises(DataError, match="image 1: pixels must be uint8"):
        model.predict([np.zeros((8, 8), np.uint8), np.zeros((8, 8))])
    with pytest.raises(TypeError, match="a sequence of images"):
        model.predict("a.png")
    with pytest.raises(ConfigError, match="the model has no evaluation 'tset'; there are: blind, test"):
        run.evaluate(model, names=["tset"])


def test_a_name_that_is_neither_a_folder_nor_published_is_told_with_the_nearest():
    with pytest.raises(WorkdirError, match="there is no workdir ssd_mobilenet, .*did you mean 'ssd_mobilenet_v2'"):
        run.load("ssd_mobilenet")


@pytest.mark.network
def test_published_weights_find_the_cat():
    model = run.load("ssd_mobilenet_v2")
    (record,) = model.predict([samples.photos_dir() / "chelsea.jpg"], score_threshold=0.5)
    (cat,) = record["objects"]
    assert cat["label"] == "cat"
    assert cat["score"] == pytest.approx(0.90, abs=0.01)
    x0, y0, x1, y1 = cat["box"]
    assert 0 <= x0 < 200 < x1 <= record["width"] == 451
    assert 0 <= y0 < 150 < y1 <= record["height"] == 300


@pytest.mark.network
@pytest.mark.parametrize("name", ["efficientnet_lite0", "squeezenet1_1"])
def test_published_classifiers_know_a_coffee_cup(name):
    (record,) = run.load(name).predict([samples.photos_dir() / "coffee.jpg"])
    assert {each["name"] for each in record["classes"]} & {"espresso", "cup", "coffee mug"}
