"""Sides of ONNX Runtime in the benchmark `inference`: a loop over what `jaxvision.export` writes, decoded as ours is.

They run in our environment, with the extra `onnx` and jax2onnx: the model is exported before anything is measured.
"""

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.speed import photographs
from experiments.benchmarks.speed.contest import Work
from experiments.benchmarks.speed.inference_ours import LEAST_SCORE, TOLD, resnet_model, ssd_model
from jaxvision.run.prediction import Model
from jaxvision.trust.export import writing

Found = dict[str, np.ndarray]
"""By the name of an output, a row an image."""


def classifier(network: str, side: int, batch: int, count: int) -> Work:
    """A ResNet; of each image the best classes."""
    return _work(resnet_model(network, side, batch), batch, count, _classes)


def detector(network: str, side: int, batch: int, count: int) -> Work:
    """An SSD; of each image the best detections, their boxes in pixels of the file."""
    scale = np.array([photographs.WIDTH, photographs.HEIGHT] * 2) / side
    return _work(ssd_model(network, side, batch), batch, count, lambda found, row: _detections(found, row, scale))


def _work(model: Model, batch: int, count: int, told: Callable[[Found, int], list[float]]) -> Work:
    session, files = _session(model), photographs.files(count)

    def predict(chosen: Sequence[str]) -> list[list[float]]:
        rows = [model.preprocessing(Path(file).read_bytes()) for file in chosen]
        found = session({"image": np.stack([row.image for row in rows]), "size": np.stack([row.size for row in rows])})
        return [told(found, row) for row in range(len(chosen))]

    def run(units: int) -> None:
        numbers = iter(files[: max(units, batch)])
        while chosen := list(islice(numbers, batch)):
            predict(chosen)

    return Work(run, lambda: [number for numbers in predict(files[:batch])[:2] for number in numbers])


def _session(model: Model) -> Callable[[dict[str, np.ndarray]], Found]:
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder, "exported")
        writing.export(model, exported, ("onnx",))
        spec = importlib.util.spec_from_file_location("load_onnx", exported / "load_onnx.py")
        assert spec
        assert spec.loader
        loader: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loader)
        return loader.load(exported)


def _classes(found: Found, row: int) -> list[float]:
    return sorted(found["probabilities"][row].tolist(), reverse=True)[:TOLD]


def _detections(found: Found, row: int, scale: np.ndarray) -> list[float]:
    kept = found["valid"][row] & (found["scores"][row] >= LEAST_SCORE)
    scores, boxes = found["scores"][row][kept], found["boxes"][row][kept] * scale
    return [
        number for one in np.argsort(-scores, kind="stable")[:TOLD] for number in (scores[one], *(1000 + boxes[one]))
    ]
