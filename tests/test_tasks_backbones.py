"""Any backbone goes under any pyramid: what backbones tell of their maps is so, and detectors on each of them learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.nn import convnext, darknet, efficientnet, mobilenet, resnet, vgg, vit
from jaxvision.nn.fpn import SimplePyramid, first_map
from jaxvision.tasks.fast_rcnn import fast_rcnn_fpn
from jaxvision.tasks.faster_rcnn import faster_rcnn, faster_rcnn_fpn, faster_rcnn_on
from jaxvision.tasks.retinanet import retinanet, retinanet_fpn
from jaxvision.tasks.roi_heads import ROIHeads
from jaxvision.tasks.rpn import RPN
from jaxvision.types import Batch, Objects

PUBLISHED = {
    "resnet18": (resnet.resnet18().backbone, (4, 8, 16, 32), (64, 128, 256, 512)),
    "bottlenecks": (resnet.Backbone(resnet.Bottleneck, (1, 1, 1, 1)), (4, 8, 16, 32), (256, 512, 1024, 2048)),
    "resnet18_cifar": (resnet.resnet18(stem="cifar").backbone, (1, 2, 4, 8), (64, 128, 256, 512)),
    "convnext_tiny": (convnext.convnext_tiny().backbone, (4, 8, 16, 32), (96, 192, 384, 768)),
    "mobilenet_v2": (mobilenet.mobilenet_v2().backbone, (2, 4, 8, 16, 32), (16, 24, 32, 96, 320)),
    "mobilenet_v2_expanded": (
        mobilenet.mobilenet_v2(expanded=True).backbone,
        (2, 4, 8, 16, 32),
        (96, 144, 192, 576, 320),
    ),
    "efficientnet_lite0": (efficientnet.efficientnet_lite0().backbone, (2, 4, 8, 16, 32), (16, 24, 40, 112, 320)),
    "vgg16": (vgg.vgg16().backbone, (1, 2, 4, 8, 16), (64, 128, 256, 512, 512)),
    "darknet53": (darknet.Darknet53(), (2, 4, 8, 16, 32), (64, 128, 256, 512, 1024)),
    "darknet_tiny": (darknet.DarknetTiny(), (16, 32), (256, 1024)),
    "vit_tiny": (vit.vit_tiny().backbone, (4, 8, 16, 32), (48, 96, 192, 192)),
}
SMALL = {
    "resnet18": lambda: resnet.resnet18(None, width=4).backbone,
    "mobilenet_v2": lambda: mobilenet.mobilenet_v2(width=0.25).backbone,
    "convnext_tiny": lambda: convnext.convnext_tiny(depths=(1, 1, 1, 1), width=8).backbone,
    "vit_tiny": lambda: vit.vit_tiny(width=16, depth=1, heads=2).backbone,
    "darknet53": lambda: darknet.Darknet53((1, 1, 1, 1, 1), width=4),
}
CLASSES, SIDE = 2, 64
SIZES = ((8,), (16,), (24,), (32,), (48,))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_backbone_tells_the_strides_and_widths_of_its_maps(name):
    backbone, strides, widths = PUBLISHED[name]
    images = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    maps, _ = jax.eval_shape(lambda x: backbone.init_with_output(jax.random.key(0), x, train=False), images)
    assert (backbone.strides, backbone.widths) == (strides, widths)
    assert [x.shape for x in maps] == [(2, 64 // s, 96 // s, w) for s, w in zip(strides, widths, strict=True)]


@pytest.mark.parametrize("name", SMALL)
def test_pyramids_take_the_maps_of_the_strides_they_need(name):
    key, images = jax.random.key(0), jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    backbone = SMALL[name]()
    maps_of = lambda network: jax.eval_shape(lambda k, x: network.init_with_output(k, x, train=False)[0], key, images)
    faster, retina = faster_rcnn_fpn(backbone, CLASSES, channels=8), retinanet_fpn(backbone, CLASSES, channels=8)
    assert [SIDE // x.shape[1] for x in maps_of(faster.features)] == [4, 8, 16, 32, 64]
    assert (faster.features.strides, retina.features.strides) == ((4, 8, 16, 32), (8, 16, 32))
    assert SimplePyramid(backbone).strides == backbone.strides
    assert faster.pool.keywords["strides"] == (4, 8, 16, 32)  # type: ignore[attr-defined]
    assert fast_rcnn_fpn(backbone, CLASSES).pool.keywords["strides"] == (4, 8, 16, 32)  # type: ignore[attr-defined]
    assert [x.shape[1] for x in maps_of(retina.features)] == [8, 4, 2, 1, 1]


def test_a_backbone_that_is_too_fine_is_refused():
    with pytest.raises(ValueError, match=r"a pyramid from stride 8 on .* strides are \(1, 2, 4\)"):
        first_map(vgg.Backbone((1, 1, 1), (4, 4, 4)), 8)


def small_faster_rcnn(name):
    rpn = RPN(samples_per_image=24, pre_nms_top_k=(40, 30), post_nms_top_k=(30, 20))
    roi_heads = ROIHeads(samples_per_image=16, max_detections=20)
    if name == "vitdet":
        network = faster_rcnn_on(SimplePyramid(SMALL["vit_tiny"](), channels=8), CLASSES, hidden=16, anchors_per_cell=1)
    else:
        network = faster_rcnn_fpn(SMALL[name](), CLASSES, channels=8, hidden=16, anchors_per_cell=1)
    return faster_rcnn(network, sizes=SIZES, ratios=(1.0,), rpn=rpn, roi_heads=roi_heads)


def small_retinanet(name):
    network = retinanet_fpn(SMALL[name](), CLASSES, channels=8, anchors_per_cell=1, depth=1)
    return retinanet(network, sizes=SIZES, ratios=(1.0,))


def a_batch():
    """Two images with two objects each."""
    random = np.random.default_rng(0)
    boxes = jnp.asarray([[[4, 4, 20, 24], [30, 20, 60, 62]]] * 2, jnp.float32)
    valid = jnp.ones((2, 2), bool)
    size, index = jnp.full((2, 2), SIDE, jnp.int32), jnp.arange(2)
    image = jnp.asarray(random.integers(0, 256, (2, SIDE, SIDE, 3)), jnp.uint8)
    return Batch(image, size, size, index, index >= 0, Objects(boxes, jnp.int32([[0, 1]] * 2), valid, ~valid))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "name"),
    [
        *((small_faster_rcnn, name) for name in (*SMALL, "vitdet")),
        *((small_retinanet, name) for name in ("mobilenet_v2", "vit_tiny")),
    ],
)
def test_a_step_on_each_backbone_moves_all_of_the_network(make, name):
    task, batch = make(name), a_batch()
    variables = jax.jit(task.init)(jax.random.key(0), batch)
    rest = {kind: tree for kind, tree in variables.items() if kind != "params"}

    @jax.jit
    def step(params):
        of = lambda params: task.loss({"params": params, **rest}, batch, jax.random.key(1))
        (loss, _), gradient = jax.value_and_grad(of, has_aux=True)(params)
        return loss, gradient, jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient)

    loss, gradient, params = step(variables["params"])
    after, _, _ = step(params)
    assert np.isfinite(loss)
    assert after < loss
    backbone = gradient["features"].pop("backbone")
    for part in (backbone, *gradient.values(), gradient["features"]):
        assert np.isfinite(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(part)])).all()
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(part)) > 0
