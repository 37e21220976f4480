"""Writes the golden files of the classifiers but ResNet, with torchvision, timm and torch, in float64.

PYTHONPATH=tests python tests/golden/make_classifiers.py [NAME ...]
"""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from parity_networks import compute_torch, random_images, random_weights, shapes_torch, summary
from parity_torch import Recurrent, folder_network
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models import convnext, mobilenetv2, resnet, squeezenet, vgg

SEED = 20260
CLASSES = 5


def write(name, model, images_shape):
    model = model.double()
    shapes = shapes_torch(model)
    images, labels = random_images(images_shape, CLASSES, SEED + 1)
    logits, loss, gradients, statistics = compute_torch(model, random_weights(shapes, SEED), images, labels)
    path = Path(__file__).parent / f"{name}.npz"
    np.savez_compressed(
        path,
        made_with=json.dumps({lib.__name__: lib.__version__ for lib in (torch, torchvision, timm)}),
        seed=SEED,
        images_shape=images_shape,
        shapes=[" ".join(map(str, (name, *shape))) for name, shape in shapes.items()],
        logits=logits,
        loss=loss,
        gradients=summary(gradients),
        statistics=summary(statistics).reshape(-1, 2),
    )
    print(path.name, path.stat().st_size, "bytes; largest logit", abs(logits).max(), "loss", loss)


def small_vgg(batch_norm):
    """torchvision's network with fewer channels; images of 64 pixels leave 2x2 to the adaptive pooling."""
    layers = vgg.make_layers([4, "M", 6, "M", 8, 8, "M", 8, 8, "M", 8, 8, "M"], batch_norm=batch_norm)
    model = vgg.VGG(layers, CLASSES)
    dense = [nn.Linear(8 * 7 * 7, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 16), nn.ReLU(), nn.Dropout()]
    model.classifier = nn.Sequential(*dense, nn.Linear(16, CLASSES))
    return model


def small_squeezenet():
    """torchvision's network with fewer channels and fire modules."""
    fire, pool = squeezenet.Fire, partial(nn.MaxPool2d, 3, stride=2, ceil_mode=True)
    model = squeezenet.SqueezeNet("1_1", CLASSES)
    features = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), pool()]
    features += [fire(8, 2, 8, 8), fire(16, 2, 8, 8), pool(), fire(16, 4, 16, 16)]
    model.features = nn.Sequential(*features)
    model.classifier[1] = nn.Conv2d(32, CLASSES, 1)
    return model


def small_efficientnet(same):
    """timm's network with fewer stages, and the padding and epsilon of `tf_efficientnet_lite0` if `same`."""
    stages = [["ds_r1_k3_s1_e1_c8"], ["ir_r2_k3_s2_e6_c16"], ["ir_r1_k5_s2_e6_c16"], ["ir_r2_k5_s1_e6_c24"]]
    return EfficientNet(
        decode_arch_def(stages),
        num_classes=CLASSES,
        num_features=32,
        stem_size=8,
        fix_stem=True,
        pad_type="same" if same else "",
        act_layer=nn.ReLU6,
        norm_layer=partial(nn.BatchNorm2d, eps=1e-3 if same else 1e-5),
    )


def small_resnext():
    """torchvision's network with one block a stage and few, narrow groups."""
    return resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=CLASSES, groups=4, width_per_group=8)


def small_basic_resnet():
    """torchvision's network with one basic block a stage, a 3x3 stem of stride 1 and no pooling behind it."""
    model = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=CLASSES)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return model


def small_convnext():
    """torchvision's network with three short, narrow stages."""
    stages = [convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, 32, 2), convnext.CNBlockConfig(32, None, 1)]
    return convnext.ConvNeXt(stages, num_classes=CLASSES)


def small_vit():
    return VisionTransformer(img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=CLASSES)


def small_mobilenet():
    rows = [[1, 8, 1, 1], [6, 16, 2, 2], [6, 24, 1, 2]]
    return mobilenetv2.MobileNetV2(CLASSES, 0.75, inverted_residual_setting=rows)


NETWORKS = {
    "vgg": (partial(small_vgg, False), (4, 64, 64, 3)),
    "vgg_bn": (partial(small_vgg, True), (4, 64, 64, 3)),
    "mobilenet_v2": (small_mobilenet, (4, 32, 36, 3)),
    "efficientnet_lite": (partial(small_efficientnet, False), (4, 33, 38, 3)),
    "tf_efficientnet_lite": (partial(small_efficientnet, True), (4, 33, 38, 3)),
    "vit": (small_vit, (4, 16, 16, 3)),
    "squeezenet": (small_squeezenet, (4, 40, 37, 3)),
    "lstm": (partial(Recurrent, nn.LSTM, 7 * 3, 8, CLASSES), (4, 9, 7, 3)),
    "gru": (partial(Recurrent, nn.GRU, 7 * 3, 8, CLASSES), (4, 9, 7, 3)),
    "folder_cnn": (partial(folder_network, (4, 6, 8), 16, CLASSES, 2 * 3), (4, 34, 38, 3)),
    "inception_v3": (
        partial(torchvision.models.inception_v3, num_classes=CLASSES, aux_logits=False, init_weights=False),
        (2, 139, 139, 3),
    ),
    "googlenet": (partial(torchvision.models.GoogLeNet, CLASSES, init_weights=False), (2, 65, 60, 3)),
    "resnet_basic_cifar": (small_basic_resnet, (4, 9, 8, 3)),
    "resnext": (small_resnext, (4, 33, 32, 3)),
    "convnext": (small_convnext, (4, 36, 40, 3)),
}

if __name__ == "__main__":
    for name in sys.argv[1:] or NETWORKS:
        make, shape = NETWORKS[name]
        write(name, make(), shape)
