"""RetinaNet's loss and detections against loops, and all of it against torchvision's figures."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import parity_rcnn
import pytest
from detectors import make_batch
from flax import linen as nn
from numpy.testing import assert_allclose
from parity_networks import shapes_of
from test_ops_nms import greedy as greedy_loop
from test_ops_nms import overlap

from jaxvision.nn.fpn import Predictions
from jaxvision.ops.anchors import pyramid
from jaxvision.ops.nms import greedy
from jaxvision.tasks import retinanet
from jaxvision.tasks.anchored import anchors_of
from jaxvision.types import Objects

GOLDEN = Path(__file__).parent / "golden"
BOXES = np.concatenate(pyramid([(4, 6), (2, 3)], (32, 48), ((8, 10), (16, 20)))).astype(float)


def offsets_of(box, anchor, weights=(1, 1, 1, 1)):
    w, h = anchor[2] - anchor[0], anchor[3] - anchor[1]
    shift = ((box[0] + box[2] - anchor[0] - anchor[2]) / 2 / w, (box[1] + box[3] - anchor[1] - anchor[3]) / 2 / h)
    sizes = np.log((box[2] - box[0]) / w), np.log((box[3] - box[1]) / h)
    return np.multiply([*shift, *sizes], weights)


def box_of(offsets, anchor, size, weights=(1, 1, 1, 1)):
    dx, dy, dw, dh = np.divide(offsets, weights)
    w, h = anchor[2] - anchor[0], anchor[3] - anchor[1]
    x, y = (anchor[0] + anchor[2]) / 2 + dx * w, (anchor[1] + anchor[3]) / 2 + dy * h
    w, h = w * np.exp(min(dw, np.log(62.5))), h * np.exp(min(dh, np.log(62.5)))
    return np.clip([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 0, [size[1], size[0]] * 2)


def owners(anchors, boxes, ignored, high, low, low_quality):
    """For each anchor the number of its object, -1 for background, -2 for neither."""
    table = [[overlap(box, anchor) for box in boxes] for anchor in anchors]
    best = np.max(table, 0)
    found = []
    for anchor, row in zip(anchors, table, strict=True):
        owner = -1 if max(row) < low else -2 if max(row) < high else int(np.argmax(row))
        if low_quality and (np.asarray(row) == best).any():
            owner = int(np.argmax(row))
        if owner == -1 and any(overlap(box, anchor) >= low for box in ignored):
            owner = -2
        found.append(owner)
    return found


def objects(random, n, rows=5):
    """`n` objects, one to be ignored behind them, and rubbish."""
    corner = random.uniform(0, 20, (rows, 2))
    boxes = np.concatenate([corner, corner + random.uniform(6, 24, (rows, 2))], 1)
    labels = random.integers(0, 3, rows).astype(np.int32)
    return boxes, labels, Objects(boxes, labels, np.arange(rows) <= n, np.arange(rows) == n)  # type: ignore[arg-type]


def test_the_loss_equals_loops_over_the_anchors(float64):
    terms = jax.jit(lambda l, o, t: retinanet.loss_terms(l, o, BOXES, t))
    for n in (1, 2, 4):
        random = np.random.default_rng(n)
        logits, offsets = random.normal(size=(len(BOXES), 3)), random.normal(size=(len(BOXES), 4))
        boxes, labels, target = objects(random, n)
        owner = owners(BOXES, boxes[:n], boxes[n : n + 1], 0.5, 0.4, True)
        class_loss = box_loss = 0.0
        for a, who in enumerate(owner):
            for k in range(3) if who != -2 else ():
                p = 1 / (1 + np.exp(-logits[a, k]))
                there = who >= 0 and labels[who] == k
                class_loss -= 0.25 * (1 - p) ** 2 * np.log(p) if there else 0.75 * p**2 * np.log(1 - p)
            if who >= 0:
                box_loss += np.abs(offsets[a] - offsets_of(boxes[who], BOXES[a])).sum()
        matched = sum(who >= 0 for who in owner)
        assert -2 in owner
        sums, counts = terms(logits, offsets, target)
        assert_allclose((sums["class_loss"], sums["box_loss"]), (class_loss, box_loss), rtol=1e-9)
        assert counts == {"class_loss": matched, "box_loss": matched}


class Fixed(nn.Module):
    """A network whose outputs are the same for every image: two maps of 4x4 and 2x2 cells, six anchors each."""

    @nn.compact
    def __call__(self, images, *, train):
        return fixed_outputs(len(images))


def fixed_outputs(count):
    random = np.random.default_rng(5)
    each = [(random.normal(size=(*s, 6, 3)), 0.5 * random.normal(size=(*s, 6, 4))) for s in ((4, 4), (2, 2))]
    return [Predictions(*(jnp.asarray(np.stack([x] * count)) for x in pair)) for pair in each]


def test_the_loss_is_the_mean_over_images_of_means_over_their_anchors(float64):
    task, given = retinanet.retinanet(Fixed(), sizes=((8, 10), (16, 20)), mean=0.0, std=1.0), make_batch((3, 0, 2, 1))
    given = given.replace(valid=given.valid.at[3].set(False))
    total, out = jax.jit(task.loss)({}, given, jax.random.key(0))
    outputs = fixed_outputs(4)
    boxes = np.concatenate(anchors_of(outputs, given.image.shape, ((8, 10), (16, 20)), (0.5, 1, 2)))
    terms, own = jax.jit(lambda l, o, t: retinanet.loss_terms(l, o, boxes, t)), []
    for i in range(3):
        logits, offsets = (
            np.concatenate([x[i].reshape(-1, x.shape[-1]) for x in maps]) for maps in zip(*outputs, strict=True)
        )
        sums, counts = terms(logits, offsets, jax.tree.map(lambda x, i=i: x[i], given.target))
        own.append([sums[name] / max(counts[name], 1) for name in ("class_loss", "box_loss")])
    assert_allclose([out.metrics["class_loss"], out.metrics["box_loss"]], np.mean(own, 0), rtol=1e-9)
    assert_allclose(total, np.mean(own, 0).sum(), rtol=1e-9)
    assert_allclose(out.example_loss, [*np.sum(own, 1), 0], rtol=1e-9)


def test_detections_equal_the_loop(float64):
    settings = {"score_threshold": 0.3, "pre_nms_top_k": 30, "nms": greedy(0.4), "max_detections": 15}
    task = retinanet.retinanet(Fixed(), sizes=((8, 10), (16, 20)), mean=0.0, std=1.0, **settings)
    given = make_batch((1,))
    found = jax.device_get(jax.jit(task.predict)({}, given))
    outputs = fixed_outputs(1)
    rows, first = [], 0
    levels = anchors_of(outputs, (1, 32, 32, 3), ((8, 10), (16, 20)), (0.5, 1, 2))
    for maps, anchors in zip(outputs, levels, strict=True):
        logits, offsets = (np.asarray(x)[0].reshape(len(anchors), -1) for x in maps)
        pairs = [
            (1 / (1 + np.exp(-logits[a, k])), k, box_of(offsets[a], anchors[a], (28, 30)), first + a)
            for a in range(len(anchors))
            for k in range(3)
        ]
        rows += sorted((pair for pair in pairs if pair[0] > 0.3), key=lambda pair: -pair[0])[:30]
        first += len(anchors)
    scores, labels, boxes, numbers = map(np.array, zip(*rows, strict=True))
    kept = np.flatnonzero(greedy_loop(boxes, scores, np.ones(len(rows), bool), 0.4, labels))
    best = sorted(kept, key=lambda row: -scores[row])[:15]
    assert len(best) == 15
    assert found.valid.all()
    assert_allclose(found.boxes[0], boxes[best], atol=1e-9)
    assert_allclose(found.scores[0], scores[best], rtol=1e-12)
    assert found.labels[0].tolist() == labels[best].tolist()
    assert found.index[0].tolist() == numbers[best].tolist()
    assert first > max(numbers[best]) >= len(levels[0])  # of both maps


def test_another_number_of_anchors_is_refused():
    outputs = fixed_outputs(1)
    with pytest.raises(ValueError, match=r"has \[6, 6\] anchors a cell of its maps; sizes and ratios make \[3, 3\]"):
        anchors_of(outputs, (1, 32, 32, 3), ((8,), (16,)), (0.5, 1, 2))


@pytest.mark.slow
def test_all_of_it_equals_torchvision(float64):
    with np.load(GOLDEN / "retinanet_resnet18.npz") as golden:
        shapes = shapes_of(golden)
        found = parity_rcnn.golden_of(shapes, parity_rcnn.figures("retinanet", "resnet18", shapes))
        parity_rcnn.assert_same(found, golden)
