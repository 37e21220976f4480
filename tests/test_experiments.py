"""Every experiment file builds and its train step has the right shapes."""

import jax
import jax.export
import pytest
from experiment_files import ROOT, build, files

from jaxvision import experiment
from jaxvision.run.evaluation import make_observe
from jaxvision.types import Objects

DEEP = {
    *("imagenet_inception_v3", "imagenet_efficientnet_lite0", "imagenet_mobilenet_v2", "imagenet_vit_small"),
    *("coco_ssd300", "coco_yolov3", "voc_ssd300", "trees_ssd", "trees_yolo", "coco_detr", "coco_yolox"),
    *("voc_fast_rcnn", "voc_rcnn", "coco_faster_rcnn", "coco_retinanet", "trees_faster_rcnn", "imagenet_resnet50"),
    *("inception_folder", "efficientnet_lite0_fashion", "efficientnet_lite0_trees", "resnet50_folder", "vgg16_folder"),
}
"""Tracing these takes long."""
ALIKE = {
    *("imagenet_vgg16", "imagenet_squeezenet", "folder_cnn", "fashion_mnist_cnn", "optimizers"),
    *("imbalanced_fashion_mnist", "shapes_yolo", "shapes_fast_rcnn", "cifar100_resnet18", "fashion_mnist_resnet18"),
}
"""The task, and the layers, of others."""


def same_shapes(a, b):
    return jax.tree.map(lambda x: (x.shape, x.dtype), a) == jax.tree.map(lambda x: (x.shape, x.dtype), b)


@pytest.mark.parametrize("path", files())
def test_it_builds(path, folder_of_classes):
    chosen = build(path, {}, folder_of_classes)
    assert chosen.steps > 0
    assert chosen.keep.by.split("/")[0] in chosen.evaluations


@pytest.mark.parametrize("path", files(slow=DEEP | ALIKE))
def test_the_train_step_keeps_the_shapes_of_the_state_and_lowers_for_gpu_and_tpu(path, folder_of_classes):
    chosen = build(path, {"precision": "bfloat16"}, folder_of_classes)
    state = jax.eval_shape(lambda: experiment.first_state_of(chosen, start=False))
    step = jax.jit(experiment.train_step_of(chosen))  # traced once for both
    after, metrics = step.eval_shape(state, chosen.train.spec)
    assert same_shapes(after, state)
    expected = {"box_loss", "class_loss"} if isinstance(chosen.train.spec.target, Objects) else {"accuracy"}
    assert {"loss", "gradient_norm"} | expected <= set(metrics)
    assert all(value.shape == () for value in metrics.values())
    for evaluation in chosen.evaluations.values():
        observe = make_observe(chosen.task.predict, evaluation.metric)
        rows = jax.eval_shape(observe, state.averaged, evaluation.stream.spec)
        assert {row.shape[0] for row in rows.values()} == {evaluation.stream.spec.image.shape[0]}
    exported = jax.export.export(step, platforms=("cuda", "tpu"))(state, chosen.train.spec)
    assert exported.platforms == ("cuda", "tpu")
    assert ("dot_general" if "rnn" in path.stem else "stablehlo.convolution") in exported.mlir_module()


@pytest.mark.parametrize("path", files())
def test_the_docstring_gives_the_command(path):
    text = " ".join(path.read_text(encoding="utf-8").replace("\\\n", " ").split())
    name = path.relative_to(ROOT).as_posix()
    assert f"python -m jaxvision.main --config={name} --workdir=runs/{path.stem}" in text
