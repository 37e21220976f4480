"""U^2-NetP's published weights on photographs and shapes, against ONNX Runtime: python -m pytest -m "network and parity".

Needs `onnxruntime`, which is in the extra `parity`.
"""

import functools

import jax
import numpy as np
import pytest
from PIL import Image

from jaxvision import run
from jaxvision.data import samples, synthetic
from jaxvision.masks import runs
from jaxvision.pretrained import published_task, segmenters
from jaxvision.run import prediction

network = pytest.mark.network
PHOTOS = ("astronaut", "chelsea", "coffee", "grace_hopper", "rocket")
SIDE = 320


@functools.cache
def model():
    return run.load("u2netp")


def batch_of(images):
    """Images on the canvas of the model."""
    canvases = [model().preprocessing(image) for image in images]
    return prediction.batch_of(canvases, prediction.with_rows(model().spec, len(canvases)), 0)


def photos():
    return [(samples.photos_dir() / f"{name}.jpg").read_bytes() for name in PHOTOS]


@network
@pytest.mark.parity
def test_masks_are_those_of_onnx_runtime(capsys):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(segmenters.U2NETP.file()), providers=["CPUExecutionProvider"])
    batch = batch_of(photos())
    logits = np.asarray(model().apply(batch).logits)
    found = 1 / (1 + np.exp(-np.diff(logits, axis=-1)[..., 0]))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    errors = []
    for image, ours in zip(batch.image, found, strict=True):
        given = ((image / image.max() - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
        expected = session.run(None, {session.get_inputs()[0].name: given})[0][0, 0]
        errors.append(np.abs(ours - expected).max())
    with capsys.disabled():
        print(
            "\nlargest differences of a probability: "
            + ", ".join(f"{n} {e:.1e}" for n, e in zip(PHOTOS, errors, strict=True))
        )
    assert max(errors) < 1e-4
    assert min(each.max() for each in found) > 0.9


@network
def test_it_finds_what_stands_out():
    """Rough boxes of what a person would cut out: most of the mask lies there, and it fills a part."""
    boxes = {"astronaut": (0.0, 0.0, 1.0, 1.0), "coffee": (0.15, 0.05, 0.95, 0.95)}
    chosen = [(samples.photos_dir() / f"{name}.jpg").read_bytes() for name in boxes]
    logits = np.asarray(model().apply(batch_of(chosen)).logits)
    for mask, (x0, y0, x1, y1) in zip(logits.argmax(-1) == 1, boxes.values(), strict=True):
        inside = mask[int(y0 * SIDE) : int(y1 * SIDE), int(x0 * SIDE) : int(x1 * SIDE)]
        assert inside.sum() > 0.95 * mask.sum()
        assert 0.1 < mask.mean() < 0.8


@network
def test_predict_gives_the_mask_at_the_size_of_the_file():
    (record,) = model().predict([samples.photos_dir() / "coffee.jpg"])
    found = {each["name"]: runs.decode(runs.of_coco(each["segmentation"])) for each in record["classes"]}
    with Image.open(samples.photos_dir() / "coffee.jpg") as image:
        assert found["object"].shape == (record["height"], record["width"]) == image.size[::-1]
    assert (found["object"] ^ found["background"]).all()
    assert 0.1 < found["object"].mean() < 0.8


def cut_out(image, box):
    """The mask, of the whole image, of what stands out in a box of it, seen with a quarter of its sides around it."""
    x0, y0, x1, y1 = np.asarray(box).astype(int)
    across, down = round((x1 - x0) / 4), round((y1 - y0) / 4)
    left, top = max(x0 - across, 0), max(y0 - down, 0)
    seen = np.ascontiguousarray(image[top : y1 + down, left : x1 + across])
    logits = np.asarray(model().apply(batch_of([seen])).logits)[0]
    probability = (1 / (1 + np.exp(-np.diff(logits, axis=-1)[..., 0]))).astype(np.float32)
    resized = np.asarray(Image.fromarray(probability).resize(seen.shape[1::-1], Image.Resampling.BILINEAR)) > 0.5
    mask = np.zeros(image.shape[:2], bool)
    mask[y0:y1, x0:x1] = resized[y0 - top : y1 - top, x0 - left : x1 - left]
    return mask


def iou(one, other):
    return np.count_nonzero(one & other) / max(np.count_nonzero(one | other), 1)


@network
@pytest.mark.slow
def test_inside_the_boxes_of_shapes_it_finds_their_masks(capsys):
    found, alone = [], []
    for example in synthetic.shapes(20, seed=0).read(np.arange(20)):
        for box, mask in zip(example.objects.boxes, example.objects.masks, strict=True):
            x0, y0, x1, y1 = np.asarray(box).astype(int)
            found.append(iou(cut_out(example.image, box), mask))
            alone.append(mask.sum() / ((y1 - y0) * (x1 - x0)))
    with capsys.disabled():
        print(f"\n{len(found)} shapes: mean IoU {np.mean(found):.3f}, of the boxes alone {np.mean(alone):.3f}")
    assert np.mean(found) >= 0.9


@network
def test_a_task_of_ones_own_starts_from_them(capsys):
    task = segmenters.U2NETP.task()
    spec = jax.eval_shape(task.init, jax.random.key(0), published_task.blank(64))
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), spec)
    filled = published_task.start_from(segmenters.U2NETP)(fresh)
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(filled))
    assert "238 loaded, 1,125,485 numbers" in capsys.readouterr().out


def test_it_has_two_classes():
    with pytest.raises(ValueError, match="it has 2 classes, not 3"):
        segmenters.U2NETP.task(3)
