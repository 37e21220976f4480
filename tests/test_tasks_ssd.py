"""SSD's loss against loops over its default boxes, and all of it against torchvision's figures."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import parity_detectors
import pytest
from numpy.testing import assert_allclose
from parity_networks import shapes_of
from test_tasks_retinanet import owners

from jaxvision.ops.anchors import ssd_default_boxes, tensorflow_default_boxes
from jaxvision.tasks import ssd
from jaxvision.tasks.anchored import bipartite, by_iou
from jaxvision.types import Objects

GOLDEN = Path(__file__).parent / "golden" / "ssd300_vgg16.npz"
CANVAS = (40, 60)


def iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def offsets_of(box, default):
    w, h = default[2] - default[0], default[3] - default[1]
    shift = ((box[0] + box[2] - default[0] - default[2]) / 2 / w, (box[1] + box[3] - default[1] - default[3]) / 2 / h)
    return 10 * shift[0], 10 * shift[1], 5 * np.log((box[2] - box[0]) / w), 5 * np.log((box[3] - box[1]) / h)


def owners_of_best(defaults, boxes, ignored, threshold):
    """For each default box the number of its object, each object its best; -1 for background, -2 for neither."""
    owner = owners(defaults, boxes, ignored, threshold, threshold, False)
    for g, box in enumerate(boxes):
        owner[int(np.argmax([iou(box, default) for default in defaults]))] = g
    return owner


def by_loops(logits, offsets, defaults, boxes, labels, owner, sigmoid):
    """Class loss, box loss, how many are matched."""
    costs, box_loss = [], 0.0
    for a, default in enumerate(defaults):
        label = 0 if owner[a] < 0 else labels[owner[a]] + 1
        z = logits[a]
        if sigmoid:
            target = np.eye(len(z))[label]
            costs.append(np.sum(np.log1p(np.exp(z)) - target * z))
        else:
            costs.append(np.log(np.exp(z).sum()) - z[label])
        if owner[a] >= 0:
            for d in np.abs(offsets[a] - offsets_of(boxes[owner[a]], default)):
                box_loss += d * d / 2 if d < 1 else d - 0.5
    positive = [a for a in range(len(defaults)) if owner[a] >= 0]
    negative = [a for a in range(len(defaults)) if owner[a] == -1]
    hard = sorted(negative, key=lambda a: -costs[a])[: 3 * len(positive)]
    return sum(costs[a] for a in positive + hard), box_loss, len(positive)


MATCHINGS = {
    "paper": (ssd.MATCHING, lambda *boxes: owners_of_best(*boxes, 0.5)),
    "bipartite": (bipartite(0.3), lambda *boxes: owners_of_best(*boxes, 0.3)),
    "by_iou": (by_iou(0.4, 0.2), lambda *boxes: owners(*boxes, 0.4, 0.2, False)),
}
"""What counts as a match, and the same by loops."""


@pytest.mark.parametrize(
    ("sigmoid", "matching"), [(False, "paper"), (True, "paper"), (False, "bipartite"), (False, "by_iou")]
)
def test_the_loss_equals_loops_over_the_default_boxes(float64, sigmoid, matching):
    matching, owners_by_loops = MATCHINGS[matching]
    scores = ssd.SIGMOID if sigmoid else ssd.SOFTMAX
    random = np.random.default_rng(0)
    defaults = ssd_default_boxes([(4, 6), (2, 3)], CANVAS, (0.3, 0.5, 0.8), ((2,), (2,)), (10, 20)).astype(float)
    terms = jax.jit(lambda l, o, t: ssd.loss_terms(l, o, defaults, t, scores, matching))
    ignoring = 0
    for n in (1, 2, 4):
        logits, offsets = random.normal(size=(len(defaults), 4)), random.normal(size=(len(defaults), 4))
        corner = random.uniform(0, 30, (6, 2))
        boxes = np.concatenate([corner, corner + random.uniform(5, 25, (6, 2))], 1)
        labels = random.integers(0, 3, 6).astype(np.int32)
        boxes[n], logits[17, 1] = defaults[17], 9.0  # were it not to be ignored, the hardest negative
        valid, ignore = np.arange(6) < n + 1, np.arange(6) == n
        target = Objects(*map(jnp.asarray, (boxes, labels, valid, ignore)))
        sums, counts = terms(jnp.asarray(logits), jnp.asarray(offsets), target)
        owner = owners_by_loops(defaults, boxes[:n], boxes[n : n + 1])
        class_loss, box_loss, count = by_loops(logits, offsets, defaults, boxes[:n], labels, owner, sigmoid)
        assert_allclose((sums["class_loss"], sums["box_loss"]), (class_loss, box_loss), rtol=1e-9)
        assert counts == {"class_loss": count, "box_loss": count}
        heedless = owners_by_loops(defaults, boxes[:n], boxes[:0])
        ignoring += class_loss < by_loops(logits, offsets, defaults, boxes[:n], labels, heedless, sigmoid)[0]
    assert ignoring


def test_hard_ones_are_the_costliest_and_no_more_than_there_are():
    loss, among = jnp.asarray([3.0, 5.0, 1.0, 5.0, 9.0]), jnp.asarray([True, True, True, True, False])
    for count, expected in ((2, [1, 3]), (3, [0, 1, 3]), (9, [0, 1, 2, 3]), (1, [1]), (0, [])):
        assert np.flatnonzero(ssd.hardest(loss, among, jnp.int32(count))).tolist() == expected


def test_the_default_boxes_have_the_published_numbers():
    assert len(ssd.SSD300([(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)], (300, 300))) == 8732
    voc = ssd.SSD300_VOC([(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)], (300, 300))
    assert len(voc) == 8732
    assert_allclose(voc[0, 2:] - voc[0, :2], 30, rtol=1e-5)  # its section 3.1: scale 0.1 on conv4_3, 0.2 on the next
    assert_allclose(voc[38 * 38 * 4, 2:] - voc[38 * 38 * 4, :2], 60, rtol=1e-5)
    sides = (64, 32, 16, 8, 4, 2, 1)
    assert len(ssd.SSD512([(side, side) for side in sides], (512, 512))) == 24564


def test_tensorflows_default_boxes_are_those_of_its_graph():
    # Widths and heights as OpenCV's description of ssd_mobilenet_v2_coco_2018_03_29 lists them; it takes 0.333 where the
    # graph itself has 0.3333.
    boxes = tensorflow_default_boxes([(19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)], (300, 300))
    assert len(boxes) == 1917
    first = {0: (30.0, 30.0), 1: (84.8528137207, 42.4264068604), 2: (42.4264068604, 84.8528137207)}
    start = 19 * 19 * 3
    second = {
        start: (105.0, 105.0),
        start + 1: (148.492431641, 74.2462158203),
        start + 3: (181.865341187, 60.6217765808),
        start + 4: (60.5914611816, 181.956329346),
        start + 5: (125.499000549, 125.499000549),
    }
    for row, sides in (first | second).items():
        assert_allclose(boxes[row, 2:] - boxes[row, :2], sides, rtol=5e-4 if row > start else 1e-6)
    assert_allclose((boxes[0, :2] + boxes[0, 2:]) / 2, 300 * 0.5 / 19, rtol=1e-6)


def test_tensorflows_squares_are_squares_on_any_canvas():
    boxes = tensorflow_default_boxes([(10, 20), (5, 10)], (300, 600))
    assert_allclose(boxes[0, 2:] - boxes[0, :2], 30, rtol=1e-6)
    assert_allclose((boxes[3, :2] + boxes[3, 2:]) / 2, [45, 15], rtol=1e-6)


@pytest.mark.slow
def test_all_of_it_equals_torchvision(float64):
    with np.load(GOLDEN) as golden:
        shapes = shapes_of(golden)
        found = parity_detectors.golden_of(shapes, parity_detectors.ssd_figures(shapes))
        parity_detectors.assert_same(found, golden)
