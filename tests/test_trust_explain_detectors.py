"""Explanations of detectors: raw scores at the chosen index, ODAM and D-RISE against loops, a map for every task."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detectors import EVERY
from explained_detectors import detector
from numpy.testing import assert_allclose

from jaxvision.errors import ConfigError
from jaxvision.trust.explain import cam, detections, gradients, judging, layers, masking
from jaxvision.types import Detections

pytestmark = pytest.mark.usefixtures("float64")
QUICK = ("ssd",)
names = pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in EVERY]
)


@names
def test_every_detector_has_a_finite_map_that_is_not_zero(name):
    task, variables, batch, chosen = detector(name)
    score = detections.of_candidate(task, variables, batch, chosen)
    raw, slope = jax.jit(jax.value_and_grad(lambda x: score(x)[0]))(batch.image)
    assert_allclose(raw, chosen.score, rtol=1e-9)
    judging.check_nonzero(np.asarray(slope), name)
    masks = masking.random_masks(np.random.default_rng(0), 8, (32, 32), grid=4)
    similar = detections.most_similar(task, variables, batch, chosen, 3)
    judging.check_nonzero(masking.rise(similar, batch.image[0], masks, 127.0, at_once=8), name)
    if name != "rcnn":  # its network sees crops of the regions: no layer has a map of the image
        path = layers.last(layers.outputs(score, batch.image), several=True)
        maps = layers.with_gradients(score, batch.image, path)
        judging.check_nonzero(np.asarray(cam.on_canvas(cam.odam, *maps, (32, 32))), name)


def test_the_gradient_through_predict_is_zero_and_is_refused():
    task, variables, batch, _ = detector("ssd")
    silent = gradients.gradient(lambda x: task.predict(variables, batch.replace(image=x)).scores[:, 0], batch.image)
    with pytest.raises(ConfigError, match="the attribution of a score is zero everywhere"):
        judging.check_nonzero(np.asarray(silent), "a score")


def test_the_candidate_of_a_detection_has_its_score_and_box_and_is_the_best_for_them():
    task, variables, batch, chosen = detector("ssd")
    told = jax.jit(lambda batch: detections.candidates(task, variables, batch))(batch)
    assert_allclose(told.scores[0, chosen.index, chosen.label], chosen.score)
    assert_allclose(told.boxes[0, chosen.index], chosen.box)
    again = detections.best_candidate(told, chosen.box, chosen.label)
    assert (again.index, again.label) == (chosen.index, chosen.label)
    with pytest.raises(ConfigError, match="no candidate of the detector meets the box"):
        detections.best_candidate(told, np.array([900.0, 900, 910, 910]), 1)


def test_a_detection_beyond_the_count_is_refused():
    found = Detections(
        np.zeros((1, 3, 4)),
        np.zeros((1, 3), int),
        np.ones((1, 3)),
        np.array([[True, True, False]]),
        index=np.zeros((1, 3), int),
    )
    for number in (0, 3):
        with pytest.raises(ConfigError, match=f"no detection {number}: the image has 2 detections; allowed are 1 to 2"):
            detections.detected(found, number)


def test_odam_equals_a_loop():
    random = np.random.default_rng(0)
    output, slope = random.standard_normal((2, 1, 3, 2, 4))
    expected = np.zeros((1, 3, 2))
    for y in range(3):
        for x in range(2):
            total = sum(output[0, y, x, c] * slope[0, y, x, c] for c in range(4))
            expected[0, y, x] = max(total, 0)
    assert_allclose(cam.odam(output, slope), expected, atol=1e-12)


def area(box):
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def overlap(a, b):
    met = area([*np.maximum(a[:2], b[:2]), *np.minimum(a[2:], b[2:])])
    return met / (area(a) + area(b) - met)


def test_d_rise_equals_a_loop():
    """Equations 2 to 6 of arXiv:2006.03204, of a detector whose boxes and classes follow the mean of the pixels."""
    random = np.random.default_rng(1)
    corner = random.uniform(0, 6, (2, 5, 2))
    boxes = np.concatenate([corner, corner + random.uniform(3, 6, (2, 5, 2))], -1)
    vectors, objectness = random.random((2, 5, 3)), random.random((2, 5))
    valid = np.array([[True, True, True, False, True], [False, True, True, True, True]])
    box, vector = np.array([2.0, 2, 8, 7]), np.array([0.1, 0.7, 0.2])
    masks, image = masking.random_masks(random, 2, (4, 4), grid=2), jnp.ones((4, 4, 1))
    expected = np.zeros((4, 4))
    for number, mask in enumerate(masks):
        best = 0.0
        for row in range(5):
            if valid[number, row]:
                v = vectors[number, row]
                cosine = sum(v * vector) / np.sqrt(sum(v * v) * sum(vector * vector))
                best = max(best, overlap(box, boxes[number, row]) * cosine * objectness[number, row])
        expected += best * mask
    each = jax.vmap(lambda *found: detections.similarity(jnp.asarray(box), jnp.asarray(vector), *found))
    found = masking.rise(lambda images: each(boxes, vectors, objectness, valid), image, masks)
    assert_allclose(found, expected / (2 * masks.mean()), rtol=1e-6)
