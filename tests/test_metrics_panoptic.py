"""Panoptic quality, against panopticapi's evaluation of one image, written from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.masks.panoptic import VOID, PanopticMap, Segment
from jaxvision.metrics.panoptic import TrueMap, panoptic, qualities, quality
from jaxvision.types import Batch, BoxMasks, Detections, MapMasks, Objects

CLASSES, THINGS = 5, (True, True, True, False, False)


def patches(rng, size, most):
    """A map of patches that numbers from 1 are given to, and void."""
    numbers = rng.integers(0, most + 1, (size // 4, size // 4))
    ids = np.kron(numbers, np.ones((4, 4), int))
    names = np.unique(ids[ids > 0])
    return np.searchsorted(np.append(0, names), ids), len(names)


def random_image(seed):
    """A predicted and a true map: patches of which most are shared, void, a crowd of a class at most, maybe nothing."""
    rng = np.random.default_rng(seed)
    true, count = patches(rng, 24, rng.integers(0, 6))
    labels = rng.integers(0, CLASSES - seed % 2, count)
    crowd = np.zeros(count, bool)
    for label in np.unique(labels):
        group = np.flatnonzero(labels == label)
        crowd[group[0]] = rng.random() < 0.3 and THINGS[label]
    ids, found = (true.copy(), count) if rng.random() < 0.7 else patches(rng, 24, 5)
    noise = rng.random(ids.shape) < rng.choice([0, 0.2, 0.4])
    ids[noise] = rng.integers(0, found + 1, noise.sum())
    names = np.unique(ids[ids > 0])
    ids = np.searchsorted(np.append(0, names), ids)
    guess = np.append(labels, rng.integers(0, CLASSES, 9))[names - 1]
    guess = np.where(rng.random(len(names)) < 0.8, guess, rng.integers(0, CLASSES, len(names)))
    segments = [Segment(i + 1, int(label), 0.9, int((ids == i + 1).sum())) for i, label in enumerate(guess)]
    return PanopticMap(ids.astype(np.int32), segments), TrueMap(true.astype(np.int32), labels, crowd)


def of_panopticapi(found, true):
    """IoU, true positives, false positives and false negatives of each category (`pq_compute_single_core`)."""
    stat = {category: [0.0, 0, 0, 0] for category in range(CLASSES)}
    offset = 256**3
    gt_segms = {
        i + 1: {"category_id": int(k), "iscrowd": int(c), "area": int((true.ids == i + 1).sum())}
        for i, (k, c) in enumerate(zip(true.labels, true.crowd, strict=True))
    }
    pred_segms = {each.id: {"category_id": each.label, "area": each.area} for each in found.segments}
    both = true.ids.astype(np.uint64) * offset + found.ids.astype(np.uint64)
    gt_pred_map = {}
    for pair, intersection in zip(*np.unique(both, return_counts=True), strict=True):
        gt_pred_map[int(pair) // offset, int(pair) % offset] = int(intersection)
    gt_matched, pred_matched = set(), set()
    for (gt_label, pred_label), intersection in gt_pred_map.items():
        if gt_label not in gt_segms or pred_label not in pred_segms:
            continue
        if gt_segms[gt_label]["iscrowd"] == 1:
            continue
        if gt_segms[gt_label]["category_id"] != pred_segms[pred_label]["category_id"]:
            continue
        union = pred_segms[pred_label]["area"] + gt_segms[gt_label]["area"] - intersection
        union -= gt_pred_map.get((VOID, pred_label), 0)
        iou = intersection / union
        if iou > 0.5:
            stat[gt_segms[gt_label]["category_id"]][0] += iou
            stat[gt_segms[gt_label]["category_id"]][1] += 1
            gt_matched.add(gt_label)
            pred_matched.add(pred_label)
    crowds = {}
    for gt_label, gt_info in gt_segms.items():
        if gt_label in gt_matched:
            continue
        if gt_info["iscrowd"] == 1:
            crowds[gt_info["category_id"]] = gt_label
            continue
        stat[gt_info["category_id"]][3] += 1
    for pred_label, pred_info in pred_segms.items():
        if pred_label in pred_matched:
            continue
        intersection = gt_pred_map.get((VOID, pred_label), 0)
        if pred_info["category_id"] in crowds:
            intersection += gt_pred_map.get((crowds[pred_info["category_id"]], pred_label), 0)
        if intersection / pred_info["area"] > 0.5:
            continue
        stat[pred_info["category_id"]][2] += 1
    return np.array([stat[category] for category in range(CLASSES)])


def averages(stat, among):
    """`pq_average` over these categories."""
    each = []
    for category in among:
        iou, tp, fp, fn = stat[category]
        if tp + fp + fn:
            whole = tp + 0.5 * fp + 0.5 * fn
            each.append((iou / whole, iou / tp if tp else 0, tp / whole))
    return np.mean(each, 0) if each else [np.nan] * 3


def test_figures_equal_panopticapi():
    metric, images = panoptic(CLASSES, THINGS), [random_image(seed) for seed in range(50)]
    for first in range(0, 50, 5):
        group = images[first : first + 5]
        found = [quality(*image, CLASSES) for image in group]
        expected = np.array([of_panopticapi(*image) for image in group])
        np.testing.assert_allclose([iou for iou, _ in found], expected[..., 0], rtol=0, atol=1e-12)
        np.testing.assert_array_equal([counts for _, counts in found], expected[..., 1:])
        iou, counts = zip(*found, strict=True)
        figures = metric.compute({"iou": np.stack(iou), "counts": np.stack(counts)})
        total = expected.sum(0)
        for group_name, among in (("", range(CLASSES)), ("_things", range(3)), ("_stuff", (3, 4))):
            of_group = [figures[f"{q}{group_name}"] for q in ("PQ", "SQ", "RQ")]
            np.testing.assert_allclose(of_group, averages(total, among), rtol=0, atol=1e-9)
        for k in range(CLASSES):
            np.testing.assert_allclose(figures[f"PQ/{k}"], averages(total, [k])[0], rtol=0, atol=1e-9)


def test_the_cases_have_what_makes_a_difference():
    images = [random_image(seed) for seed in range(50)]
    assert sum(true.crowd.any() for _, true in images) > 10
    assert any(not len(true.labels) for _, true in images)
    assert any(not found.segments for found, _ in images)
    counts = sum(quality(*image, CLASSES)[1] for image in images)
    assert (counts.sum(0) > 20).all()


def test_what_lies_in_void_or_in_a_crowd_of_its_class_is_no_false_positive():
    ids = np.zeros((10, 10), np.int32)
    ids[:, :4], true_ids = 1, np.zeros((10, 10), np.int32)
    true_ids[:, 4:] = 1
    found = PanopticMap(ids, [Segment(1, 0, 0.9, 40)])
    true = lambda ids, label, crowd: TrueMap(ids, np.array([label]), np.array([crowd]))
    assert quality(found, true(true_ids, 0, False), 2)[1].tolist() == [[0, 0, 1], [0, 0, 0]]
    crowd = np.zeros((10, 10), np.int32)
    crowd[:, :5] = 1
    assert quality(found, true(crowd, 0, True), 2)[1].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert quality(found, true(crowd, 1, True), 2)[1].tolist() == [[0, 1, 0], [0, 0, 0]]


def test_a_class_without_segments_is_nan_and_left_out():
    of = qualities(np.array([0.8, 0, 0]), np.array([[1, 0, 1], [0, 2, 0], [0, 0, 0]]))
    np.testing.assert_allclose(of["PQ"], [0.8 / 1.5, 0, np.nan])
    np.testing.assert_allclose(of["SQ"], [0.8, 0, np.nan])
    np.testing.assert_allclose(of["RQ"], [1 / 1.5, 0, np.nan])
    nothing = panoptic(2, (True, False)).compute({"iou": np.zeros((1, 2)), "counts": np.zeros((1, 2, 3), int)})
    assert np.isnan(list(nothing.values())).all()


def scene():
    """Two things and stuff on a canvas whose content is 12 x 16 pixels, an image file of twice that; and their masks."""
    masks = np.zeros((3, 16, 16), bool)
    masks[0, 2:8, 1:7], masks[1, 4:10, 9:15] = True, True
    masks[2, :12] = ~masks[:2, :12].any(0)
    labels = np.array([[0, 0, 3]], np.int32)
    logits = np.where(masks, 4.0, -4.0)[None].astype(np.float32)
    found = Detections(
        np.zeros((1, 3, 4), np.float32),
        labels,
        np.array([[0.95, 0.9, 0.99]], np.float32),
        np.ones((1, 3), bool),
        MapMasks(jnp.asarray(logits), (16, 16)),
    )
    target = Objects(
        np.zeros((1, 3, 4), np.float32), labels, np.ones((1, 3), bool), np.zeros((1, 3), bool), masks[None]
    )
    sizes = (np.array([[12, 16]], np.int32), np.array([[24, 32]], np.int32))
    image = np.zeros((1, 16, 16, 3), np.uint8)
    return found, Batch(image, *sizes, np.zeros(1, np.int32), np.ones(1, bool), target)


def rows_of(metric, found, batch):
    rows = jax.device_get(jax.jit(metric.observe)(found, batch))
    return metric.condense({**rows, "index": np.asarray(batch.index)})


def test_maps_are_merged_and_compared_in_the_file():
    metric = panoptic(CLASSES, THINGS)
    found, batch = scene()
    figures = metric.compute(rows_of(metric, found, batch))
    assert figures["RQ"] == figures["RQ_things"] == figures["RQ_stuff"] == 1
    assert figures["SQ"] > 0.95
    low = found.replace(scores=found.scores - 0.12)
    rows = rows_of(metric, low, batch)
    assert rows["counts"][0, [0, 3]].tolist() == [[0, 0, 2], [1, 0, 0]]
    assert rows_of(panoptic(CLASSES, THINGS, threshold=0.5), low, batch)["counts"][0, 0].tolist() == [2, 0, 0]


def test_other_predictions_targets_and_labels_are_refused():
    metric = panoptic(CLASSES, THINGS)
    found, batch = scene()
    boxes = BoxMasks(jnp.zeros((1, 3, 28, 28)), jnp.zeros((1, 3, 4)))
    with pytest.raises(TypeError, match="Detections with MapMasks, got Detections with masks BoxMasks"):
        metric.observe(found.replace(masks=boxes), batch)
    with pytest.raises(TypeError, match="needs targets to be Objects with masks, got Objects"):
        metric.observe(found, batch.replace(target=batch.target.replace(masks=None)))
    with pytest.raises(ValueError, match="panoptic has 5 classes, but says of 2 whether they are things"):
        panoptic(CLASSES, (True, False))
    wrong = batch.target.replace(labels=batch.target.labels + 2)
    with pytest.raises(ValueError, match="the ground truth has labels from 2 to 5; allowed are 0 to 4"):
        rows_of(metric, found, batch.replace(target=wrong))
