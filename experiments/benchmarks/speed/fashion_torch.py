"""Side of torch in the benchmark `fashion_gpu`: the same network, schedule and augmentation, compiled, data on the device."""

import itertools

import torch
import torchvision
from torch import nn
from torch.nn import functional

from experiments.benchmarks.speed import fashion_files
from experiments.benchmarks.speed.contest import Work
from experiments.benchmarks.speed.torch_step import DEVICE


def training(
    folder: str, width: int, batch: int, epochs: int, goal: float, compiled: bool, images: int | None = None
) -> Work:
    """Trainings until the goal is reached, each with a seed of its own."""
    train, test = (
        [torch.tensor(each, device=DEVICE) for each in fashion_files.read(folder, split, images)]
        for split in ("train", "t10k")
    )
    model, half = network(width), torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda")
    start = {name: each.clone() for name, each in model.state_dict().items()}
    seeds, a_epoch = itertools.count(), max(len(train[0]) // batch, 1)

    def loss(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(
            model(normalised(images)), labels.long(), label_smoothing=fashion_files.SMOOTHING
        )

    score = lambda images, labels: (model(normalised(images)).argmax(-1) == labels).sum()
    if compiled:
        loss, score = torch.compile(loss), torch.compile(score)

    def accuracy() -> float:
        model.eval()
        with torch.no_grad(), half:
            pairs = zip(test[0].split(1000), test[1].split(1000), strict=True)
            right = torch.stack([score(images, labels) for images, labels in pairs]).sum().item()
        model.train()
        return right / len(test[1])

    def once() -> None:
        torch.manual_seed(next(seeds))
        model.load_state_dict(start)
        model.apply(lambda module: module.reset_parameters() if hasattr(module, "reset_parameters") else None)
        optimizer, reached = sgd(model), 0.0
        for epoch in range(epochs):
            places = torch.randperm(len(train[0]), device=DEVICE)
            for number in range(a_epoch):
                for group in optimizer.param_groups:
                    group["lr"] = fashion_files.rate(epoch * a_epoch + number, epochs * a_epoch, batch)
                chosen = places[number * batch : (number + 1) * batch]
                optimizer.zero_grad()
                with half:
                    value = loss(augmented(train[0][chosen]), train[1][chosen])
                value.backward()
                optimizer.step()
            if (reached := accuracy()) >= goal:
                return
        raise RuntimeError(f"{reached:.2%} after {epochs} epochs, not {goal:.0%}")

    def run(units: int) -> None:
        for _ in range(units):
            once()

    return Work(run, device_bytes=torch.cuda.max_memory_allocated if DEVICE == "cuda" else None)


def network(width: int) -> nn.Module:
    """ResNet-18 in CIFAR form for grey images, channels last."""
    parts = {"num_classes": 10, "width_per_group": 64}
    model = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [2, 2, 2, 2], **parts)
    if width != 64:
        narrow(model, width / 64)
    stem = model.bn1.num_features
    model.conv1, model.maxpool = nn.Conv2d(1, stem, 3, padding=1, bias=False), nn.Identity()
    return model.to(DEVICE, memory_format=torch.channels_last).train()


def narrow(model: nn.Module, part: float) -> None:
    """Replaces the layers by ones with this part of the channels."""
    for name, child in model.named_children():
        if isinstance(child, nn.Conv2d):
            inputs, outputs = (max(int(part * each), 1) for each in (child.in_channels, child.out_channels))
            shape = child.kernel_size, child.stride, child.padding
            setattr(model, name, nn.Conv2d(inputs, outputs, *shape, bias=False))
        elif isinstance(child, nn.BatchNorm2d):
            setattr(model, name, nn.BatchNorm2d(int(part * child.num_features)))
        elif isinstance(child, nn.Linear):
            setattr(model, name, nn.Linear(int(part * child.in_features), child.out_features))
        else:
            narrow(child, part)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum; kernels decay."""
    kernels = [each for each in model.parameters() if each.ndim > 1]
    rest = [each for each in model.parameters() if each.ndim == 1]
    groups = [{"params": kernels, "weight_decay": fashion_files.DECAY}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, 0.1, momentum=0.9, nesterov=True, fused=True)


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Pixels `b h w 1`, uint8, as the network sees them."""
    return ((images.float() - fashion_files.MEAN) / fashion_files.STD).permute(0, 3, 1, 2)


def augmented(images: torch.Tensor) -> torch.Tensor:
    """The images, each mirrored or not, and shifted."""
    count, side, shift = len(images), images.shape[1], fashion_files.SHIFT
    padded = functional.pad(images, (0, 0, shift, shift, shift, shift))
    flips = torch.rand(count, 1, device=images.device) < 0.5
    y, x = (
        torch.randint(0, 2 * shift + 1, (count, 1), device=images.device) + torch.arange(side, device=images.device)
        for _ in range(2)
    )
    x = torch.where(flips, x.flip(1), x)
    return padded[torch.arange(count, device=images.device)[:, None, None], y[:, :, None], x[:, None]]
