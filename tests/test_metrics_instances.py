"""The figures of instance segmentation, against pycocotools; masks on their way from the network to the file."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instance_cases import CLASSES, pycoco, random_case
from test_metrics_detection import COCO

from jaxvision.masks import packing, runs
from jaxvision.metrics.coco_results import write_coco_results
from jaxvision.metrics.detection import detection
from jaxvision.metrics.instances import instances, mask_pairs, masks_of
from jaxvision.metrics.matching import matches
from jaxvision.metrics.tables import completed, tables
from jaxvision.types import Batch, BoxMasks, CutMasks, Detections, MapMasks, Objects, PackedMasks

MASK_COCO = [f"mask_{name}" for name in COCO]


@pytest.mark.parametrize("seed", range(50))
def test_figures_of_masks_equal_pycocotools_and_those_of_boxes_the_metric_of_detection(seed):
    rows, masks, true = random_case(seed)
    figures, expected = instances(CLASSES, errors=False).compute(rows), pycoco(rows, masks, true)
    stats = np.where(expected.stats == -1, np.nan, expected.stats)
    np.testing.assert_allclose([figures[name] for name in MASK_COCO], stats, rtol=0, atol=1e-9)
    for k in range(CLASSES):
        precision = expected.eval["precision"][:, :, k, 0, 2]
        known = precision[precision > -1]
        np.testing.assert_allclose(figures[f"mask_AP/{k}"], known.mean() if known.size else np.nan, rtol=0, atol=1e-9)
    boxes = detection(CLASSES, errors=False).compute(completed(rows))
    assert {name: value for name, value in figures.items() if not name.startswith("mask_")} == pytest.approx(
        boxes, nan_ok=True
    )


def test_the_cases_have_what_makes_a_difference():
    every = [random_case(seed) for seed in range(50)]
    assert any(rows["detected"].sum(1).max() > 100 for rows, _, _ in every)
    assert any(not found and true for _, masks, _ in every for found, true in masks)
    assert any(found and not true for _, masks, _ in every for found, true in masks)
    assert any(table[:, 5].any() for _, _, tables in every for table in tables)
    areas = [table[:, 6] for _, _, tables in every for table in tables]
    assert min((np.concatenate(areas) < 32**2).mean(), (np.concatenate(areas) > 96**2).mean()) > 0.05


def test_matches_of_masks_are_those_of_pycocotools():
    for seed in range(8):
        rows, masks, true = random_case(seed)
        found = tables(rows, CLASSES)
        match = matches(found, mask_pairs(found, masks_of(rows, found)))
        hits = sum(
            int((cell["dtMatches"][0] > 0).sum())
            for cell in pycoco(rows, masks, true).evalImgs
            if cell is not None and cell["aRng"] == [0, 1e10]
        )
        assert (match >= 0).sum() == hits or rows["detected"].sum(1).max() > 100


def scene(count=3, canvas=(64, 80), content=(48, 80), file=(60, 100)):
    """Ellipses in an image file, and the same on the canvas where it is smaller by 0.8."""
    rng = np.random.default_rng(1)
    middle, radius = rng.uniform(20, 40, (count, 2)) * [1, 2], rng.uniform(8, 16, (count, 2))

    def masks(size, scale):
        rows, columns = (np.mgrid[: size[0], : size[1]] + 0.5) / scale
        far = ((rows - middle[:, :1, None]) / radius[:, :1, None]) ** 2
        return far + ((columns - middle[:, 1:, None]) / radius[:, 1:, None]) ** 2 < 1

    in_file, on_canvas = masks(file, 1.0), np.zeros((count, *canvas), bool)
    on_canvas[:, : content[0], : content[1]] = masks(content, 0.8)
    return in_file, on_canvas, content, file


def around(masks):
    return np.array([runs.box(runs.encode(mask)) for mask in masks], np.float32)


def batch_of(on_canvas, content, file, form):
    count, rows = len(on_canvas), len(on_canvas) + 2
    padded = lambda x: np.concatenate([x, np.zeros((2, *x.shape[1:]), x.dtype)])[None]
    canvas = padded(on_canvas)
    valid = padded(np.ones(count, bool))
    masks = {
        "canvas": lambda: jnp.asarray(canvas),
        "bits": lambda: PackedMasks(np.packbits(canvas, axis=-1), canvas.shape[-1]),
        "cut": lambda: cut(canvas[0]),
    }[form]()
    labels = np.zeros((1, rows), np.int32)
    target = Objects(padded(around(on_canvas)), labels, valid, np.zeros((1, rows), bool), masks)
    size, whole = (np.array([x], np.int32) for x in (content, file))
    image = np.zeros((1, *canvas.shape[2:], 3), np.uint8)
    return Batch(image, size, whole, np.array([7], np.int32), np.ones(1, bool), target)


def cut(masks, cells=64):
    """Masks cut out at their boxes, the second mirrored along x."""
    frames = around(masks)
    bits = []
    for mask, (x0, y0, x1, y1) in zip(masks, frames, strict=True):
        at = (np.arange(cells) + 0.5) / cells
        rows, columns = ((low + at * (high - low)).astype(int) for low, high in ((y0, y1), (x0, x1)))
        bits.append(mask[np.minimum(rows, len(mask) - 1)][:, np.minimum(columns, len(mask[0]) - 1)])
    bits, frames = np.array(bits), frames.copy()
    bits[1], frames[1] = bits[1, :, ::-1], frames[1, [2, 1, 0, 3]]
    return CutMasks(np.packbits(bits, axis=-1)[None], frames[None])


def detections_of(on_canvas):
    """The masks of the canvas as logits of half its size, one more row that is not valid before them."""
    count = len(on_canvas)
    half = on_canvas.reshape(count, on_canvas.shape[1] // 2, 2, on_canvas.shape[2] // 2, 2).mean((2, 4)) * 8 - 4
    logits = np.concatenate([half[:1] * 0, half])[None].astype(np.float32)
    boxes = np.concatenate([np.zeros((1, 4), np.float32), around(on_canvas)])[None]
    scores = np.linspace(1, 0.5, count + 1, dtype=np.float32)[None]
    valid = np.arange(count + 1)[None] > 0
    masks = MapMasks(jnp.asarray(logits), on_canvas.shape[1:])
    return Detections(boxes, np.zeros((1, count + 1), np.int32), scores, valid, masks)


def rows_of(metric, found, batch):
    rows = jax.device_get(jax.jit(metric.observe)(found, batch))
    return metric.condense({**rows, "index": np.asarray(batch.index)})


def ious(packed, size, masks):
    return np.diag(runs.iou(packing.unpack(packed, size), [runs.encode(mask) for mask in masks], [False] * len(masks)))


@pytest.mark.parametrize(("form", "least"), [("canvas", 0.95), ("bits", 0.95), ("cut", 0.93)])
def test_masks_of_the_target_and_of_the_prediction_are_put_back_to_the_file(form, least):
    in_file, on_canvas, content, file = scene()
    metric = instances(("thing",))
    rows = rows_of(metric, detections_of(on_canvas), batch_of(on_canvas, content, file, form))
    assert ious(rows["true_masks"][0], file, in_file).min() > least
    assert ious(rows["masks"][0], file, in_file).min() > 0.93
    figures = metric.compute(rows)
    assert figures["mask_AP50"] == figures["AP"] == 1
    assert figures["mask_AP"] > 0.9
    area = np.frombuffer(rows["true_objects"][0], np.float64).reshape(-1, 7)[:, 6]
    np.testing.assert_allclose(area, [runs.area(mask) for mask in packing.unpack(rows["true_masks"][0], file)])


def source_of(masks, index=7):
    """A source whose example of this index has these masks, every other one as run lengths."""
    listed = [runs.encode(mask) if i % 2 else mask for i, mask in enumerate(masks)]
    area = masks.sum((1, 2)).astype(np.float32)
    objects = SimpleNamespace(
        boxes=around(masks), labels=np.zeros(len(masks), int), ignore=area < 0, area=area, masks=listed
    )

    def read(indices):
        assert indices.tolist() == [index]
        return [SimpleNamespace(objects=objects)]

    return SimpleNamespace(read=read)


def test_the_truth_of_a_source_is_exact_whatever_the_batch_has():
    in_file, on_canvas, content, file = scene(4)
    opened = []
    metric = instances(("thing",), lambda: opened.append(1) or source_of(in_file))
    batch = batch_of(on_canvas[:1], content, file, "canvas")
    batch = batch.replace(target=batch.target.replace(masks=None))
    for _ in range(2):
        rows = rows_of(metric, detections_of(on_canvas), batch)
    assert opened == [1]
    for mask, packed in zip(in_file, packing.unpack(rows["true_masks"][0], file), strict=True):
        np.testing.assert_array_equal(runs.decode(packed), mask)
    np.testing.assert_array_equal(completed(rows)["true_boxes"][0], around(in_file))
    assert metric.compute(rows)["mask_AP50"] == 1


def test_a_source_of_other_images_or_without_masks_is_told():
    in_file, on_canvas, content, file = scene()
    batch = batch_of(on_canvas, content, file, "bits")
    transposed = instances(1, lambda: source_of(in_file.transpose(0, 2, 1)))
    message = (
        "index 7 has a mask of 100 x 60 pixels .* its image has 60 x 100: is the source given as truth that of the"
    )
    with pytest.raises(ValueError, match=message):
        rows_of(transposed, detections_of(on_canvas), batch)
    none = SimpleNamespace(read=lambda indices: [SimpleNamespace(objects=None)])
    with pytest.raises(ValueError, match="the example with index 7 of the source given as truth has no masks"):
        rows_of(instances(1, lambda: none), detections_of(on_canvas), batch)


def test_predictions_and_targets_without_masks_are_told():
    _, on_canvas, content, file = scene()
    found, batch = detections_of(on_canvas), batch_of(on_canvas, content, file, "canvas")
    metric = instances(1)
    with pytest.raises(TypeError, match="needs detections with masks; these have none"):
        metric.observe(found.replace(masks=None), batch)
    with pytest.raises(
        TypeError, match=r"needs targets with masks, such as those of target.objects\(rows, masks='bits'\)"
    ):
        metric.observe(found, batch.replace(target=batch.target.replace(masks=None)))


def test_masks_in_boxes_and_an_image_without_any_object():
    _, on_canvas, content, file = scene()
    batch = batch_of(on_canvas, content, file, "bits")
    nothing = batch.target.replace(valid=np.zeros_like(batch.target.valid))
    found = detections_of(on_canvas)
    masks = BoxMasks(jnp.ones((1, 4, 28, 28)), jnp.asarray(found.boxes))
    metric = instances(("thing",))
    rows = rows_of(metric, found.replace(masks=masks), batch.replace(target=nothing))
    assert rows["true_masks"].tolist() == rows["true_objects"].tolist() == [b""]
    areas = [runs.area(mask) for mask in packing.unpack(rows["masks"][0], file)]
    boxes = rows["boxes"][0, 1:]
    np.testing.assert_allclose(areas, (boxes[:, 2:] - boxes[:, :2]).prod(1), rtol=0.1)
    assert np.isnan(metric.compute(rows)["mask_AP"])
    none = rows_of(metric, found.replace(masks=masks, valid=np.zeros_like(found.valid)), batch)
    assert none["masks"].tolist() == [b""]
    assert metric.compute(none)["mask_AP"] == metric.compute(none)["AP"] == 0


def test_results_for_coco_have_run_lengths_and_no_boxes(tmp_path):
    rows, masks, _ = random_case(3)
    write_coco_results(tmp_path / "results.json", rows, range(10, 14), range(1, CLASSES + 1))
    found = json.loads((tmp_path / "results.json").read_text())
    assert len(found) == rows["detected"].sum()
    for i, (detected, _) in enumerate(masks):
        of_image = [each for each in found if each["image_id"] == 10 + i]
        order = np.argsort(-rows["scores"][i, rows["detected"][i]], kind="stable")
        for each, j in zip(of_image, order, strict=True):
            assert set(each) == {"image_id", "category_id", "segmentation", "score"}
            np.testing.assert_array_equal(runs.decode(runs.of_coco(each["segmentation"])), detected[j])


def test_rows_are_computed_under_strict_promotion():
    _, on_canvas, content, file = scene()
    with jax.numpy_dtype_promotion("strict"):
        rows = jax.eval_shape(
            instances(1).observe, detections_of(on_canvas), batch_of(on_canvas, content, file, "canvas")
        )
    assert rows["true_masks"].bits.dtype == np.uint8
