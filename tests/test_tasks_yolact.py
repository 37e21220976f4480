"""YOLACT against NumPy loops after its authors' code: anchors, matching, losses, fast NMS and masks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, log_softmax, softmax

from jaxvision.masks import paste, runs
from jaxvision.nn.norm import FrozenBatchNorm
from jaxvision.ops.masks import packed, shrunk
from jaxvision.ops.matching import BACKGROUND, IGNORED
from jaxvision.ops.other_nms import fast
from jaxvision.ops.selection import Selecting
from jaxvision.tasks import detection, yolact
from jaxvision.tasks.yolact import Anchored, Outputs, Training
from jaxvision.types import Batch, Canvas, Objects, PackedMasks

CANVAS, CLASSES, ROWS, COUNT = (32, 40), 3, 6, 5
SHAPES = ((8, 10), (4, 5), (2, 3))
SIDES = ((5, 8), (10, 14), (18, 24))


def numpy_anchors(shapes, canvas, sides):
    boxes = []
    for (rows, columns), of_map in zip(shapes, sides, strict=True):
        for j, i, side in itertools.product(range(rows), range(columns), of_map):
            x, y = (i + 0.5) / columns * canvas[1], (j + 0.5) / rows * canvas[0]
            boxes.append([x - side / 2, y - side / 2, x + side / 2, y + side / 2])
    return np.array(boxes)


ANCHORS = numpy_anchors(SHAPES, CANVAS, SIDES)


def objects(seed, count=4, crowd=True):
    """Ellipses in their boxes, near anchors; the last is a crowd, one row is empty."""
    random = np.random.RandomState(seed)
    near = ANCHORS[random.choice(len(ANCHORS), ROWS, replace=False)]
    boxes = near + random.uniform(-2, 2, near.shape)
    boxes = np.clip(boxes, 0, [CANVAS[1], CANVAS[0]] * 2)
    valid = np.arange(ROWS) < count
    ignore = valid & (np.arange(ROWS) == count - 1) & crowd
    y, x = (np.arange(n) + 0.5 for n in CANVAS)
    x0, y0, x1, y1 = boxes.T[:, :, None]
    across, down = ((x - x0) / (x1 - x0) * 2 - 1) ** 2, ((y - y0) / (y1 - y0) * 2 - 1) ** 2
    masks = (down[:, :, None] + across[:, None] <= 1) & valid[:, None, None]
    weight = random.uniform(0.5, 2, ROWS)
    labels = random.randint(0, CLASSES, ROWS).astype(np.int32)
    target = Objects(boxes * valid[:, None], labels, valid, ignore, masks=masks, weight=weight)
    return jax.tree.map(jnp.asarray, target)


def outputs(seed):
    """Predictions for the anchors, prototypes of half the canvas, classes of a quarter."""
    random = np.random.RandomState(seed + 100)
    a = len(ANCHORS)
    found = Anchored(
        2 * random.standard_normal((a, CLASSES + 1)),
        random.standard_normal((a, 4)),
        np.tanh(random.standard_normal((a, COUNT))),
    )
    prototypes = np.maximum(random.standard_normal((16, 20, COUNT)), 0)
    return jax.tree.map(jnp.asarray, (found, prototypes, random.standard_normal((8, 10, CLASSES))))


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    sizes = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(sizes) - shared), shared / sizes[0]


def numpy_match(anchors, target, high=0.5, low=0.4, crowd=0.7):
    """The object of each anchor, BACKGROUND or IGNORED: the authors' `match`."""
    real = np.flatnonzero(target.valid & ~target.ignore)
    crowds = np.flatnonzero(target.valid & target.ignore)
    ious = np.array([[overlap(target.boxes[g], anchor)[0] for anchor in anchors] for g in real])
    match = np.full(len(anchors), BACKGROUND)
    if len(real):
        best, which = ious.max(0), real[ious.argmax(0)]
        match = np.where(best < low, BACKGROUND, np.where(best < high, IGNORED, which))
        for _ in real:
            j = ious.max(1).argmax()
            i = ious[j].argmax()
            match[i] = real[j]
            ious[j], ious[:, i] = -1, -1
    for i, anchor in enumerate(anchors):
        if match[i] < 0 and any(overlap(anchor, target.boxes[g])[1] > crowd for g in crowds):
            match[i] = IGNORED
    return match


def resized(plane, shape):
    """Bilinear interpolation of a map, pixel centres on pixel centres."""
    for axis in (0, 1):
        cells = plane.shape[axis]
        at = (np.arange(shape[axis]) + 0.5) * cells / shape[axis] - 0.5
        plane = np.apply_along_axis(lambda line, at=at, cells=cells: np.interp(at, np.arange(cells), line), axis, plane)
    return plane


def cross_entropy(logit, on):
    return np.logaddexp(0, -logit) if on else np.logaddexp(0, logit)


def numpy_losses(found, prototypes, semantic, target):
    """Class, box and semantic loss of one image, the mask loss of each matched anchor with its weight, their number."""
    match = numpy_match(ANCHORS, target)
    positive = np.flatnonzero(match >= 0)
    of_background = -log_softmax(found.logits, 1)[:, 0]
    negative = sorted(np.flatnonzero(match == BACKGROUND), key=lambda i: -of_background[i])[: 3 * len(positive)]
    by_class, by_box, by_mask = sum(of_background[i] for i in negative), 0.0, []
    for i in positive:
        g = match[i]
        weight = target.weight[g]
        by_class += -weight * log_softmax(found.logits[i])[1 + target.labels[g]]
        (x0, y0, x1, y1), (p0, q0, p1, q1) = target.boxes[g], ANCHORS[i]
        wanted = np.array([(x0 + x1 - p0 - p1) / 2 / (p1 - p0) / 0.1, (y0 + y1 - q0 - q1) / 2 / (q1 - q0) / 0.1])
        wanted = np.append(wanted, np.log([(x1 - x0) / (p1 - p0), (y1 - y0) / (q1 - q0)]) / 0.2)
        away = np.abs(found.offsets[i] - wanted)
        by_box += weight * np.where(away < 1, away**2 / 2, away - 0.5).sum()
        small = resized(target.masks[g].astype(float), (16, 20)) > 0.5
        loss = 0.0
        for y, x in itertools.product(range(16), range(20)):
            if y0 / 2 - 1 <= y < y1 / 2 + 1 and x0 / 2 - 1 <= x < x1 / 2 + 1:
                loss += cross_entropy(prototypes[y, x] @ found.coefficients[i], small[y, x])
        by_mask.append(weight * loss / ((x1 - x0) / 2 * (y1 - y0) / 2))
    real = np.flatnonzero(target.valid & ~target.ignore)
    cells = [(target.labels[g], resized(target.masks[g].astype(float), (8, 10)) > 0.5) for g in real]
    by_cell = 0.0
    for y, x, c in np.ndindex(8, 10, CLASSES):
        by_cell += cross_entropy(semantic[y, x, c], any(label == c and small[y, x] for label, small in cells))
    return by_class, 1.5 * by_box, by_cell / 80, 6.125 * np.array(by_mask), len(positive)


def terms_of(seed, key=0, **options):
    count = options.pop("count", 4)
    target = objects(seed, count)
    given = outputs(seed)
    run = jax.jit(
        lambda key: yolact.loss_terms(key, *given, target, anchors=ANCHORS, canvas=CANVAS, training=Training(**options))
    )
    return run(jax.random.key(key)), numpy_losses(*jax.tree.map(np.asarray, (*given, target)))


def test_anchors_are_the_published_squares():
    shapes = [(n, n) for n in (69, 35, 18, 9, 5)]
    sides = [[scale * np.sqrt(ratio) for ratio in (1, 0.5, 2)] for scale in (24, 48, 96, 192, 384)]
    found = yolact.square_anchors(shapes, (550, 550), yolact.SIDES)
    assert len(found) == 19_248
    assert_allclose(found, numpy_anchors(shapes, (550, 550), sides), rtol=0, atol=1e-4)
    assert_allclose(yolact.square_anchors(SHAPES, CANVAS, SIDES), ANCHORS, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="2 maps, and sides of anchors for 3"):
        yolact.square_anchors(SHAPES[:2], CANVAS, SIDES)


R101 = pytest.param(yolact.yolact_resnet101, marks=pytest.mark.slow)


@pytest.mark.parametrize("build", [yolact.yolact_resnet50, R101])
def test_the_published_sizes_have_the_published_maps(build):
    network = build(80, norm=FrozenBatchNorm)
    image = jnp.zeros((1, 550, 550, 3))
    found, _ = jax.eval_shape(lambda: network.init_with_output(jax.random.key(0), image, train=False))
    assert [each.offsets.shape for each in found.maps] == [(1, n, n, 3, 4) for n in (69, 35, 18, 9, 5)]
    assert {each.logits.shape[-1] for each in found.maps} == {81}
    assert {each.coefficients.shape[-1] for each in found.maps} == {32}
    assert found.prototypes.shape == (1, 138, 138, 32)
    assert found.semantic.shape == (1, 69, 69, 80)


def test_matching_equals_the_authors(float64):
    match, seen = jax.jit(yolact.by_best_pairs()), set()
    for seed in range(10):
        target = objects(seed, count=seed % (ROWS + 1))
        found = np.asarray(match(jnp.asarray(ANCHORS), target))
        assert_array_equal(found, numpy_match(ANCHORS, jax.tree.map(np.asarray, target)))
        seen |= set(found)
        assert set(np.flatnonzero(target.valid & ~target.ignore)) <= set(found)
    assert {BACKGROUND, IGNORED, 0, 1, 2} <= seen


def test_a_crowd_spares_what_lies_in_it(float64):
    target = objects(0, count=1)
    boxes = target.boxes.at[0].set(jnp.asarray([0.0, 0.0, 40.0, 32.0]))
    found = jax.jit(yolact.by_best_pairs())(jnp.asarray(ANCHORS), target.replace(boxes=boxes))
    inside = np.array([overlap(anchor, [0, 0, 40, 32])[1] > 0.7 for anchor in ANCHORS])
    assert_array_equal(found, np.where(inside, IGNORED, BACKGROUND))
    assert 0 < inside.sum() < len(inside)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_four_losses_equal_loops(seed, float64):
    terms, (by_class, by_box, by_cell, by_mask, count) = terms_of(seed)
    expected = {"class_loss": by_class, "box_loss": by_box, "mask_loss": by_mask.sum(), "semantic_loss": by_cell}
    assert count >= 3
    for name, value in expected.items():
        assert_allclose(terms.sums[name], value, rtol=1e-9, err_msg=name)
    assert {name: int(each) for name, each in terms.counts.items()} == {
        **dict.fromkeys(("class_loss", "box_loss", "mask_loss"), count),
        "semantic_loss": 1,
    }


def test_some_masks_stand_for_all(float64):
    found = set()
    for key in range(5):
        terms, (*_, by_mask, count) = terms_of(0, key, mask_samples=2)
        pairs = [count / 2 * sum(pair) for pair in itertools.combinations(by_mask, 2)]
        nearest = min(pairs, key=lambda each: abs(each - float(terms.sums["mask_loss"])))
        assert_allclose(terms.sums["mask_loss"], nearest, rtol=1e-9)
        found.add(nearest)
    assert len(found) > 1


def test_without_objects_only_classes_of_pixels_are_learned(float64):
    terms, (*_, by_cell, _, count) = terms_of(0, count=0)
    assert count == 0
    assert {name for name, each in terms.sums.items() if each != 0} == {"semantic_loss"}
    assert_allclose(terms.sums["semantic_loss"], by_cell, rtol=1e-9)


def test_masks_are_shrunk_as_by_interpolation(float64):
    random = np.random.RandomState(0)
    masks = random.random_sample((4, 23, 31)) < 0.5
    for shape in ((8, 10), (23, 31), (5, 40)):
        expected = [resized(mask.astype(float), shape) > 0.5 for mask in masks]
        assert_array_equal(shrunk(jnp.asarray(masks), shape, jnp.float64), expected)


def numpy_detections(logits, offsets, size, selecting):
    """Class, anchor, score and box of each detection, the best first: the authors' `detect`."""
    x, y, w, h = (
        (ANCHORS[:, 0] + ANCHORS[:, 2]) / 2,
        (ANCHORS[:, 1] + ANCHORS[:, 3]) / 2,
        *(ANCHORS[:, 2:] - ANCHORS[:, :2]).T,
    )
    dx, dy, dw, dh = offsets.T * [[0.1], [0.1], [0.2], [0.2]]
    x, y, w, h = x + dx * w, y + dy * h, w * np.exp(dw), h * np.exp(dh)
    boxes = np.clip(np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1), 0, [size[1], size[0]] * 2)
    scores, found = softmax(logits, 1)[:, 1:], []
    seen = (scores.max(1) > selecting.score_threshold) & ((boxes[:, 2:] - boxes[:, :2]).min(1) > 0)
    for c in range(CLASSES):
        order = sorted(np.flatnonzero(seen), key=lambda i, c=c: -scores[i, c])[: selecting.pre_nms_top_k]
        for rank, i in enumerate(order):
            if all(overlap(boxes[i], boxes[j])[0] <= 0.5 for j in order[:rank]):
                found.append((c, i, scores[i, c], boxes[i]))
    return sorted(found, key=lambda each: -each[2])[: selecting.max_detections]


@pytest.mark.parametrize("threshold", [0.05, 0.9])
def test_detections_equal_fast_nms_by_loops(threshold, float64):
    selecting, size = Selecting(threshold, 15, fast(0.5), 25), (30, 37)
    decode = jax.jit(lambda l, o: yolact.decode(l, o, ANCHORS, jnp.int32(size), selecting))
    for seed in range(3):
        found, *_ = outputs(seed)
        ours = decode(found.logits, found.offsets)
        expected = numpy_detections(*map(np.asarray, (found.logits, found.offsets)), size, selecting)
        count = int(ours.valid.sum())
        assert count == len(expected) > 2
        labels, anchors, scores, boxes = (np.array(each) for each in zip(*expected, strict=True))
        assert_array_equal(ours.labels[:count], labels)
        assert_array_equal(ours.index[:count], anchors)
        assert_allclose(ours.scores[:count], scores, rtol=1e-12)
        assert_allclose(ours.boxes[:count], boxes, rtol=1e-12, atol=1e-12)


class Recited(nn.Module):
    """A network whose outputs are these."""

    @nn.compact
    def __call__(self, images, *, train):
        found, prototypes, semantic = outputs(7)
        maps, start = [], 0
        for shape, sides in zip(SHAPES, SIDES, strict=True):
            end = start + shape[0] * shape[1] * len(sides)
            maps.append(Anchored(*(x[start:end].reshape(1, *shape, len(sides), -1) for x in found)))
            start = end
        return Outputs(maps, prototypes[None], semantic[None])


def batch_of(target):
    size, index = jnp.int32([CANVAS]), jnp.zeros(1, jnp.int32)
    image = jnp.zeros((1, *CANVAS, 3))
    return Batch(image, size, size, index, index >= 0, jax.tree.map(lambda x: x[None], target))


def test_predicted_masks_are_cut_enlarged_and_cut_at_a_half(float64):
    task = yolact.yolact(Recited(), sides=SIDES, max_detections=10, dtype=jnp.float64)
    found = jax.device_get(jax.jit(task.predict)({}, batch_of(objects(0))))
    coefficients, prototypes = np.asarray(outputs(7)[0].coefficients), np.asarray(outputs(7)[1])
    assert found.valid.all()
    masks = jax.tree.map(lambda x: x[0], found.masks)
    canvas = Canvas(np.zeros((*CANVAS, 3), np.uint8), CANVAS, (55, 90))
    y, x = np.mgrid[:16, :20]
    for row, pasted in enumerate(paste.run_lengths(masks, range(10), canvas)):
        plane = expit(prototypes @ coefficients[found.index[0, row]])
        x0, y0, x1, y1 = found.boxes[0, row] / 2
        plane[(y < y0 - 1) | (y >= y1 + 1) | (x < x0 - 1) | (x >= x1 + 1)] = 0
        assert_array_equal(runs.decode(pasted), resized(plane, (55, 90)) > 0.5)


@pytest.mark.slow
def test_masks_as_bits_are_the_same(float64):
    task, target = yolact.yolact(Recited(), sides=SIDES, dtype=jnp.float64), objects(1)
    loss = jax.jit(lambda batch: task.loss({}, batch, jax.random.key(0))[0])
    whole = loss(batch_of(target))
    bits = packed(target.masks)
    assert isinstance(bits, PackedMasks)
    assert_allclose(loss(batch_of(target.replace(masks=bits))), whole, rtol=1e-12)


def test_a_target_without_masks_is_refused():
    with pytest.raises(ValueError, match=r"batch\.target\.masks is None"):
        detection.masks(objects(1).replace(masks=None), CANVAS)
