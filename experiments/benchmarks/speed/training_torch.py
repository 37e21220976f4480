"""Sides of torchvision's and timm's classifiers, and of a U-Net in PyTorch, in `training` and `training_gpu`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn import functional

from experiments.benchmarks.speed import scenes
from experiments.benchmarks.speed.contest import Work
from experiments.benchmarks.speed.torch_step import adamw, load, normalised, on_device, sgd, work


def step(network: str, batch: int, size: Sequence[int], dtype: str = "float32", compiled=False, **options: Any) -> Work:
    """Training steps of a network; the options are those of its function below."""
    model = load(NETWORKS[network](size=size, **options))
    given = (scenes.mapped if network == "unet" else scenes.classified)(batch, size, options["classes"])
    images, labels = on_device(given.images), on_device(given.labels).long()
    loss = lambda images, labels: functional.cross_entropy(model(normalised(images)), labels)
    if compiled:
        loss = torch.compile(loss)
    optimizer = adamw(model.parameters(), 0.05) if "vit" in network else sgd(model.parameters(), 1e-3)
    return work(model, lambda: loss(images, labels), optimizer, dtype)


def resnet(size: Sequence[int], depth: int, classes: int, stem: str) -> nn.Module:
    """The ResNet of torchvision; in CIFAR form its first convolution is 3x3, and nothing is pooled behind it."""
    model = getattr(torchvision.models, f"resnet{depth}")(num_classes=classes)
    if stem == "cifar":
        model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return model


def timm_resnet(size: Sequence[int], depth: int, classes: int, stem: str) -> nn.Module:
    """The ResNet of timm."""
    import timm

    if stem != "imagenet":
        raise ValueError(f"stem={stem!r}: timm's ResNet is compared in its form for ImageNet")
    return timm.create_model(f"resnet{depth}", num_classes=classes)


def vit(size: Sequence[int], form: str, classes: int, depth: int = 12) -> nn.Module:
    """The vision transformer of timm."""
    import timm

    return timm.create_model(f"{form}_patch16_224", num_classes=classes, img_size=tuple(size), depth=depth)


class UNet(nn.Module):
    """U-Net (arXiv:1505.04597) with padded convolutions; modules have the names that ours have."""

    def __init__(self, classes: int, width: int, depth: int):
        super().__init__()
        self.depth = depth
        before = 3
        for scale in range(1, depth + 2):
            before = self._pair(f"down{scale}", before, width * 2 ** (scale - 1))
        for scale in range(depth, 0, -1):
            channels = width * 2 ** (scale - 1)
            self.add_module(f"up{scale}_upconv", nn.ConvTranspose2d(2 * channels, channels, 2, stride=2))
            self._pair(f"up{scale}", 2 * channels, channels)
        self.head = nn.Conv2d(width, classes, 1)

    def _pair(self, name: str, before: int, channels: int) -> int:
        self.add_module(f"{name}_conv1", nn.Conv2d(before, channels, 3, padding=1))
        self.add_module(f"{name}_conv2", nn.Conv2d(channels, channels, 3, padding=1))
        return channels

    def _convolved(self, name: str, x: torch.Tensor) -> torch.Tensor:
        for number in (1, 2):
            x = functional.relu(self.get_submodule(f"{name}_conv{number}")(x))
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        copies = []
        for scale in range(1, self.depth + 1):
            x = self._convolved(f"down{scale}", x)
            copies.append(x)
            x = functional.max_pool2d(x, 2)
        x = self._convolved(f"down{self.depth + 1}", x)
        for scale in range(self.depth, 0, -1):
            x = self.get_submodule(f"up{scale}_upconv")(x)
            x = self._convolved(f"up{scale}", torch.cat([copies.pop(), x], 1))
        return self.head(x)


def unet(size: Sequence[int], classes: int, width: int, depth: int = 4) -> nn.Module:
    """The U-Net above."""
    return UNet(classes, width, depth)


NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    **{"resnet": resnet, "timm_resnet": timm_resnet, "vit": vit, "unet": unet},
}
