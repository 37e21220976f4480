"""Every experiment file builds and its train step has the right shapes; in `slow`, it takes a real step on a small canvas."""

from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvision import experiment, parallel
from jaxvision.evaluate import make_observe
from jaxvision.types import Batch, ClassScores, Labels, Objects

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "experiments").glob("*.py")) + sorted((ROOT / "experiments" / "finetune").glob("*.py"))
SMALL = {
    "imagenet_resnet50": {"image_size": "64", "batch_size": "4", "width": "16", "warmup_epochs": "0"},
    "cifar10_resnet18": {"batch_size": "4", "width": "16"},
    "cifar100_resnet18": {"batch_size": "4", "width": "16"},
    "fashion_mnist_resnet18": {"batch_size": "4", "width": "16"},
    "folder": {"image_size": "64", "batch_size": "4", "width": "16"},
    "folder_cnn": {"image_size": "64", "batch_size": "4", "hidden": "16"},
    "fashion_mnist_cnn": {"batch_size": "4"},
    "fashion_mnist_rnn": {"batch_size": "4", "hidden": "16"},
    "imagenet_vgg16": {"image_size": "32", "batch_size": "2"},
    "imagenet_mobilenet_v2": {"image_size": "64", "batch_size": "4"},
    "imagenet_squeezenet": {"image_size": "64", "batch_size": "4"},
    "imagenet_inception_v3": {"image_size": "75", "batch_size": "2", "auxiliary": "0.0"},
    "imagenet_efficientnet_lite0": {"image_size": "64", "batch_size": "4", "warmup_epochs": "0"},
    "imagenet_vit_small": {"image_size": "32", "batch_size": "4", "warmup_epochs": "0"},
    "resnet50_folder": {"image_size": "64", "batch_size": "4", "width": "16"},
    "vgg16_folder": {"image_size": "32", "batch_size": "2"},
    "inception_folder": {"image_size": "75", "batch_size": "2"},
    "efficientnet_lite0_fashion": {"batch_size": "4"},
    "efficientnet_lite0_trees": {"batch_size": "4"},
    "shapes_ssd": {"batch_size": "2", "width": "8"},
    "shapes_yolo": {"batch_size": "2", "width": "4"},
    "trees_ssd": {"batch_size": "2", "size": "96"},
    "trees_yolo": {"batch_size": "2", "size": "64"},
    "coco_ssd300": {"batch_size": "1"},
    "coco_yolov3": {"batch_size": "1", "size": "64"},
}
DEEP = {
    *("imagenet_inception_v3", "imagenet_efficientnet_lite0", "imagenet_mobilenet_v2", "imagenet_vit_small"),
    *("coco_ssd300", "coco_yolov3", "voc_ssd300", "trees_ssd", "trees_yolo"),
    *("inception_folder", "efficientnet_lite0_fashion", "efficientnet_lite0_trees", "resnet50_folder", "vgg16_folder"),
}
"""Tracing these takes long."""
ALIKE = {
    "imagenet_vgg16",
    "imagenet_squeezenet",
    "folder_cnn",
    "fashion_mnist_cnn",
    "optimizers",
    "imbalanced_fashion_mnist",
    "shapes_yolo",
}
"""Plain convolutions, as others have them, too."""
SAME = ("voc_ssd300",)
"""But for the classes the same step as another file's."""


def files(slow=()):
    return [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in slow)) for path in FILES]


@pytest.fixture(scope="module")
def folder_of_classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    for name in ("a", "b", "c"):
        (folder / name).mkdir()
        for i in range(5):
            Image.new("RGB", (20, 30), (50 * i, 0, 0)).save(folder / name / f"{i}.png")
    return folder


def build(path, overrides, folder):
    module = experiment.load(path)
    config = module.get_config()
    if "train_dir" in config:
        overrides = {**overrides, "train_dir": str(folder)}
    config = experiment.configure(config, overrides)
    parallel.resolve_precision(config)
    assert experiment.as_json(config)
    return module.build(config)


def random_batch(spec: Batch, classes: int) -> Batch:
    rng = np.random.default_rng(0)
    count, height, width, _ = spec.image.shape
    size = np.full((count, 2), (height, width), np.int32)
    image = rng.integers(0, 256, spec.image.shape, dtype=np.uint8)
    target = Labels(rng.integers(0, classes, count).astype(np.int32))
    if isinstance(spec.target, Objects):
        shape = spec.target.labels.shape
        corner = rng.uniform(0, min(height, width) / 2, (*shape, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(4, min(height, width) / 2, corner.shape)], -1)
        valid = np.broadcast_to(np.arange(shape[1]) < 3, shape)
        labels, area = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        target = Objects(boxes.astype(np.float32), labels, valid, ~valid, area=area)
    return Batch(image, size, size, np.arange(count, dtype=np.int32), np.ones(count, bool), target)


def same_shapes(a, b):
    return jax.tree.map(lambda x: (x.shape, x.dtype), a) == jax.tree.map(lambda x: (x.shape, x.dtype), b)


@pytest.mark.parametrize("path", files())
def test_it_builds(path, folder_of_classes):
    chosen = build(path, {}, folder_of_classes)
    assert chosen.steps > 0
    assert chosen.keep.by.split("/")[0] in chosen.evaluations


@pytest.mark.parametrize("path", files(slow=DEEP))
def test_the_train_step_keeps_the_shapes_of_the_state(path, folder_of_classes):
    chosen = build(path, {}, folder_of_classes)
    state = jax.eval_shape(lambda: experiment.first_state_of(chosen, start=False))
    after, metrics = jax.eval_shape(experiment.train_step_of(chosen), state, chosen.train.spec)
    assert same_shapes(after, state)
    expected = {"box_loss", "class_loss"} if isinstance(chosen.train.spec.target, Objects) else {"accuracy"}
    assert {"loss", "gradient_norm"} | expected <= set(metrics)
    assert all(value.shape == () for value in metrics.values())
    for evaluation in chosen.evaluations.values():
        observe = make_observe(chosen.task.predict, evaluation.metric)
        rows = jax.eval_shape(observe, state.averaged, evaluation.stream.spec)
        assert {row.shape[0] for row in rows.values()} == {evaluation.stream.spec.image.shape[0]}


@pytest.mark.parametrize("path", files(slow=DEEP | ALIKE))
def test_the_train_step_lowers_for_gpu_and_tpu(path, folder_of_classes):
    chosen = build(path, {"precision": "bfloat16"}, folder_of_classes)
    state = jax.eval_shape(lambda: experiment.first_state_of(chosen, start=False))
    step = jax.jit(experiment.train_step_of(chosen))
    exported = jax.export.export(step, platforms=("cuda", "tpu"))(state, chosen.train.spec)
    assert exported.platforms == ("cuda", "tpu")
    assert ("dot_general" if "rnn" in path.stem else "stablehlo.convolution") in exported.mlir_module()


@pytest.mark.parametrize("path", files())
def test_the_docstring_gives_the_command(path):
    text = " ".join(path.read_text(encoding="utf-8").replace("\\\n", " ").split())
    name = path.relative_to(ROOT).as_posix()
    assert f"python -m jaxvision.main --config={name} --workdir=runs/{path.stem}" in text


@pytest.mark.slow
@pytest.mark.parametrize("path", [each for each in files() if each.id not in SAME])
def test_one_real_step_on_a_small_canvas(path, folder_of_classes):
    chosen = build(path, SMALL.get(path.stem, {}), folder_of_classes)
    state = experiment.first_state_of(chosen, start=False)
    foreseen = jax.eval_shape(chosen.task.predict, state.averaged, chosen.train.spec)
    batch = random_batch(chosen.train.spec, foreseen.logits.shape[-1] if isinstance(foreseen, ClassScores) else 1)
    step = jax.jit(experiment.train_step_of(chosen))
    after, metrics = step(state, batch)
    assert int(after.step) == 1
    assert np.isfinite(float(metrics["loss"]))
    assert float(metrics["gradient_norm"]) > 0
    for _ in range(3):  # a warm-up begins with a rate of 0; scales that start at zero hold back what is before them
        after, _ = step(after, batch)
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(state.params), strict=True)
    ]
    assert np.mean(moved) > 0.8  # tiny rates move some float32 numbers by less than their last bit
    found = jax.jit(chosen.task.predict)(after.averaged, batch)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
