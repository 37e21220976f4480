"""Programs of every network and task, small, as they are exported, and a trial of one. Not a test itself."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from detectors import EVERY as DETECTORS
from detectors import make_batch as detection_batch
from detectors import variables_of
from segmenters import EVERY as SEGMENTERS
from segmenters import make_batch as segmentation_batch

from jaxvision.nn import convnext, darknet, googlenet, mobilenet, resnet, rnn, squeezenet, vgg, vit
from jaxvision.nn.cnn import FolderCNN, SmallCNN, TutorialCNN
from jaxvision.nn.head import Head, WithHead
from jaxvision.nn.inception import InceptionV3
from jaxvision.nn.norm import BatchNorm
from jaxvision.tasks.attributes import AttributeHeads, attributes
from jaxvision.tasks.classification import classification
from jaxvision.trust.export import program, writing
from jaxvision.trust.export.formats import FORMATS
from jaxvision.types import Batch

GIVEN = ("fast_rcnn", "rcnn")
"""Detectors that are given proposals."""
STAGES = mobilenet.Stage(1, 4, 1, 1), mobilenet.Stage(2, 8, 2, 2)
MODULES = dict.fromkeys(("3a", "4a", "4d", "5a"), (4, 4, 8, 4, 8, 4))
NETWORKS = {
    "small_cnn": (partial(SmallCNN, 3, (4, 8), dropout=0.0), 16),
    "tutorial_cnn": (partial(TutorialCNN, 3), 32),
    "folder_cnn": (partial(FolderCNN, 3), 64),
    "resnet18": (partial(resnet.resnet18, 3, width=4), 32),
    "bottleneck": (lambda: resnet.ResNet(resnet.Backbone(resnet.Bottleneck, (1, 1), 4, "cifar"), 3), 16),
    "resnext": (lambda: resnet.ResNet(resnet.Backbone(resnet.Bottleneck, (1, 1), 4, groups=2), 3), 32),
    "mobilenet_v2": (lambda: mobilenet.MobileNet(mobilenet.Backbone(STAGES, 4), 3, 8), 16),
    "efficientnet_lite": (
        lambda: mobilenet.MobileNet(
            mobilenet.Backbone(STAGES, 4, padding="same", norm=mobilenet.tensorflow_norm), 3, 8
        ),
        16,
    ),
    "vgg": (lambda: vgg.VGG(vgg.Backbone((1, 1), (4, 8)), 3, 8), 16),
    "vgg_bn": (lambda: vgg.VGG(vgg.Backbone((1, 1), (4, 8), norm=BatchNorm), 3, 8), 16),
    "squeezenet": (partial(squeezenet.SqueezeNet, ((2, 2), (4,)), 8, 3, 5), 32),
    "googlenet": (partial(googlenet.GoogLeNet, 3, modules=MODULES), 32),
    "inception_v3": (partial(InceptionV3, 3), 75),
    "convnext": (lambda: convnext.ConvNeXt(convnext.Backbone((1, 2, 1), width=8), 3), 32),
    "vit": (partial(vit.ViT, 4, 16, 2, 2, 3), 16),
    "vit_backbone": (lambda: WithHead(vit.Backbone(4, 16, 2, 2, grid=4), Head(3)), 16),
    "darknet53": (lambda: WithHead(darknet.Darknet53((1, 1, 1), 4), Head(3)), 16),
    "lstm": (partial(rnn.RNNClassifier, 3, hidden=8), 16),
    "gru": (lambda: rnn.RNNClassifier(3, rnn.nn.GRUCell, 8), 16),
}
"""Networks of three classes, and the side of their images."""
NAMES = (*NETWORKS, "attributes", *SEGMENTERS, *DETECTORS)


def made(name):
    """The program of this network or task with random variables, and two images."""
    if name in NETWORKS:
        make, side = NETWORKS[name]
        task, batch = classification(make()), images(side)
    elif name == "attributes":
        heads = AttributeHeads(resnet.Backbone(resnet.BasicBlock, (1, 1), 4), {"colour": 3, "ripe": 2})
        task, batch = attributes(heads), images(32).replace(given=jnp.float32([[0.1, 0.1, 0.5, 0.6]] * 2))
    elif name in SEGMENTERS:
        task, batch = SEGMENTERS[name](), segmentation_batch(2, dtype=np.float32)
    else:
        task, batch = DETECTORS[name](), detection_batch((3, 1), dtype=np.float32)
        batch = batch if name in GIVEN else batch.replace(given=None)
    batch = batch.replace(image=batch.image.astype(jnp.uint8), target=None)
    return program.program_of(task, spread(variables_of(task, batch)), batch)


def spread(variables):
    """Variables under which scores are apart: with larger ones many are 1 but for rounding, and so is their order."""
    return variables | {"params": jax.tree.map(lambda x: 0.7 * x if x.ndim > 1 else x, variables["params"])}


def images(side):
    image = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    size, index = np.full((2, 2), side, np.int32), np.arange(2, dtype=np.int32)
    return jax.tree.map(jnp.asarray, Batch(image, size, size, index, index >= 0))


def trial(made, format, folder):
    """What the manifest says of a file in this folder, which was tried."""
    writing.write_example(folder / "example.npz", made)
    manifest = {"date": "2026-12-01", "command": "it", "inputs": writing.inputs_of(made)}
    return writing.written(format, FORMATS[format], made, folder, manifest)
