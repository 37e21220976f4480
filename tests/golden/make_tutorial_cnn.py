"""Writes tests/golden/tutorial_cnn.npz with torch, in float64: PYTHONPATH=tests python tests/golden/make_tutorial_cnn.py.

The network is written from its description: two 5x5 convolutions without padding, each with ReLU and 2x2 pooling, then
dense layers of 120, 84 and 10 with ReLU between them.
"""

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from parity_networks import compute_torch, random_images, random_weights, shapes_torch, summary
from torch import nn

SEED = 20250
IMAGES = (8, 32, 32, 3)


def network():
    layers = [
        ("conv1", nn.Conv2d(3, 6, 5)), ("relu1", nn.ReLU()), ("pool1", nn.MaxPool2d(2)),
        ("conv2", nn.Conv2d(6, 16, 5)), ("relu2", nn.ReLU()), ("pool2", nn.MaxPool2d(2)),
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(400, 120)), ("relu3", nn.ReLU()),
        ("fc2", nn.Linear(120, 84)), ("relu4", nn.ReLU()),
        ("fc3", nn.Linear(84, 10)),
    ]  # fmt: skip
    return nn.Sequential(OrderedDict(layers)).double()


if __name__ == "__main__":
    model = network()
    shapes = shapes_torch(model)
    images, labels = random_images(IMAGES, 10, SEED + 1)
    logits, loss, gradients, _ = compute_torch(model, random_weights(shapes, SEED), images, labels)
    path = Path(__file__).parent / "tutorial_cnn.npz"
    np.savez_compressed(
        path,
        made_with=json.dumps({"torch": torch.__version__}),
        seed=SEED,
        images_shape=IMAGES,
        shapes=[" ".join(map(str, (name, *shape))) for name, shape in shapes.items()],
        logits=logits,
        loss=loss,
        gradients=summary(gradients),
    )
    print(path.name, path.stat().st_size, "bytes; largest logit", abs(logits).max(), "loss", loss)
