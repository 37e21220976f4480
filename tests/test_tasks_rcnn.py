"""R-CNN's crops against SciPy, its loss against loops, its prediction in parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detectors import make_batch
from flax import linen as nn
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from test_tasks_fast_rcnn import expected_terms, linear, regions_of, wide_batch

from jaxvision.nn.roi_heads import RegionScores
from jaxvision.tasks import rcnn as task_file
from jaxvision.tasks.rcnn import crops, rcnn, rcnn_vgg16
from jaxvision.tasks.roi_heads import ROIHeads


def test_crops_equal_scipys_and_beyond_the_image_is_zero(float64):
    random, size, context = np.random.default_rng(0), 11, 2
    image = random.normal(size=(20, 30, 2))
    boxes = np.array([[3, 4, 17, 11], [0, 0, 30, 20], [-6, 15, 4, 26], [28.3, 1.7, 29.1, 2.2], [5, 5, 12, 12]], float)
    found = jax.jit(lambda image, boxes: crops(image, boxes, size, context))(image, boxes)
    for crop, (x0, y0, x1, y1) in zip(found, boxes, strict=True):
        step = np.arange(size) + 0.5 - context
        y, x = (low + step * (high - low) / (size - 2 * context) - 0.5 for low, high in ((y0, y1), (x0, x1)))
        places = np.meshgrid(y, x, indexing="ij")
        for channel in range(2):
            expected = ndimage.map_coordinates(image[..., channel], places, order=1, mode="grid-constant")
            assert_allclose(crop[..., channel], expected, atol=1e-12)
    assert_allclose(found[4, 2:9, 2:9], image[5:12, 5:12], atol=1e-12)


class OfCentre(nn.Module):
    """Scores that are a linear function of the pixel in the middle of the crop."""

    @nn.compact
    def __call__(self, crops, *, train):
        middle = crops.shape[-2] // 2
        seen = crops[..., middle, middle, :]
        scores = nn.Dense(20, param_dtype=seen.dtype, name="scores")(seen)
        return RegionScores(scores[..., :4], scores[..., 4:].reshape(*seen.shape[:-1], 4, 4))


def sight(image):
    """What `OfCentre` would have to see of each box: the bilinear value at its centre."""

    def of(box):
        x, y = (box[0] + box[2]) / 2 - 0.5, (box[1] + box[3]) / 2 - 0.5
        return np.array([ndimage.map_coordinates(image[..., c], [[y], [x]], order=1)[0] for c in range(3)])

    return of


def test_the_loss_equals_loops_over_the_regions(float64):
    settings, batch, key = ROIHeads(samples_per_image=14, positive_fraction=0.4), wide_batch(), jax.random.key(2)
    task = rcnn(OfCentre(), size=9, context=1, mean=0.0, std=255.0, roi_heads=settings, dtype=jnp.float64)
    variables = linear(3)
    loss, out = jax.jit(task.loss)(variables, batch, key)
    kernel, one = np.asarray(variables["params"]["scores"]["kernel"]), jax.device_get(batch)
    keys = jax.random.split(jax.random.split(key)[0], 4)
    terms, far = [], 0
    for row in range(4):
        target = jax.tree.map(lambda x: x[row], one.target)  # noqa: B023
        given = one.given.boxes[row], one.given.valid[row].copy()
        boxes, matched = regions_of(keys[row], *given, target, settings, background=0.0)
        see, by_class, by_box = sight(one.image[row] / 255), 0.0, 0.0
        for box, match in zip(boxes, matched, strict=True):
            # `expected_terms` makes scores of `box / 30 @ kernel`: this kernel gives those of what is seen there.
            scores = see(box) @ kernel
            as_kernel = np.outer(box / 30, scores) / np.square(box / 30).sum()
            a, b, _ = expected_terms([box], [match], target, as_kernel, box_from=0.6)
            far += b == 0 and match >= 0
            by_class, by_box = by_class + a, by_box + b
        terms.append((by_class, by_box, len(boxes)))
    assert far  # some regions are of an object, but too far from its box to learn it
    assert terms[2][2] == 14  # without objects all is background
    by_class, by_box, count = np.sum(terms, 0)
    assert_allclose((out.metrics["class_loss"], out.metrics["box_loss"]), (by_class / count, by_box / count), rtol=1e-9)
    assert_allclose(loss, (by_class + by_box) / count, rtol=1e-9)


def test_many_proposals_are_classified_part_by_part(float64, monkeypatch):
    batch = make_batch()
    task = rcnn(OfCentre(), size=9, context=1, mean=127.5, std=64.0, dtype=jnp.float64)
    variables = linear(3)
    expected = jax.jit(task.predict)(variables, batch)
    monkeypatch.setattr(task_file, "AT_ONCE", 3)
    found = jax.jit(lambda variables, batch: task.predict(variables, batch))(variables, batch)
    assert expected.valid.sum() > 20
    assert_array_equal(found.labels, expected.labels)
    assert_allclose(found.boxes, expected.boxes, rtol=1e-12)


def test_the_form_of_the_paper_is_traced_in_strict_types():
    task = rcnn(rcnn_vgg16(3, hidden=16, dtype=jnp.bfloat16), dtype=jnp.bfloat16)
    batch = make_batch((2, 0), dtype=np.float32)
    variables = jax.eval_shape(task.init, jax.random.key(0), batch)
    assert variables["params"]["box_head"]["dense1"]["kernel"].shape == (7 * 7 * 512, 16)
    with jax.numpy_dtype_promotion("strict"):
        loss, out = jax.eval_shape(task.loss, variables, batch, jax.random.key(0))
        found = jax.eval_shape(task.predict, variables, batch)
    assert set(out.metrics) == {"class_loss", "box_loss"}
    assert (loss.dtype, found.boxes.shape, found.boxes.dtype) == (jnp.float32, (2, 100, 4), jnp.float32)


def test_context_must_leave_something_of_the_crop():
    with pytest.raises(ValueError, match=r"rcnn\(size=32, context=16\): allowed is a context from 0 to below half"):
        rcnn(rcnn_vgg16(3), size=32, context=16)
