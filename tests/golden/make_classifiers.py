"""Writes the golden files of the classifiers but ResNet, with torchvision, timm and torch, in float64.

PYTHONPATH=tests python tests/golden/make_classifiers.py
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from parity_networks import compute_torch, random_images, random_weights, shapes_torch, summary
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models import mobilenetv2, squeezenet, vgg

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


class Recurrent(nn.Module):
    """Rows of an image through two layers; the last output through a linear layer."""

    def __init__(self, layer, size):
        super().__init__()
        self.rnn = layer(size, 8, num_layers=2, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images):
        rows = images.permute(0, 2, 3, 1).flatten(2)
        return self.head(self.rnn(rows)[0][:, -1])


def folder_network():
    """Three 3x3 convolutions, each with ReLU and 2x2 pooling, and two dense layers; 34x38 pixels end as 2x3."""
    layers = []
    for before, after in ((3, 4), (4, 6), (6, 8)):
        layers += [nn.Conv2d(before, after, 3), nn.ReLU(), nn.MaxPool2d(2)]
    dense = [nn.Flatten(), nn.Linear(8 * 2 * 3, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, CLASSES)]
    return nn.Sequential(*layers, *dense)


if __name__ == "__main__":
    write("vgg", small_vgg(False), (4, 64, 64, 3))
    write("vgg_bn", small_vgg(True), (4, 64, 64, 3))
    rows = [[1, 8, 1, 1], [6, 16, 2, 2], [6, 24, 1, 2]]
    write("mobilenet_v2", mobilenetv2.MobileNetV2(CLASSES, 0.75, inverted_residual_setting=rows), (4, 32, 36, 3))
    write("efficientnet_lite", small_efficientnet(False), (4, 33, 38, 3))
    write("tf_efficientnet_lite", small_efficientnet(True), (4, 33, 38, 3))
    transformer = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    write("vit", VisionTransformer(**transformer, num_classes=CLASSES), (4, 16, 16, 3))
    write("squeezenet", small_squeezenet(), (4, 40, 37, 3))
    write("lstm", Recurrent(nn.LSTM, 7 * 3), (4, 9, 7, 3))
    write("gru", Recurrent(nn.GRU, 7 * 3), (4, 9, 7, 3))
    write("folder_cnn", folder_network(), (4, 34, 38, 3))
    inception = torchvision.models.inception_v3(num_classes=CLASSES, aux_logits=False, init_weights=False)
    write("inception_v3", inception, (2, 139, 139, 3))
