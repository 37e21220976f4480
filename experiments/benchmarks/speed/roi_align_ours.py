"""Sides of jaxvision in the benchmark `roi_align`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.speed import roi_align_data as data
from experiments.benchmarks.speed.contest import Work
from jaxvision.ops.roi_align import roi_align
from jaxvision.ops.roi_pyramid import roi_align_pyramid


def one_map(regions: int, channels: int) -> Work:
    """Pooling from one map, and the gradient of the map."""
    pool = lambda maps, boxes: roi_align(maps[0], boxes, size=data.SIZE, scale=1 / data.STRIDE)
    return _work(pool, (data.STRIDE,), regions, channels)


def pyramid(regions: int, channels: int) -> Work:
    """Pooling of each region from the map that fits it, and the gradient of all maps."""
    pool = lambda maps, boxes: roi_align_pyramid(maps, boxes, strides=data.STRIDES, size=data.SIZE)
    return _work(pool, data.STRIDES, regions, channels)


def _work(pool: Callable, strides: tuple[int, ...], regions: int, channels: int) -> Work:
    maps = [jnp.asarray(data.features(stride, channels)) for stride in strides]
    boxes, weights = jnp.asarray(data.regions(regions)), jnp.asarray(data.weights(regions, channels))

    @jax.jit
    def both(maps: list[jax.Array], boxes: jax.Array, weights: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        pooled, back = jax.vjp(lambda maps: pool(maps, boxes), maps)
        return pooled, back(weights)[0]

    def run(units: int) -> None:
        for _ in range(units):
            jax.block_until_ready(both(maps, boxes, weights))

    def outcome() -> list[float]:
        pooled, gradients = both(maps, boxes, weights)
        return data.told([np.asarray(each) for each in (pooled, *gradients)])

    return Work(run, outcome)
