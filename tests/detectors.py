"""Small detectors of every kind, and a batch for them: what the laws of detection are tested on."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.nn import darknet, resnet
from jaxvision.nn.ssd import SSD, Extra, Features
from jaxvision.tasks.ssd import paper, ssd
from jaxvision.tasks.yolo import yolo
from jaxvision.tasks.yolo_v1 import yolo_v1
from jaxvision.types import Batch, Objects

CLASSES, SIDE, ROWS = 3, 32, 5


def small_ssd(dtype=jnp.float32):
    """Two maps of a residual network and one extra: strides 4, 8, 16."""
    backbone = resnet.Backbone(resnet.BasicBlock, (1, 1), width=8, dtype=dtype)
    features = Features(backbone, 0, (Extra(8, 16),), dtype=dtype)
    defaults = paper((0.2, 0.4, 0.6, 0.9), ((2,), (2,), (2,)), (4, 8, 16))
    return ssd(SSD(features, CLASSES, (4, 4, 4), dtype=dtype), defaults, mean=127.5, std=64.0, dtype=dtype, count=20)


def small_yolov3_tiny(dtype=jnp.float32):
    """Strides 4 and 8."""
    priors = (((16, 16), (24, 12)), ((6, 6), (10, 8)))
    network = darknet.YOLOv3Tiny(darknet.DarknetTiny(4, 5, dtype=dtype), CLASSES, 2)
    return yolo(network, priors, dtype=dtype, count=20)


def small_yolov3(dtype=jnp.float32):
    """Strides 2, 4 and 8."""
    priors = (((16, 16),), ((10, 8),), ((5, 6),))
    network = darknet.YOLOv3(darknet.Darknet53((1, 1, 1), 4, dtype=dtype), CLASSES, 1)
    return yolo(network, priors, dtype=dtype, count=20)


def small_yolo_v1(dtype=jnp.float32):
    """A grid of 4 x 4 cells."""
    network = darknet.GridHead(darknet.DarknetTiny(4, 5, dtype=dtype), CLASSES, channels=8, dtype=dtype)
    return yolo_v1(network, mean=127.5, std=64.0, dtype=dtype, count=20)


EVERY = {
    "ssd": small_ssd,
    "yolov3_tiny": small_yolov3_tiny,
    "yolov3": small_yolov3,
    "yolo_v1": small_yolo_v1,
}


def make_batch(counts=(3, 1, 0, 5), seed=0, dtype=np.float64):
    """Noise with so many objects an image; the content is 28 x 30 pixels of the canvas; one object is to be ignored."""
    random, n = np.random.default_rng(seed), len(counts)
    image = np.zeros((n, SIDE, SIDE, 3), dtype)
    image[:, :28, :30] = random.uniform(0, 255, (n, 28, 30, 3))
    corner = random.uniform(0, 15, (n, ROWS, 2))
    boxes = np.concatenate([corner, corner + random.uniform(4, 13, (n, ROWS, 2))], -1).astype(dtype)
    valid = np.arange(ROWS) < np.asarray(counts)[:, None]
    ignore = valid & (np.arange(ROWS) == 4)
    boxes[~valid] = 0
    labels = np.where(valid, random.integers(0, CLASSES, (n, ROWS)), 0).astype(np.int32)
    size, index = jnp.tile(jnp.int32([[28, 30]]), (n, 1)), jnp.arange(n, dtype=jnp.int32)
    target = Objects(*map(jnp.asarray, (boxes, labels, valid, ignore)))
    return Batch(jnp.asarray(image), size, size, index, index >= 0, target)


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
