"""Writes tests/golden/resnet*.npz with torchvision, in float64: PYTHONPATH=tests python tests/golden/make_resnet.py."""

import json
from pathlib import Path

import numpy as np
import torch
import torchvision
from parity_networks import compute_torch, random_images, random_weights, shapes_torch, summary

SEED = 20240


def cifar_form(model):
    """The same network with a 3x3 stem of stride 1 and no pooling behind it."""
    model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = torch.nn.Identity()
    return model


def write(name, model, images_shape):
    model = model.double()
    shapes = shapes_torch(model)
    images, labels = random_images(images_shape, model.fc.out_features, SEED + 1)
    logits, loss, gradients, statistics = compute_torch(model, random_weights(shapes, SEED), images, labels)
    path = Path(__file__).parent / f"{name}.npz"
    np.savez_compressed(
        path,
        made_with=json.dumps({"torch": torch.__version__, "torchvision": torchvision.__version__}),
        seed=SEED,
        images_shape=images_shape,
        shapes=[" ".join(map(str, (name, *shape))) for name, shape in shapes.items()],
        logits=logits,
        loss=loss,
        gradients=summary(gradients),
        statistics=summary(statistics),
    )
    print(path.name, path.stat().st_size, "bytes; largest logit", abs(logits).max(), "loss", loss)


if __name__ == "__main__":
    write("resnet18", torchvision.models.resnet18(num_classes=10), (4, 64, 64, 3))
    write("resnet18_cifar", cifar_form(torchvision.models.resnet18(num_classes=10)), (4, 16, 16, 3))
    write("resnet50", torchvision.models.resnet50(), (4, 64, 64, 3))
