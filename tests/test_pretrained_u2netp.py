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
        print("\nlargest differences of a probability: " + ", ".join(f"{n} {e:.1e}" for n, e in zip(PHOTOS, errors, strict=True)))
    assert max(errors) < 1e-4
    assert min(each.max() for each in found) > 0.9


@network
def test_it_finds_what_stands_out():
    """Of five photographs, rough boxes of what a person would cut out: most of the mask lies there, and it fills a part."""
    boxes = {"astronaut": (0.1, 0.0, 0.9, 1.0), "chelsea": (0.1, 0.0, 1.0, 1.0), "coffee": (0.15, 0.05, 0.95, 0.95)}
    logits = np.asarray(model().apply(batch_of(photos()[:3])).logits)
    for mask, (x0, y0, x1, y1) in zip(logits.argmax(-1) == 1, boxes.values(), strict=True):
        inside = mask[int(y0 * SIDE) : int(y1 * SIDE), int(x0 * SIDE) : int(x1 * SIDE)]
        assert inside.sum() > 0.95 * mask.sum()
        assert 0.1 < mask.mean() < 0.8


def cut_out(image, box):
    """The mask, of the whole image, of what stands out in a box of it."""
    x0, y0, x1, y1 = np.asarray(box).astype(int)
    logits = np.asarray(model().apply(batch_of([np.ascontiguousarray(image[y0:y1, x0:x1])])).logits)[0]
    probability = (1 / (1 + np.exp(-np.diff(logits, axis=-1)[..., 0]))).astype(np.float32)
    mask = np.zeros(image.shape[:2], bool)
    mask[y0:y1, x0:x1] = np.asarray(Image.fromarray(probability).resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR)) > 0.5
    return mask


def iou(one, other):
    return np.count_nonzero(one & other) / max(np.count_nonzero(one | other), 1)


@network
@pytest.mark.slow
def test_inside_the_boxes_of_shapes_it_finds_their_masks(capsys):
    found, alone = [], []
    for example in synthetic.shapes(40, seed=0).read(np.arange(40)):
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
    assert "224 loaded" in capsys.readouterr().out


def test_it_has_two_classes():
    with pytest.raises(ValueError, match="it has 2 classes, not 3"):
        segmenters.U2NETP.task(3)
