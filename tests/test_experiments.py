"""Every experiment file builds and its train step has the right shapes."""

import re

import jax
import jax.export
import pytest
from experiment_files import FILES, ROOT, SAME, Chosen, build, files

from jaxvision import experiment
from jaxvision.run import devices
from jaxvision.run.config import as_json, configure, load
from jaxvision.run.evaluation import make_observe
from jaxvision.train import Every
from jaxvision.types import ClassScores, Detections, PixelScores

DEEP = {
    *("imagenet_inception_v3", "imagenet_efficientnet_lite0", "imagenet_mobilenet_v2", "imagenet_vit_small"),
    *("coco_ssd300", "coco_yolov3", "voc_ssd300", "trees_ssd", "trees_yolo", "coco_detr", "coco_yolox"),
    *("voc_fast_rcnn", "voc_rcnn", "coco_faster_rcnn", "coco_retinanet", "trees_faster_rcnn", "imagenet_resnet50"),
    *("detect_detr", "torchvision_folder_resnet50", "voc_fcn", "efficientnet_lite0_trees", "pets_unet"),
    *("coco_yolact", "coco_detr_panoptic", "nuclei_yolact"),
}
"""Tracing these takes long."""
TRACED_LONG = {
    "shapes_faster_rcnn",
    "cifar10_resnet18",
    "shapes_yolox",
    "shapes_detr",
    "shapes_retinanet",
    "shapes_rcnn",
    "shapes_yolact",
    "shapes_detr_segmentation",
}
"""Their own tests trace them in the default suite."""
ALIKE = {
    *("imagenet_vgg16", "imagenet_squeezenet", "folder_cnn", "fashion_mnist_cnn", "optimizers", "augmix"),
    *("coco_mask_rcnn", "nuclei_mask_rcnn", "nuclei_yolact"),
    *("imbalanced_fashion_mnist", "shapes_yolo", "shapes_fast_rcnn", "cifar100_resnet18", "fashion_mnist_resnet18"),
}
"""The task, and the layers, of others."""
ELSEWHERE = {
    *("detect_ssd", "detect_yolo", "detect_yolox", "detect_faster_rcnn", "detect_retinanet"),
    *("torchvision_folder_vgg16", "torchvision_folder_inception_v3", "efficientnet_lite0_fashion"),
}
"""Those of files that hold several whose steps are not traced here: `test_experiment_detect.py` takes those of `detect.py`;
the others are the step of another of their file, with the network of another file."""

BUNDLED = {
    "quickstart",
    "folder",
    "folder_cnn",
    "trees_ssd",
    "trees_yolo",
    "trees_faster_rcnn",
    "shapes_ssd",
    "detect_ssd",
    "nuclei_unet",
    "nuclei_mask_rcnn",
    "nuclei_yolact",
    "shapes_segmentation",
}
"""Their data come with the package, or are made by the tests."""


METRICS = {ClassScores: {"accuracy"}, Detections: {"box_loss", "class_loss"}, PixelScores: {"pixel_loss"}}
METRICS |= {dict: {"colour_loss", "shape_loss", "size_loss"}}
"""What training logs, by what is predicted."""


def same_shapes(a, b):
    return jax.tree.map(lambda x: (x.shape, x.dtype), a) == jax.tree.map(lambda x: (x.shape, x.dtype), b)


@pytest.mark.parametrize("path", files())
def test_it_builds_with_the_intervals_of_its_config(path, folder_of_classes):
    given = {"every.log": "3", "every.evaluate": "7", "every.checkpoint": "5"}
    chosen = build(path, given, folder_of_classes)
    assert chosen.every == Every(3, 7, 5)
    assert chosen.steps > 0
    assert chosen.keep.by.split("/")[0] in chosen.evaluations


@pytest.mark.parametrize("path", [each for each in files(DEEP | ALIKE | TRACED_LONG) if each.id not in ELSEWHERE])
def test_the_train_step_keeps_the_shapes_of_the_state_and_lowers_for_gpu_and_tpu(path, folder_of_classes):
    """A step that is `SAME` as another file's is lowered with that one."""
    chosen = build(path, {"precision": "bfloat16"}, folder_of_classes)
    state = jax.eval_shape(lambda: experiment.first_state_of(chosen, start=False))
    step = jax.jit(experiment.train_step_of(chosen))  # traced once for both
    after, metrics = step.eval_shape(state, chosen.train.spec)
    assert same_shapes(after, state)
    predict = jax.jit(experiment.task_of(chosen).predict)  # traced once for an evaluation of batches as large
    predicted = jax.eval_shape(predict, state.averaged, chosen.train.spec.replace(target=None))
    expected = METRICS[type(predicted)]
    assert {"loss", "gradient_norm"} | expected <= set(metrics)
    assert all(value.shape == () for value in metrics.values())
    for evaluation in chosen.evaluations.values():
        observe = make_observe(predict, evaluation.metric)
        rows = jax.eval_shape(observe, state.averaged, evaluation.stream.spec)
        assert {row.shape[0] for row in jax.tree.leaves(rows)} == {evaluation.stream.spec.image.shape[0]}
    if path.stem in SAME:
        return
    exported = jax.export.export(step, platforms=("cuda", "tpu"))(state, chosen.train.spec)
    assert exported.platforms == ("cuda", "tpu")
    assert ("dot_general" if "rnn" in path.stem else "stablehlo.convolution") in exported.mlir_module()


@pytest.mark.parametrize("path", [each for each in files() if each.id in BUNDLED])
def test_no_image_that_is_trained_on_is_tested_on(path, folder_of_classes):
    streams = experiment.streams(build(path, {}, folder_of_classes)).values()
    abouts = [stream.about() for stream in streams]
    trained, *tested = ({about.name(i) for i in range(min(about.examples, 100))} for about in abouts)
    assert tested
    assert all(trained and each and trained.isdisjoint(each) for each in tested)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_docstring_gives_the_command(path):
    text = " ".join(path.read_text(encoding="utf-8").replace("\\\n", " ").split())
    name = path.relative_to(ROOT).as_posix()
    assert f"python -m jaxvision.main --config={name} --workdir=runs/{path.stem}" in text


@pytest.mark.parametrize(
    ("stem", "field", "value", "message"),
    [
        ("shapes", "detector", "yollo", "no detector 'yollo'; did you mean 'yolo'?"),
        ("torchvision_folder", "network", "resnet5", "no network 'resnet5'; did you mean 'resnet50'?"),
        ("efficientnet_lite0", "data", "tree", "no data 'tree'; did you mean 'trees'?"),
    ],
)
def test_an_unknown_choice_is_told_with_the_nearest(stem, field, value, message, folder_of_classes):
    (path,) = (each for each in FILES if each.stem == stem)
    with pytest.raises(ValueError, match=re.escape(message)):
        build(Chosen(path, stem, {}), {field: value}, folder_of_classes)


def test_zero_takes_the_values_of_the_detector_and_the_config_keeps_them():
    (path,) = (each for each in FILES if each.stem == "shapes")
    module = load(path)
    config = configure(module.get_config(), {"detector": "detr", "steps": "40"})
    devices.resolve_precision(config)
    chosen = module.build(config)
    assert (chosen.steps, config.learning_rate, config.batch_size) == (40, 1e-3, 16)
    assert as_json(config)["width"] == 16


@pytest.mark.parametrize("network", ["fcn", "fcn8s", "deeplab", "unet", "resnet_unet", "u2net"])
def test_every_network_of_the_shapes_has_variables(network):
    (path,) = (each for each in FILES if each.stem == "shapes_segmentation")
    chosen = build(Chosen(path, network, {}), {"network": network}, None)
    shapes = jax.eval_shape(chosen.task.init, jax.random.key(0), chosen.train.spec)
    assert jax.tree.leaves(shapes["params"])
