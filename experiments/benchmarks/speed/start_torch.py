"""Program of PyTorch in the benchmark `start`: what timm's `train.py` does until its first step, for the same network."""

import argparse
import json
import os

import torch
import torchvision.utils  # noqa: F401, as there
import yaml  # noqa: F401, as there
from timm import utils
from timm.data import AugMixDataset, FastCollateMixup, Mixup, create_dataset, create_loader  # noqa: F401, as there
from timm.loss import LabelSmoothingCrossEntropy  # noqa: F401, as there
from timm.models import create_model  # noqa: F401, as there
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from experiments.benchmarks.speed.start_data import fashion_mnist

parser = argparse.ArgumentParser(description="PyTorch ImageNet Training")
parser.add_argument("--workdir", required=True, help="path to output folder")
parser.add_argument("--batch-size", type=int, default=128)
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--lr", type=float, default=6e-3)
parser.add_argument("--weight-decay", type=float, default=0.02)
parser.add_argument("--dropout", type=float, default=0.4)
parser.add_argument("--workers", type=int, default=2)
parser.add_argument("--model-ema-decay", type=float, default=0.99)


def network(dropout: float) -> nn.Module:
    """The network of the quickstart."""
    layers, width = [], 1
    for channels in (16, 32, 64):
        for _ in range(2):
            layers += [nn.Conv2d(width, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            width = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(64 * 3 * 3, 10))


def main() -> None:
    arguments = parser.parse_args()
    utils.setup_default_logging()
    utils.random_seed(0, 0)
    model = network(arguments.dropout)
    averaged = utils.ModelEmaV3(model, decay=arguments.model_ema_decay)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=arguments.lr, weight_decay=arguments.weight_decay)
    scheduler, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=arguments.epochs)
    images, labels = map(torch.from_numpy, fashion_mnist("train"))
    data = TensorDataset(images.permute(0, 3, 1, 2), labels.long())
    loader = DataLoader(data, arguments.batch_size, shuffle=True, num_workers=arguments.workers, drop_last=True)
    model.train()
    for batch, targets in loader:
        flipped = torch.where(torch.rand(len(batch), 1, 1, 1) < 0.5, batch.flip(3), batch)
        loss = nn.functional.cross_entropy(model((flipped.float() - 73.0) / 90.0), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        averaged.update(model)
        scheduler.step_update(num_updates=1)
        parameters = sum(each.numel() for each in model.parameters())
        print(json.dumps({"parameters": parameters, "batch": len(batch)}), flush=True)
        os._exit(0)


if __name__ == "__main__":
    main()
