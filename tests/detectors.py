"""Small detectors of every kind, and a batch for them: what the laws of detection are tested on."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.nn import darknet, resnet
from jaxvision.nn.norm import BatchNorm, FrozenBatchNorm
from jaxvision.ops.nms import greedy
from jaxvision.tasks.detr import DETR, detr
from jaxvision.tasks.detr_segmentation import detr_segmentation, segmenting
from jaxvision.tasks.fast_rcnn import fast_rcnn, fast_rcnn_last_map
from jaxvision.tasks.faster_rcnn import faster_rcnn, faster_rcnn_fpn
from jaxvision.tasks.mask_rcnn import mask_rcnn, with_mask_head
from jaxvision.tasks.rcnn import rcnn, rcnn_last_map
from jaxvision.tasks.retinanet import retinanet, retinanet_fpn
from jaxvision.tasks.roi_heads import ROIHeads
from jaxvision.tasks.rpn import RPN
from jaxvision.tasks.ssd import SSD, Extra, Features, paper, ssd
from jaxvision.tasks.yolact import Training, yolact, yolact_fpn
from jaxvision.tasks.yolo import YOLOv3, YOLOv3Tiny, yolo
from jaxvision.tasks.yolo_v1 import GridHead, yolo_v1
from jaxvision.tasks.yolox import YOLOX, Make, yolox
from jaxvision.types import Batch, Objects

CLASSES, SIDE, ROWS = 3, 32, 5


def small_ssd(dtype=jnp.float32, **options):
    """Two maps of a residual network and one extra: strides 4, 8, 16."""
    backbone = resnet.Backbone(resnet.BasicBlock, (1, 1), width=8, dtype=dtype)
    features = Features(backbone, 0, (Extra(8, 16),), dtype=dtype)
    defaults = paper((0.2, 0.4, 0.6, 0.9), ((2,), (2,), (2,)), (4, 8, 16))
    return ssd(
        SSD(features, CLASSES, (4, 4, 4), dtype=dtype),
        defaults,
        mean=127.5,
        std=64.0,
        dtype=dtype,
        max_detections=20,
        **options,
    )


def small_yolov3_tiny(dtype=jnp.float32):
    """Strides 4 and 8."""
    priors = (((16, 16), (24, 12)), ((6, 6), (10, 8)))
    network = YOLOv3Tiny(darknet.DarknetTiny(4, 5, dtype=dtype), CLASSES, 2)
    return yolo(network, priors, dtype=dtype, max_detections=20)


def small_yolov3(dtype=jnp.float32):
    """Strides 2, 4 and 8."""
    priors = (((16, 16),), ((10, 8),), ((5, 6),))
    network = YOLOv3(darknet.Darknet53((1, 1, 1), 4, dtype=dtype), CLASSES, 1)
    return yolo(network, priors, dtype=dtype, max_detections=20)


def small_yolo_v1(dtype=jnp.float32):
    """A grid of 4 x 4 cells."""
    network = GridHead(darknet.DarknetTiny(4, 5, dtype=dtype), CLASSES, channels=8, dtype=dtype)
    return yolo_v1(network, mean=127.5, std=64.0, dtype=dtype, max_detections=20)


def small_retinanet(dtype=jnp.float32, **options):
    """Strides 8, 16 and 32, the last two convolved."""
    backbone = resnet.Backbone(resnet.BasicBlock, (1, 1), width=8, dtype=dtype)
    network = retinanet_fpn(backbone, CLASSES, channels=16, anchors_per_cell=2, depth=1)
    sizes = ((6, 9), (12, 16), (20, 26))
    return retinanet(
        network, sizes=sizes, ratios=(1.0,), mean=127.5, std=64.0, dtype=dtype, max_detections=20, **options
    )


def small_detr(dtype=jnp.float32, norm=FrozenBatchNorm):
    """A map of stride 8, one layer of encoder and two of decoder, without dropout."""
    backbone = resnet.Backbone(resnet.BasicBlock, (1, 1), width=8, norm=norm, dtype=dtype)
    layers = {"encoder_layers": 1, "decoder_layers": 2, "dropout": 0.0}
    network = DETR(backbone, CLASSES, queries=20, width=16, heads=2, hidden=24, dtype=dtype, **layers)
    return detr(network, mean=127.5, std=64.0, dtype=dtype)


def small_detr_segmentation(dtype=jnp.float32, norm=FrozenBatchNorm):
    """`small_detr` with masks of stride 4."""
    backbone = resnet.Backbone(resnet.BasicBlock, (1, 1), width=8, norm=norm, dtype=dtype)
    layers = {"encoder_layers": 1, "decoder_layers": 2, "dropout": 0.0}
    network = DETR(backbone, CLASSES, queries=20, width=16, heads=8, hidden=24, dtype=dtype, **layers)
    return detr_segmentation(segmenting(network), mean=127.5, std=64.0, dtype=dtype)


def small_yolact(dtype=jnp.float32, **options):
    """Strides 4 and 8, and two maps more; few masks are drawn, so that the draw matters."""
    backbone = resnet.Backbone(resnet.BasicBlock, (1, 1), width=8, dtype=dtype)
    network = yolact_fpn(backbone, CLASSES, finest=4, channels=16, anchors_per_cell=2, prototype_count=4)
    sides = ((5, 7), (9, 12), (14, 18), (22, 28))
    training = Training(mask_samples=6)
    settings = {"training": training, "mean": 127.5, "std": 64.0, "max_detections": 20}
    return yolact(network, sides=sides, dtype=dtype, **settings, **options)


def small_yolox(dtype=jnp.float32, **options):
    """Strides 4 and 8 of a residual network."""
    backbone = resnet.Backbone(resnet.BasicBlock, (1, 1), width=8, dtype=dtype)
    return yolox(YOLOX(backbone, CLASSES, 1, Make(dtype=dtype)), dtype=dtype, max_detections=20, **options)


def small_faster_rcnn(dtype=jnp.float32, norm=FrozenBatchNorm, **options):
    """Strides 4, 8 and 16, regions from the first two; few are drawn, so that the draw matters."""
    backbone = resnet.Backbone(resnet.BasicBlock, (1, 1), width=8, norm=norm, dtype=dtype)
    network = faster_rcnn_fpn(backbone, CLASSES, channels=16, hidden=32, anchors_per_cell=1)
    rpn = RPN(samples_per_image=24, pre_nms_top_k=(40, 30), post_nms_top_k=(30, 20))
    roi_heads = ROIHeads(samples_per_image=16, max_detections=20)._replace(**options)
    settings = {"rpn": rpn, "roi_heads": roi_heads}
    return faster_rcnn(
        network, sizes=((7,), (11,), (16,)), ratios=(1.0,), mean=127.5, std=64.0, dtype=dtype, **settings
    )


def small_mask_rcnn(dtype=jnp.float32, norm=FrozenBatchNorm, **options):
    """`small_faster_rcnn` with masks of 8 pixels."""
    backbone = resnet.Backbone(resnet.BasicBlock, (1, 1), width=8, norm=norm, dtype=dtype)
    boxes_alone = faster_rcnn_fpn(backbone, CLASSES, channels=16, hidden=32, anchors_per_cell=1)
    network = with_mask_head(boxes_alone, channels=8, layers=1, size=4)
    rpn = RPN(samples_per_image=24, pre_nms_top_k=(40, 30), post_nms_top_k=(30, 20))
    roi_heads = ROIHeads(samples_per_image=16, max_detections=20)
    settings = {"rpn": rpn, "roi_heads": roi_heads, **options}
    return mask_rcnn(network, sizes=((7,), (11,), (16,)), ratios=(1.0,), mean=127.5, std=64.0, dtype=dtype, **settings)


def small_fast_rcnn(dtype=jnp.float32, norm=FrozenBatchNorm, **options):
    """Regions pooled from a map of stride 8; few are drawn, so that the draw matters."""
    backbone = resnet.Backbone(resnet.BasicBlock, (1, 1), width=8, norm=norm, dtype=dtype)
    roi_heads = ROIHeads(samples_per_image=12, nms=greedy(0.3), max_detections=20)._replace(**options)
    network = fast_rcnn_last_map(backbone, CLASSES, hidden=32)
    return fast_rcnn(network, mean=127.5, std=64.0, roi_heads=roi_heads, dtype=dtype)


def small_rcnn(dtype=jnp.float32, norm=FrozenBatchNorm):
    """Crops of 16 pixels, 2 of them context."""
    backbone = resnet.Backbone(resnet.BasicBlock, (1, 1), width=8, norm=norm, dtype=dtype)
    roi_heads = ROIHeads(samples_per_image=12, nms=greedy(0.3), max_detections=20)
    network = rcnn_last_map(backbone, CLASSES)
    return rcnn(network, size=16, context=2, mean=127.5, std=64.0, roi_heads=roi_heads, dtype=dtype)


EVERY = {
    "ssd": small_ssd,
    "yolov3_tiny": small_yolov3_tiny,
    "yolov3": small_yolov3,
    "yolo_v1": small_yolo_v1,
    "detr": small_detr,
    "retinanet": small_retinanet,
    "faster_rcnn": small_faster_rcnn,
    "mask_rcnn": small_mask_rcnn,
    "fast_rcnn": small_fast_rcnn,
    "rcnn": small_rcnn,
    "yolox": small_yolox,
    "yolact": small_yolact,
    "detr_segmentation": small_detr_segmentation,
}


FROZEN = ("detr", "detr_segmentation", "faster_rcnn", "mask_rcnn", "fast_rcnn", "rcnn")
LIVE = {name: {"norm": BatchNorm} if name in FROZEN else {} for name in EVERY}
"""Options with which each normalises by the statistics of its batch."""


def make_batch(counts=(3, 1, 0, 5), seed=0, dtype=np.float64):
    """Noise with so many objects an image; the content is 28 x 30 pixels of the canvas; one object is to be ignored.

    Masks are the ellipses in the boxes. What is given are proposals near the places of objects, and some anywhere, the last
    of them not valid.
    """
    random, n = np.random.default_rng(seed), len(counts)
    image = np.zeros((n, SIDE, SIDE, 3), dtype)
    image[:, :28, :30] = random.uniform(0, 255, (n, 28, 30, 3))
    corner = random.uniform(0, 15, (n, ROWS, 2))
    boxes = np.concatenate([corner, corner + random.uniform(4, 13, (n, ROWS, 2))], -1).astype(dtype)
    valid = np.arange(ROWS) < np.asarray(counts)[:, None]
    ignore = valid & (np.arange(ROWS) == 4)
    boxes[~valid] = 0
    labels = np.where(valid, random.integers(0, CLASSES, (n, ROWS)), 0).astype(np.int32)
    size, index = np.tile(np.int32([[28, 30]]), (n, 1)), np.arange(n, dtype=np.int32)
    target = Objects(boxes, labels, valid, ignore, masks=ellipses(boxes))
    near = np.concatenate([corner, corner + 9], -1) + random.uniform(-2, 2, (n, ROWS, 4))
    corner = random.uniform(0, 20, (n, 15, 2))
    anywhere = np.concatenate([corner, corner + random.uniform(2, 20, (n, 15, 2))], -1)
    proposed = np.concatenate([near, anywhere], 1).astype(dtype)
    there = np.tile(np.arange(ROWS + 15) < ROWS + 12, (n, 1))
    given = Objects(proposed, np.zeros(there.shape, np.int32), there, np.zeros(there.shape, bool))
    return jax.tree.map(jnp.asarray, Batch(image, size, size, index, index >= 0, target, given))


def ellipses(boxes):
    """The pixels of the canvas whose centres lie in the ellipse in each box."""
    centre = np.arange(SIDE) + 0.5
    x, y = (
        (centre - (boxes[..., a, None] + boxes[..., a + 2, None]) / 2)
        / np.maximum((boxes[..., a + 2, None] - boxes[..., a, None]) / 2, 1e-9)
        for a in (0, 1)
    )
    return x[..., None, :] ** 2 + y[..., :, None] ** 2 <= 1


def variables_of(task, batch, seed=1):
    """Random variables under which scores spread and statistics are positive."""
    spec = jax.eval_shape(task.init, jax.random.key(0), batch)
    random = np.random.default_rng(seed)

    def fill(path, leaf):
        normal = random.standard_normal(leaf.shape)
        if path[-1].key == "var":
            normal = np.exp(0.1 * normal)
        elif leaf.ndim > 1:
            normal = 1.5 * normal / np.sqrt(np.prod(leaf.shape[:-1]))
        return jnp.asarray(normal, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, spec)


def loss_and_gradient(task):
    """`(variables, batch) -> (loss, output), gradient` of the parameters."""

    def run(variables, batch):
        rest = {name: tree for name, tree in variables.items() if name != "params"}
        of = lambda params: task.loss({"params": params, **rest}, batch, jax.random.key(0))
        return jax.value_and_grad(of, has_aux=True)(variables["params"])

    return run
