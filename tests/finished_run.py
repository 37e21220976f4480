"""A finished run of the tiny experiment, which the tests of the commands that take one share. Not a test itself."""

import functools
from pathlib import Path

import numpy as np
from PIL import Image

from jaxvision import main

TINY = Path(__file__).with_name("tiny_experiment.py")
CLASSES = ("circle", "cross", "dot")


@functools.cache
def finished_run(place: Path) -> Path:
    """The workdir, in a new folder; beside it the data, `images/`.

    It has checkpoints of the steps 4, 8 and 12, and two evaluations at each: `blind` can't take other images, `test` can.
    """
    place.mkdir()
    images(place / "images")
    text = TINY.read_text()
    one = '"test": Evaluation(test, metrics(config.classes), pictures.report if config.report else None)'
    assert one in text
    two = '"blind": Evaluation(test._replace(decode=None), metrics(3)), "test": Evaluation(test, metrics(3), pictures.report)'
    path = place / "two_evaluations.py"
    path.write_text(text.replace(one, two))
    fields = {"source": "folder", "data_dir": place / "images", "classes": 3, "channels": 3, "size": 24, "steps": 12}
    fields |= {"evaluate": 4, "checkpoint": 4, "keep_latest": 3, "batch_size": 16}
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    assert main.main([f"--config={path}", f"--workdir={place / 'run'}", "--no-report", *flags]) == 0
    path.unlink()
    return place / "run"


def images(folder: Path, count: int = 8, seed: int = 0) -> Path:
    """So many noisy images of each class, mostly of its colour."""
    for i in range(3 * count):
        save(folder / CLASSES[i % 3] / f"{i}.png", noise(seed + i, height=20 + i))
    return folder


def noise(seed: int, height: int = 20, width: int = 24) -> np.ndarray:
    """A noisy image that is mostly of the colour of class `seed` modulo 3."""
    pixels = np.random.default_rng(seed).integers(0, 80, (height, width, 3), dtype=np.uint8)
    pixels[..., seed % 3] += 150
    return pixels


def save(path: Path, pixels: np.ndarray) -> Path:
    """The image as a file, the folders above it made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def one_line(said: str) -> str:
    """What a command said about an error: a single line of its own, and no traceback."""
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("jaxvision: ")]
    assert len(lines) == 1, said
    return lines[0]
