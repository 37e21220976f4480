"""The flip of top and bottom; what it shares with `flip` is tested there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxvision.augment import vertical_flip
from jaxvision.types import Batch, Objects, SegmentationMap

CANVAS = (7, 9)
SIZES = [(7, 9), (5, 9), (7, 4), (3, 6), (1, 1), (0, 0)]


def make_batch():
    rng = np.random.default_rng(0)
    size, index = jnp.asarray(SIZES, jnp.int32), jnp.arange(6, dtype=jnp.int32)
    masks = jnp.asarray(rng.integers(0, 2, (6, 3, *CANVAS)), bool)
    boxes = jnp.asarray(np.sort(rng.integers(0, 8, (6, 3, 2, 2)), axis=-2).reshape(6, 3, 4), jnp.float32)
    yes = jnp.ones((6, 3), bool)
    target = {
        "objects": Objects(boxes, jnp.zeros((6, 3), jnp.int32), yes, ~yes, masks=masks),
        "map": SegmentationMap(masks[:, 0].astype(jnp.int32), masks[:, 1]),
    }
    return Batch(jnp.asarray(rng.integers(0, 256, (6, *CANVAS, 3)), jnp.uint8), size, size, index, index >= 0, target)


def apply(augment, batch, seed=0):
    with jax.numpy_dtype_promotion("strict"):
        return jax.jit(augment)(jax.random.key(seed), jnp.zeros((), jnp.int32), batch)


def reversed_rows(values, size, rows_at=0):
    result = np.moveaxis(np.array(values), (rows_at, rows_at + 1), (0, 1))
    result[: size[0], : size[1]] = result[: size[0], : size[1]][::-1].copy()
    return np.moveaxis(result, (0, 1), (rows_at, rows_at + 1))


def test_it_equals_pil_on_the_content_and_targets_move_along():
    batch, result = make_batch(), apply(vertical_flip(1.0), make_batch())
    np.testing.assert_array_equal(
        result.image[0], np.asarray(ImageOps.flip(Image.fromarray(np.asarray(batch.image[0]))))
    )
    before, after = batch.target, result.target
    for i, (h, w) in enumerate(SIZES):
        np.testing.assert_array_equal(result.image[i], reversed_rows(batch.image[i], (h, w)))
        np.testing.assert_array_equal(after["objects"].masks[i], reversed_rows(before["objects"].masks[i], (h, w), 1))
        expected = [[x0, h - y1, x1, h - y0] for x0, y0, x1, y1 in np.asarray(before["objects"].boxes[i])]
        np.testing.assert_array_equal(after["objects"].boxes[i], expected)
        for name in ("label", "valid"):
            np.testing.assert_array_equal(
                getattr(after["map"], name)[i], reversed_rows(getattr(before["map"], name)[i], (h, w))
            )


def test_twice_is_identity_and_the_probability_counts():
    batch = make_batch()
    twice = apply(vertical_flip(1.0), apply(vertical_flip(1.0), batch))
    jax.tree.map(np.testing.assert_array_equal, twice, batch)
    jax.tree.map(np.testing.assert_array_equal, apply(vertical_flip(0.0), batch), batch)
    with pytest.raises(ValueError, match="vertical_flip.probability=2"):
        vertical_flip(2)
    with pytest.raises(TypeError, match="vertical_flip cannot move batch.given: of type tuple"):
        apply(vertical_flip(), batch.replace(given=(1,)))
