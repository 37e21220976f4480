"""State of a ResNet-50 in training, for the benchmark `checkpoint`: parameters, their momentum, statistics of BatchNorm."""

from collections.abc import Iterator

import numpy as np

STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
"""Blocks of each stage, and the channels of their 3x3 convolution."""
GROWTH = 4


def shapes(width: int = 1) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of ResNet-50's parameters; with channels divided by `width`."""
    channels = 64 // width
    yield from _conv_norm("stem", 7, 3, channels)
    for number, (blocks, middle) in enumerate(STAGES, 1):
        middle //= width
        for block in range(1, blocks + 1):
            name = f"stage{number}_block{block}"
            if block == 1:
                yield from _conv_norm(f"{name}_shortcut", 1, channels, middle * GROWTH)
            yield from _conv_norm(f"{name}_1", 1, channels, middle)
            yield from _conv_norm(f"{name}_2", 3, middle, middle)
            yield from _conv_norm(f"{name}_3", 1, middle, middle * GROWTH)
            channels = middle * GROWTH
    yield from (("head_kernel", (channels, 1000)), ("head_bias", (1000,)))


def _conv_norm(name: str, side: int, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}_conv", (side, side, inputs, outputs)
    yield from ((f"{name}_{each}", (outputs,)) for each in ("scale", "bias"))


def arrays(width: int = 1) -> dict[str, dict[str, np.ndarray]]:
    """The state, float32: 205 MB of parameters and momentum."""
    rng, named = np.random.default_rng(0), dict(shapes(width))
    of = {
        kind: {name: rng.random(shape, np.float32) for name, shape in named.items()} for kind in ("params", "momentum")
    }
    norms = {name: shape for name, shape in named.items() if name.endswith("_scale")}
    return of | {
        kind: {name: rng.random(shape, np.float32) for name, shape in norms.items()} for kind in ("mean", "var")
    }


def told(state: dict) -> list[float]:
    """Some numbers of what was read back: the first of each array of parameters and momentum."""
    return [
        float(np.asarray(state[kind][name]).reshape(-1)[0]) for kind in ("params", "momentum") for name, _ in shapes()
    ]
