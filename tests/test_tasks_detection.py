"""Detections of a batch are those of its images, however many there are; rows without an object give no NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.ops.boxes import area
from jaxvision.ops.selection import Selection
from jaxvision.tasks import retinanet, ssd, yolox
from jaxvision.tasks.detection import AT_ONCE, detections
from jaxvision.tasks.yolo import anchors_of as yolox_cells
from jaxvision.types import Objects


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


def log_area(_, __, predicted, truth):
    """A loss of boxes that is infinite, and has no gradient, where the ground truth has no area, as padding has none."""
    return jnp.abs(jnp.log(area(predicted) / area(truth)))


@pytest.mark.parametrize("task", [ssd, retinanet])
@pytest.mark.parametrize("objects", [0, 1])
def test_a_box_loss_sees_nothing_of_boxes_without_an_object(task, objects):
    anchors = jnp.float32([[0, 0, 16, 16], [16, 0, 32, 16], [0, 16, 16, 32], [5, 5, 5, 5]])
    boxes, valid = jnp.float32([[1, 1, 15, 17], [0, 0, 0, 0]]), jnp.arange(2) < objects
    target = Objects(boxes, jnp.zeros(2, jnp.int32), valid, jnp.zeros(2, bool))
    loss = lambda logits, offsets: sum(
        task.loss_terms(logits, offsets, anchors, target, box_loss=log_area).sums.values()
    )
    value, gradient = jax.jit(jax.value_and_grad(loss, (0, 1)))(jnp.zeros((4, 3)), jnp.full((4, 4), 0.1))
    assert np.isfinite(value)
    assert all(np.isfinite(each).all() for each in gradient)
    assert [bool(row.any()) for row in gradient[1]] == [objects == 1, False, False, False]


@pytest.mark.parametrize("objects", [0, 1])
def test_nor_does_that_of_yolox(objects):
    cells = yolox_cells([(4, 4)], [[(1, 1)]], (32, 32))
    boxes, valid = jnp.float32([[1, 1, 15, 17], [0, 0, 0, 0]]), jnp.arange(2) < objects
    target = Objects(boxes, jnp.zeros(2, jnp.int32), valid, jnp.zeros(2, bool))
    loss = lambda predicted: sum(yolox.loss_terms(predicted, cells, target, box_loss=log_area).sums.values())
    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.full((16, 8), 0.1))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert gradient[:, :4].any() == (objects == 1)
