"""Side of jaxvision in the benchmark `augmentation`."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.speed.augmentation_images import COMPARED, images, told
from experiments.benchmarks.speed.contest import Work
from jaxvision import augment as au
from jaxvision.types import Batch, Labels

COLOURS = (au.brightness(0.4), au.contrast(0.4), au.saturation(0.4), au.hue(0.1))
AFFINE = au.affine(rotation=40, shift=0.2, shear=0.2, zoom=0.2, fill="constant")
POLICIES = {
    "crop_and_flip": au.chain(au.pad_and_crop(4), au.flip()),
    "resized_crop": au.chain(au.resized_crop(), au.flip()),
    "affine": AFFINE,
    "colours": au.chain(*COLOURS),
    "affine_colours_erasing": au.chain(AFFINE, *COLOURS, au.random_erasing(fill=0.0)),
    "randaugment": au.randaugment(),
    "trivialaugment": au.trivialaugment(),
    "augmix": au.augmix(),
}


def work(policy: str, side: int, count: int) -> Work:
    """A policy on a batch that lies on the device."""
    size, index = jnp.full((count, 2), side, jnp.int32), jnp.arange(count, dtype=jnp.int32)
    batch = Batch(jnp.asarray(images(side, count)), size, size, index, index >= 0, Labels(index))
    call, key = jax.jit(lambda key, step, batch: POLICIES[policy](key, step, batch).image), jax.random.key(0)
    numbers = itertools.count()
    again = lambda: call(jax.random.fold_in(key, next(numbers)), jnp.int32(0), batch)

    def run(units: int) -> None:
        for _ in range(units):
            again().block_until_ready()

    return Work(run, lambda: told(np.asarray(batch.image), [np.asarray(again()) for _ in range(COMPARED)]))
