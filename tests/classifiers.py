"""Small classifiers with batch normalisation, one of every kind; a batch for them, every second image of it valid."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.nn import mobilenet, resnet, vgg
from jaxvision.nn.cnn import SmallCNN
from jaxvision.nn.googlenet import GoogLeNet
from jaxvision.nn.inception import InceptionV3, MixedA, MixedB, MixedC
from jaxvision.nn.norm import BatchNorm
from jaxvision.tasks.classification import classification
from jaxvision.types import Batch, Labels

DTYPE = {"dtype": jnp.float64}


def small_resnet(block):
    return resnet.ResNet(resnet.Backbone(block, (1, 1), 4, "cifar", **DTYPE), 3)


def small_mobilenet(kernel=3, **options):
    stages = mobilenet.Stage(1, 4, 1, 1), mobilenet.Stage(2, 8, 2, 2, kernel)
    return mobilenet.MobileNet(mobilenet.Backbone(stages, 4, **DTYPE, **options), 3, 8, dropout=0.0)


def small_vgg():
    return vgg.VGG(vgg.Backbone((1, 1), (4, 8), norm=BatchNorm, **DTYPE), 3, 8, dropout=0.0)


class ShortInception(InceptionV3):
    """Inception v3 with one module of a kind in the middle, where it has three and four that differ in width."""

    def _middle(self, x, train):
        part = {"dtype": self.dtype, "norm": self.norm, "count_border": self.count_border}
        x = MixedA(**part, pool=32, name="Mixed_5b")(x, train=train)
        x = MixedB(**part, name="Mixed_6a")(x, train=train)
        return MixedC(**part, inside=32, name="Mixed_6b")(x, train=train)


MODULES = dict.fromkeys(("3a", "4a", "4d", "5a"), (4, 4, 8, 4, 8, 4))
"""One module of GoogLeNet of every place: before and behind each pooling, and those that have a head."""

NETWORKS = {
    "small_cnn": (partial(SmallCNN, 3, (4, 8), dropout=0.0, **DTYPE), 16),
    "resnet": (partial(small_resnet, resnet.BasicBlock), 16),
    "mobilenet": (small_mobilenet, 16),
    "vgg": (small_vgg, 16),
    "resnet18": (partial(resnet.resnet18, 3, width=4, stem="cifar", **DTYPE), 16),
    "bottleneck": (partial(small_resnet, resnet.Bottleneck), 16),
    "efficientnet": (partial(small_mobilenet, 5, padding="same", norm=mobilenet.tensorflow_norm), 16),
    "googlenet": (
        partial(GoogLeNet, 3, auxiliary=True, dropout=0.0, auxiliary_dropout=0.0, modules=MODULES, **DTYPE),
        32,
    ),
    "inception": (partial(ShortInception, 3, dropout=0.0, **DTYPE), 75),
}
"""Networks of three classes, and the side of their images."""


def task_of(name):
    return classification(NETWORKS[name][0](), dtype=jnp.float64, auxiliary=0.3 if name == "googlenet" else None)


def half_valid(side, rows=8):
    """Noise in images of which every second is valid, and the valid ones alone."""
    random = np.random.default_rng(0)
    image, label = random.integers(0, 256, (rows, side, side, 3), np.uint8), random.integers(0, 3, rows, np.int32)
    size, index = np.full((rows, 2), side, np.int32), np.arange(rows, dtype=np.int32)
    batch = jax.tree.map(jnp.asarray, Batch(image, size, size, index, index % 2 == 0, Labels(label)))
    return batch, jax.tree.map(lambda x: x[::2], batch)


def compared(output, every=1):
    """All that a step computes, of every so many examples."""
    (loss, out), gradient = output
    return jax.device_get((loss, out.metrics, out.collections, out.example_loss[::every], gradient))
