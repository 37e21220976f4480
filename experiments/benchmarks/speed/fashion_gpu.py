"""Time to an accuracy on Fashion-MNIST with the data on the device: ours beside the same network in torch.compile.

ResNet-18 in CIFAR form, SGD with Nesterov's momentum, a learning rate that rises over the first fifth and falls to 0 over
all epochs, flipped and shifted images, label smoothing of 0.1. Time is that from the first step, compiled before, to the
end of the first epoch after which the test accuracy is reached; every epoch is evaluated. A training that does not reach it
fails. The whole data set (Debian's package dataset-fashion-mnist) lies where the variable FASHION_MNIST says, or where that
package puts it; without it the 10,000 images of the sample in the package have to do, with another goal, and the row says
so.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from experiments.benchmarks.speed.contest import ROOT, Contest, Side

HERE = "experiments.benchmarks.speed"
SAMPLE = ROOT / "jaxvision/data/samples/fashion_mnist"


def folder() -> Path:
    """Where the files are: the whole data set, or the sample."""
    told = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
    return told if (told / "train-images-idx3-ubyte.gz").exists() else SAMPLE


def rows(small: bool) -> Iterator[Contest]:
    """One training to the goal."""
    whole = folder() != SAMPLE
    given = {
        "folder": str(folder()),
        "width": 64,
        "batch": 512,
        "epochs": 18 if whole else 30,
        "goal": 0.94 if whole else 0.88,
    }
    if small:
        given |= {"width": 8, "batch": 64, "epochs": 4, "goal": 0.2, "images": 1024, "folder": str(SAMPLE)}
    data = "Fashion-MNIST" if whole and not small else "the sample of Fashion-MNIST, 10,000 images"
    sides = (
        Side("ours", f"{HERE}.fashion_ours:training", {**given, "dtype": "float32" if small else "bfloat16"}),
        Side("torch.compile", f"{HERE}.fashion_torch:training", {**given, "compiled": not small}, peer=True, least=1.0),
    )
    name = f"time to {given['goal']:.0%} on {data}, ResNet-18"
    yield Contest(name, sides, blocks=1 if small else 2)
