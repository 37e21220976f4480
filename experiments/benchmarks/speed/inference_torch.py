"""Sides of torchvision in the benchmark `inference`: batch after batch, decoded by the loop itself or by a DataLoader."""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from experiments.benchmarks.speed import photographs, weight_files
from experiments.benchmarks.speed.contest import Work

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEAST_SCORE, TOLD = 0.02, 5
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Predict = Callable[[torch.Tensor], list[Any]]
"""From a batch of what the transform gives to what is told of each image."""


class Files(Dataset):
    """Image files, transformed."""

    def __init__(self, count: int, transform: Callable[[Image.Image], torch.Tensor]):
        self.files, self.transform = photographs.files(count), transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.files[index]) as file:
            return self.transform(file.convert("RGB"))


def classifier(network: str, side: int, batch: int, count: int, loader: bool) -> Work:
    """A ResNet; of each image the best classes."""
    model = _filled(getattr(torchvision.models, network)(), network)
    mean, std = (torch.tensor(each, device=DEVICE).reshape(3, 1, 1) for each in (MEAN, STD))
    transform = v2.Compose([v2.Resize(side * 256 // 224), v2.CenterCrop(side), v2.PILToTensor()])

    def predict(images: torch.Tensor) -> list[Any]:
        scores = model((images.to(DEVICE) / 255 - mean) / std).softmax(1)
        return scores.topk(TOLD).values.tolist()

    return _work(Files(count, transform), predict, batch, loader)


def detector(network: str, side: int, batch: int, count: int, loader: bool) -> Work:
    """An SSD; of each image the best detections, their boxes in pixels of the file."""
    classes = weight_files.CLASSES + 1
    made = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=classes)
    model = _filled(made, network)
    transform = v2.Compose([v2.Resize((side, side)), v2.PILToTensor()])
    scale = torch.tensor([photographs.WIDTH, photographs.HEIGHT] * 2) / side

    def predict(images: torch.Tensor) -> list[Any]:
        return [_told(found, scale) for found in model(list(images.to(DEVICE) / 255))]

    return _work(Files(count, transform), predict, batch, loader)


def _told(found: dict[str, torch.Tensor], scale: torch.Tensor) -> list[float]:
    scores, boxes = found["scores"].cpu(), found["boxes"].cpu() * scale
    kept = scores >= LEAST_SCORE
    records = zip(scores[kept].tolist(), boxes[kept].tolist(), strict=True)
    return [number for score, box in islice(records, TOLD) for number in (score, *(1000 + side for side in box))]


def _filled(model: torch.nn.Module, name: str) -> torch.nn.Module:
    arrays = {key: torch.from_numpy(array) for key, array in weight_files.read(name).items()}
    missing, unknown = model.load_state_dict(arrays, strict=False)
    assert not unknown
    assert all(key.endswith("num_batches_tracked") for key in missing)
    return model.to(DEVICE, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def _work(files: Files, predict: Predict, batch: int, loader: bool) -> Work:
    workers = len(os.sched_getaffinity(0)) if loader else 0
    batches = DataLoader(files, batch, num_workers=workers, persistent_workers=loader)

    def shown(units: int) -> Iterator[torch.Tensor]:
        return islice(batches, max(units // batch, 1))

    def run(units: int) -> None:
        with torch.inference_mode():
            for images in shown(units):
                predict(images)

    def outcome() -> Sequence[float]:
        with torch.inference_mode():
            images = torch.stack([files[number] for number in range(min(batch, 2))])
            return [number for told in predict(images) for number in told]

    return Work(run, outcome)
