"""Weights of objects in the losses of detectors: one of weight 0 is no positive, and a half counts half.

Those of DETR, YOLACT, YOLO and YOLOX are compared with loops over weighted objects in their tests.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.tasks import mask_rcnn, retinanet, roi_heads, rpn, ssd
from jaxvision.types import Objects

BOXES = np.asarray([[0, 0, 10, 10], [40, 0, 50, 10], [0, 40, 10, 50], [40, 40, 52, 52], [20, 20, 26, 26]], np.float32)
"""Anchors or regions; the first is that of the object whose weight changes, the fourth that of the other."""
RANDOM = np.random.default_rng(0)
LOGITS, OFFSETS = RANDOM.normal(size=(5, 4)).astype(np.float32), RANDOM.normal(size=(5, 4)).astype(np.float32)
BY_CLASS = RANDOM.normal(size=(5, 4, 4)).astype(np.float32)
MASKS = RANDOM.normal(size=(5, 7, 7, 4)).astype(np.float32)


def target(weight, label=1):
    masks = np.zeros((2, 60, 60), bool)
    masks[0, 2:9, 1:8] = masks[1, 41:50, 43:51] = True
    rows = BOXES[[0, 3]], jnp.asarray([label, 2]), np.ones(2, bool), np.zeros(2, bool)
    return Objects(*map(jnp.asarray, rows), masks=jnp.asarray(masks), weight=jnp.asarray([weight, 1.0], jnp.float32))


def regions():
    return roi_heads.ROIs(jnp.asarray(BOXES), jnp.ones(5, bool), jnp.asarray([0, -1, -1, 1, -1]))


LOSSES = {
    "ssd": (lambda x, objects: ssd.loss_terms(*x, BOXES, objects), (LOGITS, OFFSETS)),
    "retinanet": (lambda x, objects: retinanet.loss_terms(*x, BOXES, objects), (LOGITS, OFFSETS)),
    "rpn": (lambda x, objects: rpn.loss_terms(jax.random.key(0), *x, BOXES, objects), (LOGITS[:, 0], OFFSETS)),
    "roi_heads": (lambda x, objects: roi_heads.loss_terms(*x, regions(), objects), (LOGITS, BY_CLASS)),
    "mask_rcnn": (lambda x, objects: mask_rcnn.mask_loss_terms(*x, regions(), objects), (MASKS,)),
}


FAST = ("roi_heads", "ssd")


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in LOSSES if name not in FAST)]
)
def test_an_object_of_weight_0_is_no_positive_and_a_half_counts_half(name):
    terms, outputs = LOSSES[name]
    outputs = tuple(map(jnp.asarray, outputs))

    def total(outputs, weight, label):
        return sum(terms(outputs, target(weight, label)).sums.values())

    value = jax.jit(jax.value_and_grad(total))
    none, half, whole = (value(outputs, weight, 1) for weight in (0.0, 0.5, 1.0))
    other_label = value(outputs, 0.0, 0)
    for without, of_other, between, full in zip(*(each[1] for each in (none, other_label, half, whole)), strict=True):
        assert not np.any(without[0])
        assert np.any(full[0])
        np.testing.assert_array_equal(without[1:], full[1:])
        np.testing.assert_array_equal(without, of_other)
        np.testing.assert_allclose(between, (without + full) / 2, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(half[0], (none[0] + whole[0]) / 2, rtol=1e-5)
    assert none[0] < whole[0]
