"""torchvision's names for detectors on pyramids: the golden files list them all."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity_networks import shapes_of

from jaxvision.nn import resnet
from jaxvision.nn.norm import FrozenBatchNorm
from jaxvision.pretrained import coco, torchvision, torchvision_detection
from jaxvision.pretrained.strict import load
from jaxvision.tasks.faster_rcnn import faster_rcnn_fpn
from jaxvision.tasks.mask_rcnn import with_mask_head
from jaxvision.tasks.retinanet import retinanet_fpn

GOLDEN = Path(__file__).parent / "golden"
DETECTORS = {
    "retinanet": (lambda backbone: retinanet_fpn(backbone, 5), torchvision_detection.retinanet_sources),
    "faster_rcnn": (lambda backbone: faster_rcnn_fpn(backbone, 5), torchvision_detection.faster_rcnn_sources),
    "mask_rcnn": (
        lambda backbone: with_mask_head(faster_rcnn_fpn(backbone, 5)),
        torchvision_detection.mask_rcnn_sources,
    ),
}
OLD = {
    "retinanet": {
        "backbone.fpn.layer_blocks.2.weight",
        "head.classification_head.conv.2.bias",
        "head.regression_head.conv.6.weight",
        "backbone.fpn.extra_blocks.p7.bias",
    },
    "faster_rcnn": {
        "backbone.fpn.inner_blocks.3.bias",
        "rpn.head.conv.weight",
        "roi_heads.box_head.fc6.weight",
        "backbone.body.layer1.0.bn1.running_mean",
    },
    "mask_rcnn": {
        "roi_heads.mask_head.mask_fcn1.weight",
        "roi_heads.mask_head.mask_fcn4.bias",
        "roi_heads.mask_predictor.conv5_mask.weight",
        "roi_heads.mask_predictor.mask_fcn_logits.bias",
    },
}
"""Some names of the files that torchvision distributes."""


MASK_HEAD = {
    **{f"roi_heads.mask_head.{n}.0.weight": (256, 256, 3, 3) for n in range(4)},
    **{f"roi_heads.mask_head.{n}.0.bias": (256,) for n in range(4)},
    "roi_heads.mask_predictor.conv5_mask.weight": (256, 256, 2, 2),
    "roi_heads.mask_predictor.conv5_mask.bias": (256,),
    "roi_heads.mask_predictor.mask_fcn_logits.weight": (6, 256, 1, 1),
    "roi_heads.mask_predictor.mask_fcn_logits.bias": (6,),
}
"""What torchvision's Mask R-CNN has beside its Faster R-CNN."""


@functools.cache
def spec_of(detector):
    network = DETECTORS[detector][0](resnet.resnet18(None, norm=FrozenBatchNorm).backbone)
    boxes = [jnp.zeros((1, 1, 4))] if detector != "retinanet" else []
    return jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), *boxes, train=False))


@pytest.mark.parametrize("detector", DETECTORS)
def test_every_array_is_used_once_under_both_kinds_of_names(detector):
    with np.load(GOLDEN / f"{detector.replace('mask', 'faster')}_resnet18.npz") as golden:
        shapes = shapes_of(golden) | (MASK_HEAD if detector == "mask_rcnn" else {})
    spec, sources = spec_of(detector), DETECTORS[detector][1]
    count = sum(leaf.size for leaf in jax.tree.leaves(spec))
    zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    assert load(sources(spec), zeros, spec).report.numbers == count

    old = torchvision_detection.as_distributed(sources)(spec)
    renamed = {old[path].name: zeros[source.name] for path, source in sources(spec).items()}
    assert load(old, renamed, spec).report.numbers == count
    assert OLD[detector] <= set(renamed)
    assert not [name for name in renamed if ".0.0." in name and "layer" not in name]


def of_80_classes(detector):
    """The name map for 80 classes, and which modules it has in another way than that for all."""
    plain = DETECTORS[detector][1](spec_of(detector))
    found = torchvision_detection.coco_sources(lambda variables: plain)(spec_of(detector))
    return found, {path[1:3] for path in plain if found[path] is not plain[path]}


def test_faster_rcnn_takes_background_and_the_classes_of_cocos_80_ids_from_91():
    sources, changed = of_80_classes("faster_rcnn")
    assert changed == {("box_head", "logits"), ("box_head", "offsets")}
    kept = np.array((0, *coco.IDS))
    theirs = np.arange(91)[:, None] + [0.0, 0.5]  # outputs by inputs, as PyTorch has them
    kernel, bias = (sources["params", "box_head", "logits", name].convert for name in ("kernel", "bias"))
    np.testing.assert_array_equal(kernel(theirs), [kept, kept + 0.5])
    np.testing.assert_array_equal(bias(theirs[:, 0]), kept)
    theirs = np.arange(4 * 91)[:, None] + [0.0, 0.5]
    kernel = sources["params", "box_head", "offsets", "kernel"].convert(theirs)
    np.testing.assert_array_equal(kernel[1].reshape(81, 4), 4 * kept[:, None] + [0.5, 1.5, 2.5, 3.5])


def test_mask_rcnn_takes_its_masks_of_the_same_classes():
    sources, changed = of_80_classes("mask_rcnn")
    assert changed == {("box_head", "logits"), ("box_head", "offsets"), ("mask_head", "logits")}
    theirs = np.arange(91)[:, None, None, None] + np.zeros((1, 3, 1, 1))
    kernel = sources["params", "mask_head", "logits", "kernel"].convert(theirs)
    np.testing.assert_array_equal(kernel[0, 0], np.tile((0, *coco.IDS), (3, 1)))


def test_retinanet_takes_the_classes_of_cocos_80_ids_from_91_of_every_anchor():
    sources, changed = of_80_classes("retinanet")
    assert changed == {("class_tower", "predict")}
    theirs = np.tile(np.arange(9 * 91).reshape(-1, 1, 1, 1), (1, 2, 3, 3))
    found = sources["params", "class_tower", "predict", "kernel"].convert(theirs)
    assert found.shape == (3, 3, 2, 9 * 80)
    np.testing.assert_array_equal(found[1, 2, 0].reshape(9, 80), 91 * np.arange(9)[:, None] + coco.IDS)


def test_the_weights_of_a_residual_network_fill_the_backbone():
    network = resnet.resnet18(7, norm=FrozenBatchNorm)
    plain = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))
    given = {source.name for source in torchvision.resnet_sources(plain).values()}
    found = torchvision_detection.fpn_backbone_sources(spec_of("retinanet"))
    assert {source.name for source in found.values()} == given - {"fc.weight", "fc.bias"}
    path = ("params", "features", "backbone", "stage1_block1", "conv1", "kernel")
    assert found[path].name == "layer1.0.conv1.weight"


def test_another_module_is_refused():
    spec = spec_of("retinanet")
    params = {**spec["params"], "mask_tower": {"conv1": spec["params"]["box_tower"]["conv1"]}}
    with pytest.raises(ValueError, match="no counterpart of 'mask_tower/conv1'"):
        torchvision_detection.retinanet_sources({**spec, "params": params})
