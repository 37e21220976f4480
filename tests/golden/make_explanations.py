"""Writes tests/golden/explanations.npz with captum 0.9.0 and grad-cam 1.5.7 on torchvision's ResNet-18, in float64.

PYTHONPATH=tests:. python tests/golden/make_explanations.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from parity_explain import reference
from parity_networks import shapes_torch
from torchvision.models import resnet18

SEED, SHAPE = 20260, (1, 48, 48, 3)

if __name__ == "__main__":
    path = Path(__file__).parent / "explanations.npz"
    made_with = {name: version(name) for name in ("torch", "torchvision", "captum", "grad-cam")}
    shapes = [" ".join(map(str, (name, *shape))) for name, shape in shapes_torch(resnet18(num_classes=10)).items()]
    found = reference(SEED, SHAPE)
    np.savez_compressed(path, made_with=json.dumps(made_with), seed=SEED, shape=SHAPE, shapes=shapes, **found)
    print(path.stat().st_size, {name: (x.shape, float(abs(x).max())) for name, x in found.items()})
