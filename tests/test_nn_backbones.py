"""Every backbone tells the strides and widths of its maps, and fits under the pyramids of RetinaNet and Faster R-CNN."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision.nn import convnext, darknet, mobilenet, resnet, vgg, vit
from jaxvision.tasks.faster_rcnn import faster_rcnn, faster_rcnn_fpn
from jaxvision.tasks.proposals import Proposing
from jaxvision.tasks.regions import Classifying
from jaxvision.tasks.retinanet import retinanet, retinanet_fpn
from jaxvision.tasks.yolox import CSPDarknet
from jaxvision.types import Batch, Objects

SMALL = tuple(stage._replace(blocks=1) for stage in mobilenet.MOBILENET_V2)
BACKBONES = {
    "resnet18": lambda: resnet.Backbone(resnet.BasicBlock, (2, 2, 2, 2), width=8),
    "resnet_bottleneck": lambda: resnet.Backbone(resnet.Bottleneck, (1, 1, 1, 1), width=8),
    "resnet_cifar": lambda: resnet.Backbone(resnet.BasicBlock, (1, 1, 1), width=8, stem="cifar"),
    "mobilenet_v2": lambda: mobilenet.Backbone(SMALL),
    "mobilenet_v2_expanded": lambda: mobilenet.Backbone(SMALL, expanded=True, padding="same"),
    "convnext_tiny": lambda: convnext.Backbone((1, 1, 1, 1), width=8),
    "vgg": lambda: vgg.Backbone((1, 1, 1, 1, 1), (8, 8, 16, 16, 16)),
    "vit_tiny": lambda: vit.ViTPyramid(width=24, depth=2, heads=3, grid=4),
    "darknet53": lambda: darknet.Darknet53((1, 1, 1, 1, 1), width=4),
    "darknet_tiny": lambda: darknet.DarknetTiny(width=4),
    "csp_darknet": lambda: CSPDarknet(8, 1),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_strides_and_widths_are_those_of_the_maps(name):
    backbone = BACKBONES[name]()
    images = jax.ShapeDtypeStruct((2, 128, 192, 3), jnp.float32)
    maps, _ = jax.eval_shape(lambda x: backbone.init_with_output(jax.random.key(0), x, train=False), images)
    expected = [
        (2, 128 // stride, 192 // stride, width)
        for stride, width in zip(backbone.strides, backbone.widths, strict=True)
    ]
    assert [x.shape for x in maps] == expected


def test_the_positions_of_a_vit_are_resized_to_the_image():
    backbone = vit.ViTPyramid(width=24, depth=1, heads=3, grid=2)
    small, large = jnp.ones((1, 32, 32, 3)), jnp.ones((1, 64, 64, 3))
    variables = backbone.init(jax.random.key(0), small, train=False)
    assert [x.shape[1] for x in backbone.apply(variables, large, train=False)] == [16, 8, 4, 2]
    positions = variables["params"]["positions"] * 0
    still = {"params": {**variables["params"], "positions": positions}}
    coarse = backbone.apply(still, large, train=False)[3]
    np.testing.assert_allclose(coarse, jnp.broadcast_to(coarse[:, :1, :1], coarse.shape), atol=1e-5)
    moved = backbone.apply(variables, large, train=False)[2]
    assert float(jnp.abs(moved - moved[:, :1, :1]).max()) > 1e-3


def _batch(side=64):
    rng = np.random.default_rng(0)
    boxes = np.array([[[8, 8, 40, 40], [20, 16, 60, 50]]], np.float32)
    objects = Objects(boxes, np.array([[0, 1]], np.int32), np.ones((1, 2), bool), np.zeros((1, 2), bool))
    size, index = np.array([[side, side]], np.int32), np.zeros(1, np.int32)
    image = rng.integers(0, 255, (1, side, side, 3), np.uint8)
    return Batch(image, size, size, index, np.ones(1, bool), objects)


def _faster(backbone):
    settings = {
        "proposing": Proposing(sampled=32, candidates=(50, 50), count=(20, 20)),
        "classifying": Classifying(sampled=16),
    }
    return faster_rcnn(faster_rcnn_fpn(backbone, 2, channels=16, hidden=16), **settings)


def _retina(backbone):
    return retinanet(retinanet_fpn(backbone, 2, channels=16, depth=1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "convnext_tiny", "vit_tiny", "darknet53"])
@pytest.mark.parametrize("make", [_faster, _retina], ids=["faster_rcnn", "retinanet"])
def test_a_detector_trains_a_step_on_every_backbone(train_steps, make, name):
    task, batch = make(BACKBONES[name]()), _batch()
    before = task.init(jax.random.key(0), jax.tree.map(jnp.asarray, batch))["params"]["features"]["backbone"]
    first, losses = train_steps(task, batch, steps=1, optimizer=optax.sgd(1e-3))
    assert np.isfinite(losses).all()
    _, grads = jax.value_and_grad(lambda p: task.loss({**first.variables, "params": p}, batch, jax.random.key(1))[0])(
        first.params
    )
    norms = [float(optax.tree.norm(x)) for x in jax.tree.leaves(grads["features"]["backbone"])]
    assert jax.tree.structure(before) == jax.tree.structure(grads["features"]["backbone"])
    assert np.isfinite(norms).all()
    assert np.mean([norm > 0 for norm in norms]) > 0.9
