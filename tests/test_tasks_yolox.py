"""YOLOX's losses and detections against loops over cells in NumPy."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from numpy.testing import assert_allclose, assert_array_equal
from test_ops_simota import overlap_of, simota_by_loops

from jaxvision.augment import chain
from jaxvision.ops.nms import greedy
from jaxvision.run.config import load
from jaxvision.tasks import yolox
from jaxvision.tasks.yolo import anchors_of
from jaxvision.types import Batch, Objects

CANVAS, SHAPES, K, ROWS = (64, 96), ((8, 12), (4, 6)), 4, 6
TERMS = ("box_loss", "objectness_loss", "class_loss", "l1_loss")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cross_entropy(logit, target):
    return -target * np.log(sigmoid(logit)) - (1 - target) * np.log(1 - sigmoid(logit))


def places():
    """Column, row and stride of every cell."""
    strides = [CANVAS[0] // rows for rows, _ in SHAPES]
    found = [
        (x, y, s) for (rows, columns), s in zip(SHAPES, strides, strict=True) for y, x in np.ndindex(rows, columns)
    ]
    return np.array(found, float)


def decoded(t, place):
    x, y, stride = place
    centre = np.array([t[0] + x, t[1] + y]) * stride
    half = np.exp(t[2:4]) * stride / 2
    return np.concatenate([centre - half, centre + half])


def losses_by_loops(predicted, boxes, labels, valid, weight):
    place = places()
    found = np.array([decoded(t, own) for t, own in zip(predicted, place, strict=True)])
    probability = np.sqrt(sigmoid(predicted[:, 5:]) * sigmoid(predicted[:, 4:5]))
    centres = (place[:, :2] + 0.5) * place[:, 2:]
    match = simota_by_loops(found, probability, centres, place[:, 2:], boxes, labels, valid)
    terms = np.zeros(4)
    for t, own, box, owner in zip(predicted, place, found, match, strict=True):
        if owner < 0:
            terms[1] += cross_entropy(t[4], 0)
            continue
        mine, share, stride = boxes[owner], overlap_of(box, boxes[owner]), own[2]
        target = share * (np.arange(K) == labels[owner])
        wanted = [*((mine[:2] + mine[2:]) / 2 / stride - own[:2]), *np.log((mine[2:] - mine[:2]) / stride)]
        terms += weight[owner] * np.array(
            [
                5 * (1 - share**2),
                cross_entropy(t[4], 1),
                sum(cross_entropy(t[5 + c], target[c]) for c in range(K)),
                np.abs(t[:4] - wanted).sum(),
            ]
        )
    return terms, match


def make_objects(random, n, ignored):
    corner = random.uniform(0, 50, (ROWS, 2))
    boxes = np.concatenate([corner, np.minimum(corner + random.uniform(6, 45, (ROWS, 2)), [96, 64])], 1)
    valid = np.arange(ROWS) < n + ignored
    ignore = (np.arange(ROWS) >= n) & valid
    labels = random.integers(0, K, ROWS).astype(np.int32)
    return boxes, labels, valid, ignore, random.uniform(0.5, 1.5, ROWS)


def test_the_losses_equal_loops(float64):
    random = np.random.default_rng(1)
    cells = anchors_of(SHAPES, [[(1, 1)]] * 2, CANVAS)
    terms = jax.jit(lambda p, t: (*yolox.loss_terms(p, cells, t), yolox.assigned(p, cells, t)))
    trained = []
    for n, ignored in ((0, 0), (1, 1), (3, 0), (4, 2), (6, 0)):
        boxes, labels, valid, ignore, weight = make_objects(random, n, ignored)
        predicted = random.normal(size=(len(places()), 5 + K)) * np.r_[1, 1, 0.3, 0.3, np.ones(1 + K)]
        predicted[:, 2:4] += 1
        target = Objects(*map(jnp.asarray, (boxes, labels, valid, ignore)), weight=jnp.asarray(weight))
        found, counts, match = terms(jnp.asarray(predicted), target)
        expected, owners = losses_by_loops(predicted, boxes, labels, valid & ~ignore, weight)
        assert_array_equal(match, owners)
        assert_allclose([found[name] for name in TERMS], expected, rtol=1e-7)
        count = (owners >= 0).sum()
        assert counts == dict.fromkeys(TERMS, count)
        trained.append(count)
    assert trained[0] == 0
    assert trained[-1] > 6


def test_cells_that_are_not_trained_may_predict_boxes_of_any_size():
    cells = anchors_of(SHAPES, [[(1, 1)]] * 2, CANVAS)
    boxes, labels, valid, ignore, _ = make_objects(np.random.default_rng(6), 1, 0)
    target = Objects(jnp.float32(boxes), *map(jnp.asarray, (labels, valid, ignore)))

    def total(predicted):
        terms = yolox.loss_terms(predicted, cells, target)
        return jnp.stack(list(terms.sums.values())).sum()

    predicted = np.zeros((len(places()), 5 + K), np.float32)
    predicted[-1, 2:4] = 1000.0
    loss, gradient = jax.jit(jax.value_and_grad(total))(jnp.asarray(predicted))
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    assert_array_equal(gradient[-1, :4], 0)


def test_the_overlap_that_a_class_should_be_has_no_gradient(float64):
    random, cells = np.random.default_rng(1), anchors_of(SHAPES, [[(1, 1)]] * 2, CANVAS)
    target = Objects(*map(jnp.asarray, make_objects(random, 4, 0)[:4]))
    predicted = jnp.asarray(random.normal(size=(len(places()), 5 + K)) * 0.3)
    of_classes = jax.grad(lambda p: yolox.loss_terms(p, cells, target)[0]["class_loss"])
    slopes, trained = jax.jit(lambda p: (of_classes(p), yolox.assigned(p, cells, target) >= 0))(predicted)
    assert_array_equal(slopes[:, :5], 0)
    assert_array_equal(np.any(slopes[:, 5:] != 0, 1), trained)


class Fixed(nn.Module):
    """Outputs that are parameters, whatever the images are."""

    @nn.compact
    def __call__(self, images, *, train):
        shape = lambda rows, columns: (len(images), rows, columns, 5 + K)
        return [self.param(f"map{i}", nn.initializers.zeros, shape(*own)) for i, own in enumerate(SHAPES)]


def make_batch(random, counts):
    made = [make_objects(random, n, 1 if n < ROWS else 0) for n in counts]
    *objects, weight = (jnp.asarray(np.stack(each)) for each in zip(*made, strict=True))
    n = len(counts)
    size, index = jnp.tile(jnp.int32([CANVAS]), (n, 1)), jnp.arange(n, dtype=jnp.int32)
    return Batch(jnp.zeros((n, *CANVAS, 3)), size, size, index, index >= 0, Objects(*objects, weight=weight))


def outputs_of(predicted):
    """All cells in one row, as maps."""
    first = SHAPES[0][0] * SHAPES[0][1]
    maps = (predicted[:, :first], predicted[:, first:])
    shaped = [x.reshape(len(x), *own, -1) for x, own in zip(maps, SHAPES, strict=True)]
    return {"params": {f"map{i}": jnp.asarray(x) for i, x in enumerate(shaped)}}


def test_a_batch_is_divided_by_the_cells_trained_in_all_of_it_and_l1_counts_when_told(float64):
    random = np.random.default_rng(2)
    batch = make_batch(random, (4, 1, 0, 6))
    batch = batch.replace(valid=batch.valid.at[3].set(False))
    predicted = random.normal(size=(4, len(places()), 5 + K))
    sums, counts = [], []
    for i in range(3):
        target = jax.tree.map(lambda x, i=i: np.asarray(x[i]), batch.target)
        real = target.valid & ~target.ignore
        terms, match = losses_by_loops(predicted[i], target.boxes, target.labels, real, target.weight)
        sums.append(terms)
        counts.append((match >= 0).sum())
    task = yolox.yolox(Fixed())
    loss = jax.jit(lambda batch: task.loss(outputs_of(predicted), batch, jax.random.key(0)))
    for l1 in (None, [1.0, 1.0, 1.0, 1.0], [0.0, 0.5, 1.0, 1.0]):
        factor = np.ones((3, 4))
        factor[:, 3] = np.zeros(3) if l1 is None else l1[:3]
        given = None if l1 is None else {"l1": jnp.asarray(l1)}
        total, out = loss(batch.replace(given=given))
        expected = factor * np.array(sums)
        assert_allclose([out.metrics[name] for name in TERMS], expected.sum(0) / sum(counts), rtol=1e-7)
        assert_allclose(total, expected.sum() / sum(counts), rtol=1e-7)
        assert_allclose(out.example_loss, [*(expected.sum(1) / np.maximum(counts, 1)), 0], rtol=1e-7)


def detected_by_loops(predicted, size, threshold, overlap):
    """Each cell's best class, from the best score down; boxes are cut to the content at the end."""
    scores = sigmoid(predicted[:, 4:5]) * sigmoid(predicted[:, 5:])
    boxes = np.array([decoded(t, own) for t, own in zip(predicted, places(), strict=True)])
    kept = []
    for i in np.argsort(-scores.max(1), kind="stable"):
        label, inside = scores[i].argmax(), np.clip(boxes[i], 0, [size[1], size[0]] * 2)
        if scores[i].max() <= threshold or (inside[2:] <= inside[:2]).any():
            continue
        if all(other != label or overlap_of(boxes[i], boxes[j]) <= overlap for j, other, *_ in kept):
            kept.append((i, label, scores[i].max(), inside))
    return kept


def test_predictions_equal_loops(float64):
    random = np.random.default_rng(3)
    predicted = random.normal(size=(2, len(places()), 5 + K))
    predicted[..., 2:4] = 2 + 0.3 * predicted[..., 2:4]  # large boxes, of which many overlap
    predicted[..., 5:] *= 3
    batch = make_batch(random, (1, 2))
    batch = batch.replace(size=jnp.int32([[64, 96], [40, 50]]))
    task = yolox.yolox(Fixed(), score_threshold=0.2, nms=greedy(0.5), max_detections=120)
    found = jax.device_get(jax.jit(task.predict)(outputs_of(predicted), batch))
    for i in range(2):
        kept = detected_by_loops(predicted[i], np.asarray(batch.size[i]), 0.2, 0.5)
        _, labels, scores, boxes = zip(*kept, strict=True)
        n = found.valid[i].sum()
        assert n == len(kept)
        assert_array_equal(found.labels[i][:n], labels)
        assert_allclose(found.scores[i][:n], scores, rtol=1e-9)
        assert_allclose(found.boxes[i][:n], boxes, rtol=1e-9, atol=1e-9)
    candidates = (sigmoid(predicted[0, :, 4]) * sigmoid(predicted[0, :, 5:]).max(1) > 0.2).sum()
    assert 10 < len(detected_by_loops(predicted[0], CANVAS, 0.2, 0.5)) < candidates - 10


def test_the_network_sees_plain_pixels_and_grey_around_them():
    seen = []

    class Spy(Fixed):
        def __call__(self, images, *, train):
            seen.append(images)
            return Fixed.__call__(self, images, train=train)

    image = np.random.default_rng(5).integers(0, 256, (1, *CANVAS, 3)).astype(np.uint8)
    batch = make_batch(np.random.default_rng(4), (1,))
    batch = batch.replace(image=jnp.asarray(image), size=jnp.int32([[40, 50]]))
    yolox.yolox(Spy()).init(jax.random.key(0), batch)
    expected = np.full(image.shape, 114.0)
    expected[:, :40, :50] = image[:, :40, :50]
    assert_array_equal(seen[0], expected)


def test_the_recipe_closes():
    """Of experiments/coco_yolox.py: what is done until the closing epochs, what from then on, and the rate."""
    recipe = load(Path(__file__).parent.parent / "experiments" / "coco_yolox.py")
    batch = make_batch(np.random.default_rng(7), (1, 2))
    brighter = lambda key, step, batch: batch.replace(image=batch.image + 1)
    both = jax.jit(chain(recipe.until(6, brighter), recipe.closing(6)))
    for step, level, l1 in ((5, 1, 0), (6, 0, 1), (7, 0, 1)):
        found = both(jax.random.key(0), jnp.int32(step), batch)
        assert_array_equal(found.image, np.full(batch.image.shape, level))
        assert_array_equal(found.given["l1"], [l1, l1])

    schedule = recipe.yolox_schedule(0.01, 5, 25)
    for step in range(30):
        turn = np.pi * (min(step, 25) - 5) / 20
        cosine = 0.0005 + (0.01 - 0.0005) * (1 + np.cos(turn)) / 2
        assert_allclose(schedule(step), 0.01 * (step / 5) ** 2 if step < 5 else cosine, rtol=1e-5)
