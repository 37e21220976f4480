"""Detections of a batch are those of its images, however many there are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.ops.selection import Selection
from jaxvision.tasks.detection import AT_ONCE, detections


@pytest.mark.parametrize("count", [1, AT_ONCE, 11, 3 * AT_ONCE])
def test_every_image_has_its_own(count):
    boxes = jnp.arange(count * 20.0).reshape(count, 5, 4)
    shift = jnp.arange(count, dtype=jnp.int32)

    def one(boxes, shift):
        scores = boxes.sum(1) + shift
        return Selection(boxes[::-1], jnp.arange(5) + shift, scores, scores > 30, jnp.arange(5)[::-1] + shift)

    found = jax.jit(lambda *each: detections(one, *each))(boxes, shift)
    expected = [np.stack(each) for each in zip(*(one(b, s) for b, s in zip(boxes, shift, strict=True)), strict=True)]
    for ours, theirs in zip((found.boxes, found.labels, found.scores, found.valid, found.index), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
