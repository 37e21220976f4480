"""Writes the files of weights that the tests read: PyTorch's in both of its formats, Keras' in both of its.

KERAS_BACKEND=jax python tests/golden/make_weights_files.py, with jaxvision, torch, keras and h5py installed. What
the files hold is known by formula: every array is `np.arange` of its size, halved, in its shape.
"""

import os
import tempfile
from collections import OrderedDict
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np
import torch

HERE = Path(__file__).parent


def counted(*shape, dtype=torch.float32):
    return (torch.arange(int(np.prod(shape))) / 2).reshape(shape).to(dtype)


def state():
    long = counted(20)
    weights = {
        "conv.weight": counted(2, 3, 2, 2),
        "turned": counted(2, 3).T,
        "part": long[4:10:2],
        "whole": long,
        "half": counted(3, dtype=torch.float16),
        "brain": counted(3, dtype=torch.bfloat16),
        "double": counted(3, dtype=torch.float64),
        "bn.num_batches_tracked": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(counted(2, 2)),
    }
    return OrderedDict(weights)


def write_torch():
    torch.save(state(), HERE / "weights.pth")
    torch.save(state(), HERE / "weights_before_1_6.pth", _use_new_zipfile_serialization=False)
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    run = {"epoch": 3, "optimizer": optimizer.state_dict(), "model": {"a": counted(2)}, "model_ema": {"a": counted(3)}}
    torch.save(run, HERE / "weights_of_a_run.pth")
    torch.save(layer, HERE / "weights_as_module.pth")


def write_keras():
    keras.layers.Conv2D(1, 1)  # so that the counted names below begin at 1
    model = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            keras.layers.Conv2D(2, 3, name="conv1_conv"),
            keras.layers.BatchNormalization(name="conv1_bn"),
            keras.layers.Conv2D(2, 1, use_bias=False),
            keras.layers.BatchNormalization(scale=False),
            keras.layers.Conv2D(2, 1, use_bias=False),
            keras.layers.Flatten(),
            keras.layers.Dense(2, name="predictions"),
        ]
    )
    model.set_weights([np.arange(w.size).reshape(w.shape) / 2 for w in model.get_weights()])
    model.save(HERE / "weights.h5")
    model.save_weights(HERE / "weights.weights.h5")


def write_keras_names():
    """The names and shapes of whole networks, one line each: "conv1_conv/kernel 7 7 3 64"."""
    from jaxvision.pretrained.files import read

    found = {}
    for name in ("ResNet50", "VGG16", "VGG19", "InceptionV3"):
        model = getattr(keras.applications, name)(weights=None, classes=10)
        with tempfile.TemporaryDirectory() as folder:
            model.save_weights(f"{folder}/a.weights.h5")
            arrays = read(f"{folder}/a.weights.h5")
        assert sum(array.size for array in arrays.values()) == model.count_params()
        found[name] = [" ".join([each, *map(str, array.shape)]) for each, array in sorted(arrays.items())]
    np.savez_compressed(HERE / "keras_names.npz", **found)


if __name__ == "__main__":
    write_torch()
    write_keras()
    write_keras_names()
