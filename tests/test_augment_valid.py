"""The law of `valid` in every augmentation: what is not valid, however odd, changes nothing of what is."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from jaxvision import augment
from jaxvision.types import Batch, Labels, Objects

SIDE, VALID = 12, np.array([True, False, True, True, False, True])
OF_LABELS = {
    "augmix": lambda: augment.augmix(),
    "cutmix": lambda: augment.cutmix(1.0, 3),
    "mixup": lambda: augment.mixup(1.0, 3),
    "pad_and_crop": lambda: augment.pad_and_crop(2),
}
OF_OBJECTS = {
    "affine": lambda: augment.affine(rotation=20, shift=0.1, shear=0.1, zoom=0.2),
    "autoaugment": lambda: augment.autoaugment(),
    "autocontrast": lambda: augment.autocontrast(),
    "blur": lambda: augment.blur(),
    "brightness": lambda: augment.brightness(0.5),
    "chain": lambda: augment.chain(augment.flip(), augment.scale_jitter((0.5, 1.5)), augment.mosaic()),
    "choose": lambda: augment.choose(augment.flip(), augment.vertical_flip()),
    "contrast": lambda: augment.contrast(0.5),
    "equalize": lambda: augment.equalize(),
    "expand": lambda: augment.expand(),
    "flip": lambda: augment.flip(),
    "gamma": lambda: augment.gamma(0.5),
    "greyscale": lambda: augment.greyscale(),
    "hue": lambda: augment.hue(0.2),
    "identity": lambda: augment.identity,
    "iou_crop": lambda: augment.iou_crop(trials=5),
    "jpeg": lambda: augment.jpeg(),
    "mixup_objects": lambda: augment.mixup_objects(),
    "mosaic": lambda: augment.mosaic(),
    "noise": lambda: augment.noise(5.0),
    "offset": lambda: augment.offset(9.0),
    "perspective": lambda: augment.perspective(),
    "posterize": lambda: augment.posterize(),
    "randaugment": lambda: augment.randaugment(),
    "randaugment_timm": lambda: augment.randaugment_timm(),
    "random_erasing": lambda: augment.random_erasing(),
    "resized_crop": lambda: augment.resized_crop(),
    "saturation": lambda: augment.saturation(0.5),
    "scale_jitter": lambda: augment.scale_jitter((0.5, 1.5)),
    "sharpness": lambda: augment.sharpness(0.5),
    "solarize": lambda: augment.solarize(),
    "sometimes": lambda: augment.sometimes(0.5, augment.expand()),
    "trivialaugment": lambda: augment.trivialaugment(),
    "vertical_flip": lambda: augment.vertical_flip(),
}
EVERY = OF_LABELS | OF_OBJECTS
QUICK = ("mixup", "cutmix", "pad_and_crop", "affine", "flip", "iou_crop", "mixup_objects", "mosaic")


def test_every_augmentation_is_here():
    assert set(EVERY) == set(augment.__all__)
    assert all(callable(make()) and inspect.isfunction(make()) for make in EVERY.values())


def make_batch(labels, rubbish):
    """Noise with objects; what is not valid holds `rubbish`: boxes of rows, and all of an image."""
    random, n = np.random.default_rng(0), len(VALID)
    image = random.uniform(0, 255, (n, SIDE, SIDE, 3)).astype(np.float32)
    image[~VALID] = rubbish
    size, index = np.tile(np.int32([[10, 11]]), (n, 1)), np.arange(n, dtype=np.int32)
    corner = random.uniform(0, 5, (n, 4, 2))
    boxes = np.concatenate([corner, corner + random.uniform(3, 5, (n, 4, 2))], -1).astype(np.float32)
    there = np.array([True, True, False, False]) & VALID[:, None]
    boxes[~there] = [rubbish, 0, -rubbish, rubbish]
    target = Objects(boxes, random.integers(0, 3, (n, 4), np.int32), there, np.zeros_like(there))
    if labels:
        target = Labels(np.where(VALID, random.integers(0, 3, n), -7).astype(np.int32))
    return jax.tree.map(jnp.asarray, Batch(image, size, size, index, jnp.asarray(VALID), target))


def of_what_is_valid(batch):
    """The images that are valid, and their labels or their valid objects."""
    batch = jax.tree.map(np.asarray, batch)
    target = jax.tree.map(lambda x: x[VALID], batch.target)
    found = [batch.image[VALID], batch.size[VALID], batch.valid]
    if isinstance(target, Labels):
        return [*found, *jax.tree.leaves(target)]
    return [*found, target.valid, *(x[target.valid] for x in jax.tree.leaves(target.replace(valid=None)))]


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in EVERY])
def test_what_is_not_valid_changes_nothing(name):
    step, key = jax.jit(EVERY[name]()), jax.random.key(3)
    run = lambda rubbish: of_what_is_valid(step(key, jnp.int32(0), make_batch(name in OF_LABELS, rubbish)))
    expected = run(0.0)
    assert all(np.isfinite(x).all() for x in expected)
    for rubbish in (np.nan, np.inf, 1e30):
        for found, wanted in zip(run(rubbish), expected, strict=True):
            assert_array_equal(found, wanted)
