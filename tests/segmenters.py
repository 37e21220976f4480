"""Small semantic segmenters of every kind, and a batch for them: what the laws of segmentation are tested on."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.nn import resnet, vgg
from jaxvision.nn.norm import BatchNorm
from jaxvision.tasks.deeplab import DeepLabHead, deeplab
from jaxvision.tasks.fcn import FCN, FCNHead, SkipFCN, fcn, skip_fcn
from jaxvision.tasks.segmentation import segmenter
from jaxvision.tasks.u2net import Stage, U2Net, salient_objects
from jaxvision.tasks.unet import BackboneUNet, UNet, unet
from jaxvision.types import Batch, SegmentationMap, Task

CLASSES, SIDE = 3, 32


def dilated(norm, dtype):
    """A residual network whose last stage of two blocks has dilation in the second, both maps stride 4."""
    return resnet.Backbone(resnet.Bottleneck, (1, 2), width=4, output_stride=4, norm=norm, dtype=dtype)


def small_fcn(dtype=jnp.float32, norm=BatchNorm, **options):
    """Maps of stride 4, an auxiliary head, no dropout."""
    heads = [FCNHead(CLASSES, dropout=0.0, norm=norm, dtype=dtype) for _ in range(2)]
    return fcn(FCN(dilated(norm, dtype), *heads), mean=127.5, std=64.0, dtype=dtype, **options)


def small_deeplab(dtype=jnp.float32, norm=BatchNorm, **options):
    """Maps of stride 4, two rates, an auxiliary head, no dropout."""
    head = DeepLabHead(CLASSES, (1, 2), 8, dropout=0.0, norm=norm, dtype=dtype)
    network = FCN(dilated(norm, dtype), head, FCNHead(CLASSES, dropout=0.0, norm=norm, dtype=dtype))
    return deeplab(network, mean=127.5, std=64.0, dtype=dtype, **options)


def small_skip_fcn(stride):
    """Five stages of one narrow convolution each, no dropout."""

    def make(dtype=jnp.float32, **options):
        backbone = vgg.Backbone((1, 1, 1, 1, 1), (4, 4, 6, 8, 8), ceil_pooling=True, dtype=dtype)
        network = SkipFCN(backbone, CLASSES, stride, hidden=16, dropout=0.0)
        return skip_fcn(network, mean=127.5, std=64.0, dtype=dtype, **options)

    return make


def small_unet(dtype=jnp.float32, **options):
    """The paper's, two scales below the image, four channels, no dropout."""
    network = UNet(CLASSES, width=4, depth=2, dropout=0.0, dtype=dtype)
    return unet(network, mean=127.5, std=64.0, dtype=dtype, **options)


def small_resnet_unet(dtype=jnp.float32, **options):
    """Maps of stride 4 and 8 in the contracting path."""
    backbone = resnet.Backbone(resnet.BasicBlock, (1, 1), width=4, dtype=dtype)
    network = BackboneUNet(backbone, CLASSES, (8, 4, 4), dtype=dtype)
    return segmenter(network, mean=127.5, std=64.0, dtype=dtype, **options)


def small_u2net(dtype=jnp.float32):
    """Two scales; all classes but the first are one object."""
    network = U2Net((Stage(4, 3, 5), Stage(3, 3, 5, True)), (Stage(4, 3, 5),), dtype=dtype)
    inner = salient_objects(network, mean=127.5, std=64.0, dtype=dtype)

    def loss(variables, batch, key):
        label = batch.target.label
        binary = jnp.where(label < CLASSES, jnp.minimum(label, 1), label)
        return inner.loss(variables, batch.replace(target=batch.target.replace(label=binary)), key)

    return Task(inner.init, loss, inner.predict)


EVERY = {
    "fcn": small_fcn,
    "deeplab": small_deeplab,
    "fcn32s": small_skip_fcn(32),
    "fcn16s": small_skip_fcn(16),
    "fcn8s": small_skip_fcn(8),
    "unet": small_unet,
    "resnet_unet": small_resnet_unet,
    "u2net": small_u2net,
}
BINARY = ("u2net",)
"""Those of two classes, whatever the target has."""


def make_batch(count=4, seed=0, dtype=np.float64):
    """Noise in squares, classed by how bright they are; the content is 28 x 30 pixels of the canvas, a fifth of it void."""
    random = np.random.default_rng(seed)
    level = random.uniform(0, 255, (count, SIDE // 4, SIDE // 4)).repeat(4, 1).repeat(4, 2)
    image = np.zeros((count, SIDE, SIDE, 3), dtype)
    image[:, :28, :30] = 0.5 * level[:, :28, :30, None] + random.uniform(0, 127, (count, 28, 30, 3))
    label = np.int32(level * CLASSES / 256)
    valid = random.uniform(0, 1, label.shape) > 0.2
    valid[:, 28:], valid[:, :, 30:] = False, False
    size, index = np.tile(np.int32([[28, 30]]), (count, 1)), np.arange(count, dtype=np.int32)
    target = SegmentationMap(np.where(valid, label, 0), valid)
    return jax.tree.map(jnp.asarray, Batch(image, size, size, index, index >= 0, target))
