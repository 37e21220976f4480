"""AutoAugment's policy for ImageNet (arXiv:1805.09501), with the numbers of EfficientNet's code, tensorflow/tpu."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.augment.keys import row_keys
from jaxvision.augment.policy import EVERY_OPERATION, OPERATIONS, Space, applied
from jaxvision.ops import resample
from jaxvision.ops.resample import Fill
from jaxvision.types import Augment, Batch, Key, Scalar

POLICY = (
    (("equalize", 0.8, 1), ("shear_y", 0.8, 4)),
    (("saturation", 0.4, 9), ("equalize", 0.6, 3)),
    (("saturation", 0.4, 1), ("rotation", 0.6, 8)),
    (("solarize", 0.8, 3), ("equalize", 0.4, 7)),
    (("solarize", 0.4, 2), ("solarize", 0.6, 2)),
    (("saturation", 0.2, 0), ("equalize", 0.8, 8)),
    (("equalize", 0.4, 8), ("solarize_add", 0.8, 3)),
    (("shear_x", 0.2, 9), ("rotation", 0.6, 8)),
    (("saturation", 0.6, 1), ("equalize", 1.0, 2)),
    (("invert", 0.4, 9), ("rotation", 0.6, 0)),
    (("equalize", 1.0, 9), ("shear_y", 0.6, 3)),
    (("saturation", 0.4, 7), ("equalize", 0.6, 0)),
    (("posterize", 0.4, 6), ("autocontrast", 0.4, 7)),
    (("solarize", 0.6, 8), ("saturation", 0.6, 9)),
    (("solarize", 0.2, 4), ("rotation", 0.8, 9)),
    (("rotation", 1.0, 7), ("shift_y", 0.8, 9)),
    (("shear_x", 0.0, 0), ("solarize", 0.8, 4)),
    (("shear_y", 0.8, 0), ("saturation", 0.6, 4)),
    (("saturation", 1.0, 0), ("rotation", 0.6, 2)),
    (("equalize", 0.8, 4), ("equalize", 0.0, 8)),
    (("equalize", 1.0, 4), ("autocontrast", 0.6, 2)),
    (("shear_y", 0.4, 7), ("solarize_add", 0.6, 7)),
    (("posterize", 0.8, 2), ("solarize", 0.6, 10)),
    (("solarize", 0.6, 8), ("equalize", 0.6, 1)),
    (("saturation", 0.8, 6), ("rotation", 0.4, 5)),
)
"""Pairs of operations, each with its probability and its level, 0 to 10."""
SPACE = Space(30, 0.3, 250, 0.9, bits=lambda strength: jnp.maximum(jnp.floor(4 * strength), 1))
"""Space of levels: posterize keeps four bits at 10, and never fewer than one; a shift is 250 pixels at 10."""
MOTIONS = ("rotation", "shear_x", "shear_y", "shift_x", "shift_y")


def autoaugment(fill: Fill = 128) -> Augment:
    """One of the 25 pairs of `POLICY` for each image, sampled uniformly; each of its two operations with its probability.

    Motions go either way with the same probability. They are bilinear and about the centre, where the original takes the
    nearest pixel and shears about the corner.

    Args:
      fill: what comes in from outside the image; see `warp.affine`.

    Raises:
      ValueError: an unknown fill.
      TypeError: in use, a target that cannot be moved.
    """
    resample.check(fill, "nearest")
    names = [[name for name, _, _ in pair] for pair in POLICY]
    operations = np.array([[EVERY_OPERATION.index(name) for name in pair] for pair in names], np.int32)
    signed = np.isin(names, MOTIONS)
    probabilities = np.array([[probability for _, probability, _ in pair] for pair in POLICY], np.float32)
    strengths = np.array([[strength(name, level) for name, _, level in pair] for pair in POLICY], np.float32)

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        del step
        for_pair, *for_turns = jax.random.split(key, 3)
        pair = jax.vmap(lambda k: jax.random.randint(k, (), 0, len(POLICY), jnp.int32))(_keys(for_pair, batch))
        for turn, each in enumerate(for_turns):
            kind, probability, amount, either = (
                jnp.asarray(table[:, turn])[pair] for table in (operations, probabilities, strengths, signed)
            )
            for_choice, for_sign = jax.random.split(each)
            chosen = jax.vmap(jax.random.bernoulli)(_keys(for_choice, batch), probability)
            sign = jax.vmap(lambda k: jax.random.rademacher(k, (), jnp.float32))(_keys(for_sign, batch))
            kind = jnp.where(chosen, kind, OPERATIONS.index("identity"))
            batch = applied(batch, kind, jnp.where(either, sign, 1) * amount, SPACE, fill, "autoaugment")
        return batch

    return augment


def strength(name: str, level: int) -> float:
    """The strength of an operation at this level: factors grow from 0.1 at 0 to 1.9 at 10, thresholds from 0 to 256."""
    if name in ("brightness", "saturation", "contrast", "sharpness"):
        return level / 5 - 1
    return 1 - int(25.6 * level) / 256 if name == "solarize" else level / 10


def _keys(key: Key, batch: Batch) -> Key:
    return row_keys(key, len(batch.image))
