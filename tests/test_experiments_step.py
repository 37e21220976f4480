"""One experiment of every task and family of networks takes real steps on a small canvas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiment_files import SAME, build, files

from jaxvision import experiment
from jaxvision.types import Batch, ClassScores, Labels, Objects, PixelScores, SegmentationMap

SMALL = {
    "imagenet_resnet50": {"image_size": "64", "batch_size": "4", "width": "16", "warmup_epochs": "0"},
    "cifar10_resnet18": {"batch_size": "4", "width": "16"},
    "fashion_mnist_cnn": {"batch_size": "4"},
    "fashion_mnist_rnn": {"batch_size": "4", "hidden": "16"},
    "imagenet_mobilenet_v2": {"image_size": "64", "batch_size": "4"},
    "imagenet_squeezenet": {"image_size": "64", "batch_size": "4"},
    "imagenet_vit_small": {"image_size": "32", "batch_size": "4", "warmup_epochs": "0"},
    "coco_ssd300": {"batch_size": "1"},
    "shapes_ssd": {"batch_size": "2", "width": "8"},
    "shapes_retinanet": {"batch_size": "2", "width": "8", "retinanet.channels": "16"},
    "shapes_yolox": {"batch_size": "2", "width": "4"},
    "shapes_fast_rcnn": {"batch_size": "2", "width": "8", "fast_rcnn.proposals": "20"},
    "shapes_rcnn": {"batch_size": "2", "width": "8", "rcnn.proposals": "20"},
    "shapes_mask_rcnn": {"batch_size": "2", "width": "8", "mask_rcnn.channels": "16"},
    "shapes_segmentation": {"batch_size": "2", "width": "4"},
    "shapes_detr_segmentation": {"batch_size": "2", "width": "8"},
    "nuclei_unet": {"batch_size": "2", "width": "4"},
}
ELSEWHERE = {
    *("shapes_yolo", "shapes_faster_rcnn", "shapes_detr", "shapes_yolact"),
    *("detect_ssd", "trees_faster_rcnn", "quickstart", "imagenet_inception_v3", "imagenet_vgg16"),
    "shapes_attributes",
}
"""Trained by other tests: `test_learning_detectors.py`, `test_experiment_detect.py`, `test_quickstart.py`,
`test_nn_inception.py`, `test_nn_vgg.py`, `test_annotate_learned.py`."""


def random_batch(spec: Batch, classes: int) -> Batch:
    rng = np.random.default_rng(0)
    count, height, width, _ = spec.image.shape
    size = np.full((count, 2), (height, width), np.int32)
    image = rng.integers(0, 256, spec.image.shape, dtype=np.uint8)
    target = Labels(rng.integers(0, classes, count).astype(np.int32))

    def objects(like: Objects) -> Objects:
        shape = like.labels.shape
        corner = rng.uniform(0, min(height, width) / 2, (*shape, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(4, min(height, width) / 2, corner.shape)], -1)
        valid = np.broadcast_to(np.arange(shape[1]) < 3, shape)
        area = None if like.area is None else np.zeros(shape, np.float32)
        masks = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), like.masks)
        return Objects(boxes.astype(np.float32), np.zeros(shape, np.int32), valid, ~valid, masks, area=area)

    if isinstance(spec.target, SegmentationMap):
        label = rng.integers(0, classes, (count, height, width)).astype(np.int32)
        target = SegmentationMap(label, np.ones(label.shape, bool))
    target = objects(spec.target) if isinstance(spec.target, Objects) else target
    given = None if spec.given is None else objects(spec.given)
    return Batch(image, size, size, np.arange(count, dtype=np.int32), np.ones(count, bool), target, given)


def moved(after, before) -> float:
    """The fraction of the arrays that differ."""
    pairs = zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True)
    return float(np.mean([not np.array_equal(a, b) for a, b in pairs]))


@pytest.mark.slow
@pytest.mark.parametrize("path", [each for each in files() if each.id not in SAME | ELSEWHERE])
def test_one_real_step_on_a_small_canvas(path, folder_of_classes):
    chosen = build(path, SMALL.get(path.stem, {}), folder_of_classes)
    state = experiment.first_state_of(chosen, start=False)
    foreseen = jax.eval_shape(chosen.task.predict, state.averaged, chosen.train.spec)
    classes = foreseen.logits.shape[-1] if isinstance(foreseen, ClassScores | PixelScores) else 1
    batch = random_batch(chosen.train.spec, classes)
    step = jax.jit(experiment.train_step_of(chosen))
    after, metrics = step(state, batch)
    assert int(after.step) == 1
    assert np.isfinite(float(metrics["loss"]))
    assert float(metrics["gradient_norm"]) > 0
    steps = 1
    while moved(after.params, state.params) <= 0.8:  # tiny rates move some float32 numbers by less than their last bit
        assert steps < 4  # a warm-up begins with a rate of 0; scales that start at zero hold back what is before them
        after, _ = step(after, batch)
        steps += 1
    found = jax.jit(chosen.task.predict)(after.averaged, batch)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
