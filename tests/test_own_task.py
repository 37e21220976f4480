"""A task of one's own in one file, of which the package knows nothing: trained, checked, evaluated, predicted with, drawn.

Where is the bright spot of an image? The file is an experiment as well as its tests.
"""

import csv
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from ml_collections import ConfigDict
from PIL import Image, ImageDraw

from jaxvision import main, predict, run
from jaxvision.data import arrays, order
from jaxvision.data.source import Example, Source, annotations, no_labels
from jaxvision.data.target import TargetForm
from jaxvision.experiment import Evaluation, Experiment, Keep, Output
from jaxvision.run import config
from jaxvision.train import Every
from jaxvision.types import LossOutput, Metric, Task

SIDE, RADIUS, COUNT = 24, 3, 48


def scene(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A dark image with a bright square, and its box."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
    x, y = rng.integers(RADIUS, SIDE - RADIUS, 2)
    image[y - RADIUS : y + RADIUS, x - RADIUS : x + RADIUS] += 180
    return image, np.array([[x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS]], np.float32)


def scenes(first: int) -> Source:
    def read(indices):
        found = (scene(first + int(i)) for i in indices)
        return [Example(image, objects=annotations(box, np.zeros(1, int))) for image, box in found]

    return Source(
        length=COUNT,
        read=read,
        labels=no_labels("the scenes"),
        classes=("spot",),
        name=f"scene {first} + {{}}".format,
        fingerprint=f"scenes from {first} on",
        objects=lambda: [example.objects for example in read(range(COUNT))],
    )


def _fill(target, row, example, placement):
    """The centre of the only object, in pixels of the canvas."""
    centre = example.objects.boxes[0].reshape(2, 2).mean(0)
    corner = np.asarray(placement.box).reshape(2, 2)
    target["point"][row] = (centre - corner[0]) * np.asarray(placement.size)[::-1] / (corner[1] - corner[0])


POINT = TargetForm(lambda n, canvas: {"point": np.zeros((n, 2), np.float32)}, _fill)


class Heatmap(nn.Module):
    """A map of how likely the spot is where."""

    @nn.compact
    def __call__(self, image):
        x = nn.relu(nn.Conv(8, (5, 5))(image.astype(jnp.float32) / 255 - 0.5))
        return nn.Conv(1, (5, 5))(x)[..., 0]


def pointing(network: nn.Module) -> Task:
    """The mean place under the map; its squared distance, in pixels of the canvas, is the loss."""

    def place(heat, size):
        """The mean `x y` of one image, over its content."""
        inside = [jnp.arange(length) < size[axis] for axis, length in enumerate(heat.shape)]
        heat = jnp.where(inside[0][:, None] & inside[1][None], heat, -jnp.inf)
        share = jax.nn.softmax(heat, axis=(0, 1))
        places = [jnp.arange(length, dtype=jnp.float32) + 0.5 for length in heat.shape]
        return jnp.stack([share.sum(0) @ places[1], share.sum(1) @ places[0]])

    def point(variables, batch):
        return jax.vmap(place)(network.apply(variables, batch.image), batch.size)

    def weights_of(variables):
        return {"params": variables["params"]}

    def loss(variables, batch, key):
        each = jnp.square(point(weights_of(variables), batch) - batch.target["point"]).sum(1)
        mean = jnp.where(batch.valid, each, 0).sum() / jnp.maximum(batch.valid.sum(dtype=each.dtype), 1)
        return mean, LossOutput(example_loss=each)

    return Task(
        lambda key, batch: network.init(key, batch.image),
        loss,
        lambda variables, batch: {"point": point(weights_of(variables), batch)},
    )


DISTANCE = Metric(
    lambda prediction, batch: {"distance": jnp.linalg.norm(prediction["point"] - batch.target["point"], axis=1)},
    lambda rows: {"distance": float(rows["distance"].mean())},
)


def record(prediction, canvas, selection):
    """The point in pixels of the image file."""
    scale = np.asarray(canvas.original_size)[::-1] / np.asarray(canvas.size)[::-1]
    return {"point": [float(value) for value in prediction["point"] * scale]}


def draw(pixels, record):
    picture = Image.fromarray(pixels)
    x, y = record["point"]
    ImageDraw.Draw(picture).ellipse((x - 2, y - 2, x + 2, y + 2), fill="red")
    return picture


OUTPUT = Output(record, lambda selection: ["x", "y"], lambda record: [record["point"]], draw=draw)


def get_config() -> ConfigDict:
    return ConfigDict({"steps": 80, "output": True})


def build(config) -> Experiment:
    options = {"canvas": SIDE, "batch_size": 16, "target": POINT}
    test = arrays.evaluation(lambda: scenes(1000), **options)
    return Experiment(
        task=pointing(Heatmap()),
        optimizer=optax.adam(2e-2),
        steps=config.steps,
        train=arrays.training(lambda: scenes(0), order=order.shuffled(0), **options),
        evaluations={"test": Evaluation(test, DISTANCE, output=OUTPUT if config.output else None)},
        every=Every(log=20, evaluate=0, checkpoint=0),
        keep=Keep(latest=1, best=1, by="test/distance", mode="min"),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    experiment, recipe = config.build(__file__)
    return run.train(experiment, tmp_path_factory.mktemp("own") / "run", recipe, report=False)


def test_it_trains_and_evaluates(trained):
    assert trained.metrics["test/distance"] < 1.5  # pixels; a point in the middle is 8 away
    assert run.evaluate(trained.workdir).evaluations["test"].metrics["distance"] == pytest.approx(
        trained.metrics["test/distance"]
    )


def test_it_passes_preflight(tmp_path, capfd):
    status = main.main([f"--config={__file__}", f"--workdir={tmp_path}", "--preflight"])
    assert status == 0, capfd.readouterr()
    assert (tmp_path / "preflight" / "decoded.png").exists()


def test_it_predicts_from_python_in_pixels_of_the_image(trained):
    model = run.load(trained.workdir)
    images = [scene(number)[0] for number in range(2000, 2010)]
    for number, found in zip(range(2000, 2010), model.predict(images), strict=True):
        centre = scene(number)[1].reshape(2, 2).mean(0)
        assert np.linalg.norm(np.array(found["point"]) - centre) < 4


def test_it_is_written_and_drawn_by_the_command(trained, tmp_path, capfd):
    Image.fromarray(scene(2000)[0]).save(tmp_path / "a.png")
    given = [f"--workdir={trained.workdir}", str(tmp_path / "a.png")]
    assert predict.main([*given, f"--output={tmp_path / 'out.csv'}", f"--draw={tmp_path / 'drawn'}"]) == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert list(row) == ["file", "frame", "x", "y"]
    point = np.array([float(row["x"]), float(row["y"])])
    assert np.linalg.norm(point - scene(2000)[1].reshape(2, 2).mean(0)) < 4
    with Image.open(tmp_path / "drawn" / "000000_a.png") as picture:
        red, green, _ = np.asarray(picture.convert("RGB"))[int(point[1]), int(point[0])].astype(int)
    assert red > 200 > 100 > green

    assert predict.main([*given, f"--output={tmp_path / 'out.jsonl'}"]) == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["point"] == pytest.approx(point)
    capfd.readouterr()
    assert predict.main([*given, f"--output={tmp_path / 'out.json'}"]) == 2
    assert "predictions of this model can't be written as .json; allowed: .csv, .jsonl" in capfd.readouterr().err
    without = ["--config.output=False", f"--output={tmp_path / 'out.csv'}"]
    assert predict.main([*given, *without]) == 2
    assert "predictions of type dict can't be written" in capfd.readouterr().err
    assert Path(row["file"]) == tmp_path / "a.png"
