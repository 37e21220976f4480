"""The networks of other libraries that ours are compared with. Imports torch, torchvision and timm: for parity runs alone."""

import timm
import torchvision
from timm.models.vision_transformer import VisionTransformer
from torch import nn


def of_torchvision(name, **options):
    """torchvision's network of this name for 1000 classes, with random weights, and with auxiliary heads if it has any."""
    if name.startswith(("vgg", "inception", "googlenet")):
        options["init_weights"] = False
    if name in ("inception_v3", "googlenet"):
        options["aux_logits"] = True
    return getattr(torchvision.models, name)(**options)


def of_timm(name):
    """timm's network of this name for 1000 classes; a ViT of a size and patch that it has no name for by its arguments."""
    sizes = {
        "vit_tiny": (192, 12, 3),
        "vit_small": (384, 12, 6),
        "vit_base": (768, 12, 12),
        "vit_large": (1024, 24, 16),
    }
    size = name.partition("_patch14")[0]
    if size != name and name not in timm.list_models():
        width, depth, heads = sizes[size]
        return VisionTransformer(patch_size=14, embed_dim=width, depth=depth, num_heads=heads)
    return timm.create_model(name)


class Recurrent(nn.Module):
    """Rows of an image through two layers; the last output through a linear layer."""

    def __init__(self, layer, size, hidden, classes):
        super().__init__()
        self.rnn = layer(size, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, images):
        rows = images.permute(0, 2, 3, 1).flatten(2)
        return self.head(self.rnn(rows)[0][:, -1])


def recurrent(name):
    """An LSTM or a GRU of 32 units for images of 12x10 pixels."""
    return Recurrent({"lstm": nn.LSTM, "gru": nn.GRU}[name], 10 * 3, 32, 10)


def folder_network(channels, hidden, classes, features):
    """Three 3x3 convolutions, each with ReLU and 2x2 pooling, and two dense layers, behind `features` pixels."""
    layers = []
    for before, after in zip((3, *channels[:-1]), channels, strict=True):
        layers += [nn.Conv2d(before, after, 3), nn.ReLU(), nn.MaxPool2d(2)]
    dense = [nn.Flatten(), nn.Linear(channels[-1] * features, hidden), nn.ReLU(), nn.Dropout()]
    return nn.Sequential(*layers, *dense, nn.Linear(hidden, classes))


def small_network():
    """Stages of two 3x3 convolutions with normalisation, ReLU and pooling, and a head for 10 classes: 28x28 pixels, grey."""
    layers, before = [], 1
    for channels in (16, 32, 64):
        for _ in range(2):
            layers += [nn.Conv2d(before, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            before = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.4), nn.Linear(64 * 9, 10))


def tutorial_network():
    """Two 5x5 convolutions with ReLU and pooling, dense layers of 120, 84 and 10: 32x32 pixels."""
    model = nn.Sequential()
    for name, before, after in (("conv1", 3, 6), ("conv2", 6, 16)):
        model.add_module(name, nn.Conv2d(before, after, 5))
        model.add_module(f"{name}_relu", nn.ReLU())
        model.add_module(f"{name}_pool", nn.MaxPool2d(2))
    model.add_module("flatten", nn.Flatten())
    for name, before, after in (("fc1", 400, 120), ("fc2", 120, 84)):
        model.add_module(name, nn.Linear(before, after))
        model.add_module(f"{name}_relu", nn.ReLU())
    model.add_module("fc3", nn.Linear(84, 10))
    return model
