"""A small classifier in 8-bit numbers. Not a test itself; needs jax2onnx and the onnx extra."""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.nn.cnn import SmallCNN
from jaxvision.tasks.classification import classification
from jaxvision.trust.lighter import int8
from jaxvision.trust.lighter.folding import folded
from jaxvision.trust.lighter.onnx_task import COLLECTION, by_onnx_runtime
from jaxvision.types import Batch, Labels


def images(rows=6, side=16):
    """Images whose last row of pixels is none of their content."""
    image = np.random.default_rng(1).integers(0, 256, (rows, side, side, 1), np.uint8)
    size = np.tile(np.int32([side - 1, side]), (rows, 1))
    index = np.arange(rows)
    return jax.tree.map(jnp.asarray, Batch(image, size, size, index, index >= 0, Labels(index % 3)))


def classifier():
    """The classifier as it is trained."""
    return classification(SmallCNN(3, (4, 8), 1, dropout=0.0), mean=128.0, std=60.0)


def floating(batch):
    """The classifier with BatchNorm folded, and its variables."""
    task = folded(classifier())
    return task, jax.jit(task.init)(jax.random.key(0), batch)


def small(rows=6):
    """The task, its variables, and a batch, which it was calibrated on."""
    batch, task = images(rows), classifier()
    variables = jax.jit(task.init)(jax.random.key(0), batch)
    with tempfile.TemporaryDirectory() as folder:
        _, model = int8.written(task, variables, [batch.replace(target=None)], 3, Path(folder))
    lighter = {"params": {}, COLLECTION: {"model": jnp.asarray(np.frombuffer(model, np.uint8))}}
    return by_onnx_runtime(task, len(model), "runs/float"), lighter, batch
