"""The figures of a detector, against pycocotools and loops written from the definitions."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detection_cases import ground_truth, pycoco, random_rows

from jaxvision.metrics import coco_ap
from jaxvision.metrics.coco_results import write_coco_results
from jaxvision.metrics.detection import detection, observe
from jaxvision.metrics.matching import best_score, confusion_matrix, image_costs, pairs
from jaxvision.metrics.tables import tables
from jaxvision.types import Batch, Detections, Labels, Objects

COCO = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
COCO += ("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")
CLASSES = 4


def kinds(seed):
    """Equal scores in every second case, boxes on a grid (so overlaps that equal a threshold) in every third."""
    return {"ties": seed % 2 == 0, "grid": seed % 3 == 0}


@pytest.mark.parametrize("seed", range(40))
def test_the_twelve_figures_and_the_ap_of_classes_equal_pycocotools(seed):
    rows = random_rows(seed, **kinds(seed))
    figures, expected = detection(CLASSES, errors=False).compute(rows), pycoco(rows, CLASSES)
    stats = np.where(expected.stats == -1, np.nan, expected.stats)
    np.testing.assert_allclose([figures[name] for name in COCO], stats, rtol=0, atol=1e-9)
    for k in range(CLASSES):
        precision = expected.eval["precision"][:, :, k, 0, 2]
        known = precision[precision > -1]
        np.testing.assert_allclose(figures[f"AP/{k}"], known.mean() if known.size else np.nan, rtol=0, atol=1e-9)
    assert all(type(value) is float for value in figures.values())


def test_the_cases_have_what_makes_a_difference():
    every = [random_rows(seed, **kinds(seed)) for seed in range(40)]
    assert any((rows["detected"].sum(1) > 100).any() for rows in every)
    assert any(not rows["detected"][i].any() and rows["annotated"][i].any() for rows in every for i in range(6))
    assert any(rows["detected"][i].any() and not rows["annotated"][i].any() for rows in every for i in range(6))
    assert any(len(np.unique(rows["true_labels"][rows["annotated"]])) < CLASSES for rows in every)
    assert any((rows["ignore"] & rows["annotated"]).any() for rows in every)
    without = [detection(CLASSES).compute({**rows, "ignore": np.zeros_like(rows["ignore"])})["AP"] for rows in every]
    assert sum(a != detection(CLASSES).compute(rows)["AP"] for a, rows in zip(without, every, strict=True)) > 10


def test_nothing_found_and_nothing_there():
    rows = random_rows(3)
    nothing = np.zeros_like(rows["detected"])
    figures = detection(CLASSES, voc=True).compute({**rows, "detected": nothing})
    assert figures["AP"] == figures["AR100"] == figures["AP_voc12"] == figures["precision"] == figures["f1"] == 0
    figures = detection(CLASSES, voc=True).compute({**rows, "annotated": np.zeros_like(rows["annotated"])})
    assert np.isnan([figures[name] for name in (*COCO, "AP_voc07", "AP/0")]).all()
    assert figures["precision"] == figures["recall"] == figures["dAP_missed"] == 0
    neither = {**rows, "detected": nothing, "annotated": np.zeros_like(rows["annotated"])}
    assert np.isnan(detection(CLASSES).compute(neither)["AP"])


def test_a_perfect_detector():
    rows = random_rows(5, crowds=0)
    keys = {"boxes": "true_boxes", "labels": "true_labels", "detected": "annotated"}
    rows |= {ours: rows[theirs] for ours, theirs in keys.items()} | {"scores": np.ones((6, 10), np.float32)}
    figures = detection(CLASSES, voc=True).compute(rows)
    ones = ("AP", "AP50", "AP75", "AR100", "precision", "recall", "f1", "AP_voc07", "AP_voc12")
    assert [figures[name] for name in ones] == pytest.approx([1] * len(ones))
    assert all(value == 0 for name, value in figures.items() if name.startswith("dAP"))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("score", [0.0, 0.5])
def test_precision_and_recall_at_a_threshold_are_counted_from_pycocotools_matches(seed, score):
    rows = random_rows(seed, **kinds(seed))
    rows["detected"][:, 100:] = False  # pycocotools looks at no more of a class
    figures = detection(CLASSES, score=score).compute(rows)
    right = wrong = objects = 0
    for cell in pycoco(rows, CLASSES).evalImgs:
        if cell is not None and cell["aRng"] == [0, 1e10]:
            counts = (np.asarray(cell["dtScores"]) >= score) & ~cell["dtIgnore"][0]
            right += (counts & (cell["dtMatches"][0] > 0)).sum()
            wrong += (counts & (cell["dtMatches"][0] == 0)).sum()
            objects += (cell["gtIgnore"] == 0).sum()
    assert figures["precision"] == pytest.approx(right / max(right + wrong, 1))
    assert figures["recall"] == pytest.approx(right / max(objects, 1))
    assert figures["f1"] == pytest.approx(2 * right / max(right + wrong + objects, 1))


def test_the_best_score_has_the_largest_f1():
    for seed in range(6):
        rows = random_rows(seed, ties=seed % 2 == 0)
        if not rows["detected"].any():
            continue
        found = tables(rows, CLASSES)
        best = best_score(found, pairs(found))
        f1 = {s: detection(CLASSES, score=s).compute(rows)["f1"] for s in np.unique(found.detected.score).tolist()}
        assert f1[best] == max(f1.values())
        assert best == max(s for s, value in f1.items() if value == f1[best])
    nothing = tables({**rows, "detected": np.zeros_like(rows["detected"])}, CLASSES)
    assert best_score(nothing, pairs(nothing)) == 1


def test_an_overlap_of_a_half_is_enough():
    box = np.array([[[0, 0, 10, 10]]], np.float32)
    one, zero = np.ones((1, 1)), np.zeros((1, 1), int)
    rows = {"boxes": box / [1, 1, 1, 2], "labels": zero, "scores": one, "detected": one > 0}
    rows |= {"true_boxes": box, "true_labels": zero, "annotated": one > 0, "ignore": one > 1, "area": 100 * one}
    figures = detection(1, voc=True).compute(rows)
    assert [figures[name] for name in ("AP50", "recall", "AP_voc07", "AP_voc12")] == pytest.approx([1] * 4)
    assert figures["AP75"] == 0
    assert confusion_matrix(rows, 1, score=1.0).tolist() == [[1, 0], [0, 0]]
    below = detection(1, voc=True).compute({**rows, "boxes": box / [1, 1, 1, 2.01]})
    assert [below[name] for name in ("AP50", "recall", "AP_voc07", "AP_voc12")] == [0] * 4


def iou(a, b):
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union else 0.0


def covered(a, b):
    area = (a[2] - a[0]) * (a[3] - a[1])
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return shared / area if area else 0.0


def ranked(rows, i):
    """The detections of an image, the best first."""
    there = np.flatnonzero(rows["detected"][i])
    return there[np.argsort(-rows["scores"][i, there], kind="stable")]


def confusion_by_hand(rows, k, score):
    counts = np.zeros((k + 1, k + 1), int)
    boxes, true = rows["boxes"].astype(float), rows["true_boxes"].astype(float)
    for i in range(len(boxes)):
        there = np.flatnonzero(rows["annotated"][i])
        free = [j for j in there if not rows["ignore"][i, j]]
        for d in ranked(rows, i):
            if rows["scores"][i, d] < score:
                continue
            label = rows["labels"][i, d]
            near = [(iou(boxes[i, d], true[i, j]), rows["true_labels"][i, j] == label, j) for j in free]
            near = [each for each in near if each[0] >= 0.5]
            if near:
                *_, j = max(near)
                counts[rows["true_labels"][i, j], label] += 1
                free.remove(j)
            elif not any(
                rows["ignore"][i, j] and rows["true_labels"][i, j] == label and covered(boxes[i, d], true[i, j]) >= 0.5
                for j in there
            ):
                counts[k, label] += 1
        for j in free:
            counts[rows["true_labels"][i, j], k] += 1
    return counts


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("score", [0.0, 0.5])
def test_confusions_equal_a_loop(seed, score):
    rows = random_rows(seed, ties=seed % 2 == 0)
    counts = confusion_matrix(rows, CLASSES, score=score)
    np.testing.assert_array_equal(counts, confusion_by_hand(rows, CLASSES, score))
    assert counts[:CLASSES].sum() == (rows["annotated"] & ~rows["ignore"]).sum()


def voc_by_hand(rows, k, label):
    """VOCevaldet and VOCap of the development kit, line by line; nan without objects."""
    boxes, true = rows["boxes"].astype(float), rows["true_boxes"].astype(float)
    kind = rows["annotated"] & (rows["true_labels"] == label)
    objects = (kind & ~rows["ignore"]).sum()
    own = [(i, d) for i in range(len(boxes)) for d in ranked(rows, i) if rows["labels"][i, d] == label]
    own.sort(key=lambda each: -rows["scores"][each])
    taken, hits, false = set(), [], []
    for i, d in own:
        best, nearest = -np.inf, None
        for j in np.flatnonzero(kind[i]):
            overlap = iou(boxes[i, d], true[i, j])
            if overlap > best:
                best, nearest = overlap, (i, j)
        hit = wrong = 0
        if best >= 0.5:
            if not rows["ignore"][nearest]:
                hit, wrong = (1, 0) if nearest not in taken else (0, 1)
                taken.add(nearest)
        else:
            wrong = 1
        hits.append(hit)
        false.append(wrong)
    if not objects:
        return np.nan, np.nan
    recall = [sum(hits[: n + 1]) / objects for n in range(len(hits))]
    ruled = [sum(hits[: n + 1]) + sum(false[: n + 1]) for n in range(len(hits))]
    precision = [sum(hits[: n + 1]) / max(ruled[n], 1) for n in range(len(hits))]
    points = [max([p for r, p in zip(recall, precision, strict=True) if r >= t / 10], default=0) for t in range(11)]
    mrec, mpre = [0, *recall, 1], [0, *precision, 0]
    for n in range(len(mpre) - 2, -1, -1):
        mpre[n] = max(mpre[n], mpre[n + 1])
    area = sum((mrec[n] - mrec[n - 1]) * mpre[n] for n in range(1, len(mrec)))
    return sum(points) / 11, area


@pytest.mark.parametrize("seed", range(16))
def test_voc_ap_equals_the_development_kit(seed):
    rows = random_rows(seed, **kinds(seed))
    figures = detection(CLASSES, voc=True).compute(rows)
    each = np.array([voc_by_hand(rows, CLASSES, label) for label in range(CLASSES)])
    for column, name in enumerate(("AP_voc07", "AP_voc12")):
        np.testing.assert_allclose([figures[f"{name}/{k}"] for k in range(CLASSES)], each[:, column], atol=1e-12)
        np.testing.assert_allclose(figures[name], np.nanmean(each[:, column]), atol=1e-12)


def test_the_cost_of_an_image():
    box = np.array([[10, 10, 20, 20], [30, 30, 40, 40], [60, 60, 70, 70]], np.float32)
    rows = {
        "boxes": box[None],
        "labels": np.zeros((1, 3), int),
        "scores": np.array([[0.9, 0.4, 0.3]]),
        "detected": np.ones((1, 3), bool),
        "true_boxes": np.stack([box[0], box[0] + 100, box[1]])[None],
        "true_labels": np.zeros((1, 3), int),
        "annotated": np.ones((1, 3), bool),
        "ignore": np.array([[False, False, True]]),
        "area": np.full((1, 3), 100.0),
    }
    found = tables(rows, 1)
    assert image_costs(found, pairs(found)) == pytest.approx([(1 - 0.9) + 1 + 0.3])


def test_many_pairs_are_taken_in_parts(monkeypatch):
    found = tables(random_rows(2), CLASSES)
    whole = pairs(found)
    monkeypatch.setattr("jaxvision.metrics.matching.PAIRS_AT_ONCE", 17)
    for one, other in zip(whole, pairs(found), strict=True):
        np.testing.assert_array_equal(one, other)


def make_batch(target, size=((50, 100), (100, 100)), original=((100, 400), (50, 100))):
    b = len(size)
    arrays = [jnp.asarray(each, jnp.int32) for each in (size, original, range(b))]
    return Batch(jnp.zeros((b, 100, 100, 3), jnp.uint8), *arrays, jnp.ones(b, bool), target)


def one_each(dtype=jnp.float32):
    box = jnp.asarray([[[10, 20, 30, 40]], [[10, 20, 30, 40]]], dtype)
    label, valid = jnp.zeros((2, 1), jnp.int32), jnp.ones((2, 1), bool)
    target = Objects(box, label, valid, ~valid)
    return Detections(box, label, jnp.full((2, 1), 0.5, dtype), valid), target


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float64])
def test_rows_are_in_pixels_of_the_file(dtype):
    with jax.enable_x64(dtype == jnp.float64), jax.numpy_dtype_promotion("strict"):
        found, target = one_each(dtype)
        rows = jax.jit(observe)(found, make_batch(target))
        plain = observe(found, make_batch(target))
        given = observe(found, make_batch(target.replace(area=jnp.full((2, 1), 7, jnp.float32))))
    expected = [[[40, 40, 120, 80]], [[10, 10, 30, 20]]]
    for name in ("boxes", "true_boxes"):
        np.testing.assert_array_equal(rows[name], expected)
        np.testing.assert_array_equal(plain[name], expected)
        assert rows[name].dtype == (jnp.float64 if dtype == jnp.float64 else jnp.float32)
    np.testing.assert_array_equal(rows["area"], [[80 * 40], [20 * 10]])
    np.testing.assert_array_equal(given["area"], [[7], [7]])
    figures = detection(1).compute({name: np.asarray(column) for name, column in rows.items()})
    assert figures["AP"] == pytest.approx(1)


def test_figures_of_few_classes_by_name():
    rows = random_rows(1)
    names = ("a", "b", "a", "c")
    figures = detection(names).compute(rows)
    assert {name for name in figures if "/" in name} == {"AP/a (0)", "AP/b", "AP/a (2)", "AP/c"}
    assert not [name for name in detection(names, per_class=False).compute(rows) if "/" in name]
    assert not [name for name in detection(21).compute(rows) if "/" in name]
    assert sum("/" in name for name in detection(21, per_class=True, voc=True).compute(rows)) == 63
    assert not [name for name in detection(4, errors=False).compute(rows) if name.startswith("dAP")]


def test_twice_the_same_bits():
    rows = random_rows(7, ties=True)
    first = detection(CLASSES, voc=True).compute(rows)
    assert all(str(detection(CLASSES, voc=True).compute(rows)) == str(first) for _ in range(5))


def test_errors_name_what_was_given():
    metric, rows = detection(CLASSES), random_rows(1)
    with pytest.raises(ValueError, match="rows are empty"):
        metric.compute({name: column[:0] for name, column in rows.items()})
    i, j = np.argwhere(rows["detected"])[0]
    broken = rows["boxes"].copy()
    broken[i, j, 2] = np.nan
    with pytest.raises(ValueError, match=f"index {i} has a detection with a box, score or area that is not finite"):
        metric.compute({**rows, "boxes": broken})
    i, j = np.argwhere(rows["annotated"])[0]
    labels = rows["true_labels"].copy()
    labels[i, j] = 4
    with pytest.raises(ValueError, match=f"index {i} has an object with a label that is none of 0 to 3: label 4"):
        metric.compute({**rows, "true_labels": labels})
    with pytest.raises(ValueError, match="classes=0"):
        detection(0)
    found, target = one_each()
    with pytest.raises(TypeError, match="to be Objects, got Labels"):
        observe(found, make_batch(Labels(jnp.zeros(2, jnp.int32))))
    with pytest.raises(TypeError, match="to be Detections, got Objects"):
        observe(target, make_batch(target))


def test_results_load_in_pycocotools_and_give_the_same_figures(tmp_path):
    rows = random_rows(4)
    rows = {name: column[:5] for name, column in rows.items()}
    rows["index"] = np.array([0, 1, 3, 4, 6])
    image_ids, category_ids = [100, 42, 7, 9, 77, 5, 8], [1, 90, 3, 17]
    path = tmp_path / "results.json"
    write_coco_results(path, rows, image_ids, category_ids)
    assert list(tmp_path.iterdir()) == [path]
    data = ground_truth(rows, CLASSES)
    for image in data.dataset["images"]:
        image["id"] = image_ids[rows["index"][image["id"] - 1]]
    for category in data.dataset["categories"]:
        category["id"] = category_ids[category["id"] - 1]
    for each in data.dataset["annotations"]:
        each["image_id"] = image_ids[rows["index"][each["image_id"] - 1]]
        each["category_id"] = category_ids[each["category_id"] - 1]
    from pycocotools.cocoeval import COCOeval

    data.createIndex()
    evaluation = COCOeval(data, data.loadRes(str(path)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    figures = detection(CLASSES).compute(rows)
    np.testing.assert_allclose(
        [figures[name] for name in COCO], np.where(evaluation.stats < 0, np.nan, evaluation.stats)
    )

    write_coco_results(path, {**rows, "detected": np.zeros_like(rows["detected"])}, image_ids, category_ids)
    assert json.loads(path.read_text()) == []
    with pytest.raises(ValueError, match="examples go from 0 to 6, but there are 3 ids"):
        write_coco_results(path, rows, image_ids[:3], category_ids)
    with pytest.raises(ValueError, match="labels go from 0 to 3, but there are 2 ids"):
        write_coco_results(path, rows, image_ids, category_ids[:2])
    assert json.loads(path.read_text()) == []


def test_a_class_has_a_curve_that_falls():
    curves = coco_ap.curves(tables(random_rows(2), CLASSES))
    assert curves.precision.shape == (10, 101, CLASSES, 4, 3)
    assert curves.recall.shape == (10, CLASSES, 4, 3)
    assert (np.diff(curves.precision[0, :, 0, 0, 2]) <= 0).all()
