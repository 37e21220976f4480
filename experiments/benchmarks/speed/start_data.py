"""Data of the peers in the benchmark `start`: the images that the quickstart reads, by NumPy."""

import gzip

import numpy as np

from experiments.benchmarks.speed.contest import ROOT

FOLDER = ROOT / "jaxvision" / "data" / "samples" / "fashion_mnist"


def fashion_mnist(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images `n 28 28 1`, uint8, and labels `n`, int32."""
    images = np.frombuffer(
        gzip.decompress((FOLDER / f"{split}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16
    )
    labels = np.frombuffer(gzip.decompress((FOLDER / f"{split}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return images.reshape(-1, 28, 28, 1), labels.astype(np.int32)
