"""The figures of semantic segmenters, against loops written from the definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from segmentation_cases import CLASSES, figures, predicted, random_case

from jaxvision.metrics import boundaries
from jaxvision.metrics.segmentation import predicted_map, segmentation
from jaxvision.ops.class_map import class_map
from jaxvision.types import Batch, ClassScores, Labels, PixelScores, SegmentationMap


def batch_of(logits, label, valid, size):
    n = len(logits)
    target = SegmentationMap(label.astype(np.int32), valid)
    image = np.zeros((*label.shape, 3), np.uint8)
    size = size.astype(np.int32)
    return PixelScores(logits), Batch(image, size, size, np.arange(n, dtype=np.int32), np.ones(n, bool), target)


def rows_of(metric, scores, batch):
    rows = jax.device_get(jax.jit(metric.observe)(scores, batch))
    return metric.condense({**rows, "index": np.asarray(batch.index)})


@pytest.fixture(scope="module")
def metric():
    return segmentation(CLASSES, boundary=True)


@pytest.mark.parametrize("seed", range(50))
def test_all_figures_equal_loops_over_pixels(seed, metric, float64):
    logits, label, valid, size = random_case(seed)
    found = metric.compute(rows_of(metric, *batch_of(logits, label, valid, size)))
    expected = figures(predicted(logits, label.shape[1:]), label, valid, size)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-9, err_msg=name)


def test_the_cases_have_what_makes_a_difference():
    every = [random_case(seed) for seed in range(50)]
    assert any(not valid[i].any() for _, _, valid, _ in every for i in range(2))
    assert any((label[~valid] == 255).any() for _, label, valid, _ in every)
    absent = [set(range(CLASSES)) - set(label[valid].tolist()) for _, label, valid, _ in every]
    assert sum(map(bool, absent)) > 10


def test_contours_and_bands_of_an_image_of_more_pixels(float64):
    _, label, valid, size = random_case(12, 1, (90, 115))
    size[:] = 90, 110
    label = np.minimum(label, CLASSES - 1)
    other = np.roll(label, 1, -1)
    other[:, 40:60, 40:70] = (other[:, 40:60, 40:70] + 1) % CLASSES
    found = figures(other, label, valid, size)
    counts = boundaries.of_maps(np.where(valid, label, CLASSES)[0, :, :110], other[0, :, :110], CLASSES)
    for k, each in enumerate(zip(boundaries.f1(counts[0][None]), boundaries.iou(counts[1][None]), strict=True)):
        expected = [found[f"boundary_F1/{k}"], found[f"boundary_IoU/{k}"]]
        np.testing.assert_allclose(each, expected, rtol=0, atol=1e-9)
    assert 0 < found["boundary_F1"] < 1


def disc(height=120, width=160, y=60, x=80, radius=35):
    rows, columns = np.mgrid[:height, :width]
    return ((rows - y) ** 2 + (columns - x) ** 2 <= radius**2).astype(int)


def test_boundary_figures_of_a_map_that_is_right_shifted_or_of_another_size():
    f1 = lambda *maps: boundaries.f1(boundaries.of_maps(*maps, 2)[0][None])
    iou = lambda *maps: boundaries.iou(boundaries.of_maps(*maps, 2)[1][None])
    assert f1(disc(), disc()).tolist() == iou(disc(), disc()).tolist() == [1, 1]
    assert (f1(disc(), disc(x=81)) == 1).all()  # a pixel is below 0.75 % of the diagonal of 200
    assert (f1(disc(), disc(x=86)) < 0.7).all()
    small, large = (iou(disc(radius=r), disc(radius=r + 2))[1] for r in (20, 50))
    assert abs(small - large) < 0.05  # what Boundary IoU is for: the same slip costs the same whatever the size
    assert f1(disc(), 0 * disc()).tolist() == [0, 0]


def test_the_border_of_the_image_is_in_the_band_and_no_contour():
    contour, band = boundaries.of_maps(np.zeros((40, 30), int), np.zeros((40, 30), int), 2)
    assert not contour.any()
    assert band.tolist() == [[136, 136, 136], [0, 0, 0]]
    assert np.isnan(boundaries.f1(contour[None])).all()


def test_void_pixels_and_padding_count_nowhere(metric):
    logits, label, valid, size = random_case(1)
    before = metric.compute(rows_of(metric, *batch_of(logits, label, valid, size)))
    rng = np.random.default_rng(0)
    other = np.where(valid, label, rng.integers(0, CLASSES, label.shape))
    canvas = label.shape[1:]
    map = np.eye(CLASSES)[predicted(logits, canvas)]
    noisy = np.where(valid[..., None], map, rng.normal(size=map.shape))
    after = metric.compute(rows_of(metric, *batch_of(noisy, other, valid, size)))
    assert before == pytest.approx(after, abs=1e-12, nan_ok=True)


def test_nothing_valid_is_nan_and_one_class_is_one(metric):
    logits, label, valid, size = random_case(2)
    found = metric.compute(rows_of(metric, *batch_of(logits, label, np.zeros_like(valid), size)))
    assert np.isnan(list(found.values())).all()
    one = segmentation(("all",), boundary=True)
    found = one.compute(rows_of(one, *batch_of(logits[..., :1], 0 * label, valid, size)))
    assert found["mIoU"] == found["IoU/all"] == found["Dice"] == found["pixel_accuracy"] == found["boundary_IoU"] == 1
    assert np.isnan(found["boundary_F1"])


def test_the_kept_map_is_that_of_the_content_and_at_most_512_pixels(metric):
    logits, label, valid, size = random_case(3)
    rows = rows_of(metric, *batch_of(logits, label, valid, size))
    for row, map, (height, width) in zip(rows["predicted"], predicted(logits, label.shape[1:]), size, strict=True):
        assert isinstance(row, bytes)
        np.testing.assert_array_equal(predicted_map(row), map[:height, :width])
    plain = segmentation(300)
    tall = np.zeros((1, 1200, 2, 300), np.float32)
    tall[0, 600:, :, 299] = 1
    nothing = np.zeros((1, 1200, 2), int)
    rows = rows_of(plain, *batch_of(tall, nothing, nothing == 0, np.array([[1100, 2]])))
    assert "band" not in rows
    kept = predicted_map(rows["predicted"][0])
    assert kept.shape == (367, 1)
    assert kept[:200].max() == 0
    assert kept[200:].min() == 299


def test_class_maps_do_not_depend_on_the_type_of_the_scores_and_equal_ones_go_to_the_first_class():
    logits = jnp.asarray(np.random.default_rng(0).integers(-2, 3, (5, 7, 3)), jnp.float32)
    np.testing.assert_array_equal(class_map(logits, (5, 7)), np.asarray(logits).argmax(-1))
    enlarged = jax.jit(lambda logits: class_map(logits, (11, 20)))
    np.testing.assert_array_equal(enlarged(logits.astype(jnp.bfloat16)), enlarged(logits))
    assert enlarged(0 * logits).max() == 0


def test_a_label_that_is_no_class_is_told_with_its_example(metric):
    logits, label, valid, size = random_case(4)
    label[1][np.flatnonzero(valid[1].any(1))[0], np.flatnonzero(valid[1].any(0))[0]] = 9
    valid[1] |= label[1] == 9
    with pytest.raises(
        ValueError, match="the example with index 1 has 1 pixel with a label that is no class; with 5 classes"
    ):
        metric.compute(rows_of(metric, *batch_of(logits, label, valid, size)))
    with pytest.raises(ValueError, match="the rows are empty"):
        metric.compute({"confusion": np.zeros((0, 5, 5), int), "unknown": np.zeros(0, int)})


def test_other_predictions_and_targets_are_refused(metric):
    scores, batch = batch_of(*random_case(0))
    with pytest.raises(TypeError, match="needs predictions to be PixelScores, got ClassScores"):
        metric.observe(ClassScores(scores.logits), batch)
    with pytest.raises(TypeError, match=r"needs batch.target to be SegmentationMap, got Labels"):
        metric.observe(scores, batch.replace(target=Labels(np.zeros(2, np.int32))))
    with pytest.raises(ValueError, match="made for 5 classes, the logits have 4"):
        metric.observe(PixelScores(scores.logits[..., :4]), batch)


def test_names_of_figures():
    named = segmentation(("cat", "dog"))
    rows = {"confusion": np.array([[[3, 1], [0, 0]]]), "unknown": np.zeros(1, int)}
    found = named.compute(rows)
    assert found == {
        "pixel_accuracy": 0.75,
        "mIoU": 0.375,
        "Dice": 3 / 7,
        "IoU/cat": 0.75,
        "IoU/dog": 0,
        "Dice/cat": 6 / 7,
        "Dice/dog": 0,
    }
    assert named.classes == ("cat", "dog")
    assert set(segmentation(("cat", "dog"), per_class=False).compute(rows)) == {"pixel_accuracy", "mIoU", "Dice"}


def test_rows_are_computed_under_strict_promotion():
    metric = segmentation(CLASSES, boundary=True)
    scores, batch = batch_of(*random_case(0))
    with jax.numpy_dtype_promotion("strict"):
        rows = jax.eval_shape(metric.observe, scores.replace(logits=scores.logits.astype(np.float32)), batch)
    assert rows["confusion"].dtype == rows["unknown"].dtype == np.int32
