"""ResNet-18 with BatchNorm folded, and in 8-bit numbers: CPU time and bytes, by turns in one process, on one core.

    python experiments/benchmarks/int8.py [--stem=cifar] [--width=64] [--rows=16] [--blocks=9]

Random weights, which take the time of trained ones; Fashion-MNIST's canvases of 28 pixels; 128 of its training images
calibrate. A block is one call of each; the figures are medians of processor time over the blocks and their quartiles. Needs
`pip install 'jaxvision[onnx]'`, then `pip install --no-deps jax2onnx==0.17.1`.

Measured on one of two busy cores of an AMD EPYC without VNNI (2026-12-01, ONNX Runtime 1.32.0, JAX 0.10.2), as it stands:
8-bit numbers take 0.516 (0.507 to 0.568) of float32's time in ONNX Runtime, and 0.252 of its bytes; XLA takes 1.011 (0.962
to 1.064) of the time with BatchNorm folded, so that folding gains nothing there: XLA fuses the normalisation already.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import jax
import numpy as np

from jaxvision.data import idx, order, placement, samples, streams
from jaxvision.nn.resnet import resnet18
from jaxvision.tasks.classification import classification
from jaxvision.trust.lighter import folding, int8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stem", choices=("cifar", "imagenet"), default="cifar")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rows", type=int, default=16, help="images at once")
    parser.add_argument("--blocks", type=int, default=9)
    flags = parser.parse_args()
    task = classification(resnet18(10, width=flags.width, stem=flags.stem), mean=73.0, std=90.0)
    batches = [
        jax.tree.map(np.asarray, each.replace(target=None)) for each in islice(images(flags.rows), 128 // flags.rows)
    ]
    variables = jax.jit(task.init)(jax.random.key(0), batches[0])
    with tempfile.TemporaryDirectory() as folder:
        file, model = int8.written(task, variables, batches, 10, Path(folder))
        calls = {"onnx float32": session(file.read_bytes(), batches[0]), "onnx int8": session(model, batches[0])}
        sizes = {"onnx float32": file.stat().st_size, "onnx int8": len(model)}
    found = folding.foldable(task, variables, batches[0])
    calls["xla"] = compiled(task, variables, batches[0])
    calls["xla folded"] = compiled(folding.folded(task), folding.fold(variables, found), batches[0])
    seconds = by_turns(calls, flags.blocks)
    print(json.dumps({"seconds": {name: quartiles(each) for name, each in seconds.items()}, "bytes": sizes}, indent=1))
    print(
        "int8 / float32, time:",
        ratio(seconds, "onnx int8", "onnx float32"),
        "bytes:",
        sizes["onnx int8"] / sizes["onnx float32"],
    )
    print("folded / not, time:", ratio(seconds, "xla folded", "xla"))


def images(rows: int):
    """Training images, a batch at a time."""
    source = lambda: idx.source(samples.fashion_mnist_dir(), "train", idx.FASHION_MNIST)
    stream = streams.training(
        source, order=order.shuffled(0), placer=placement.letterbox(28), batch_size=rows, channels=1
    )
    return stream.batches(0)


def session(data: bytes, batch) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    made = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    arrays = {"image": batch.image, "size": batch.size}
    return lambda: made.run(None, {each.name: arrays[each.name] for each in made.get_inputs()})


def compiled(task, variables, batch) -> Callable[[], Any]:
    predict = jax.jit(task.predict)
    return lambda: jax.block_until_ready(predict(variables, batch))


def by_turns(calls: Mapping[str, Callable[[], Any]], blocks: int) -> dict[str, list[float]]:
    """Processor seconds of each call in each block, the first block, which compiles, left out."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(blocks + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    return {name: each[1:] for name, each in seconds.items()}


def quartiles(seconds: list[float]) -> list[float]:
    return [round(float(x), 5) for x in np.quantile(seconds, (0.25, 0.5, 0.75))]


def ratio(seconds: Mapping[str, list[float]], one: str, other: str) -> str:
    """Median and quartiles of the ratio, block by block."""
    low, middle, high = np.quantile(np.array(seconds[one]) / np.array(seconds[other]), (0.25, 0.5, 0.75))
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
