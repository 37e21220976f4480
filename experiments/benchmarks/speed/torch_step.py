"""Training steps in PyTorch: eager or compiled, channels last, with the weights that all sides share."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from experiments.benchmarks.speed.contest import Work
from experiments.benchmarks.speed.weights import weights

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


def load(model: torch.nn.Module, renamed: Callable[[str], str] = str) -> torch.nn.Module:
    """The model with the shared weights, channels last, on the device; all of its parameters are trained."""
    state = model.state_dict()
    names = {renamed(name): name for name in state if not name.endswith("num_batches_tracked")}
    filled = weights({name: tuple(state[place].shape) for name, place in names.items()})
    for name, place in names.items():
        state[place].copy_(torch.from_numpy(filled[name]))
    return model.requires_grad_(True).train().to(DEVICE, memory_format=torch.channels_last)


def on_device(array: np.ndarray) -> torch.Tensor:
    """The array as a tensor."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(DEVICE)


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Pixels `b h w 3`, uint8, as the network sees them: `b 3 h w`, channels last in memory."""
    mean, std = (torch.tensor(each, device=images.device) for each in (IMAGENET_MEAN, IMAGENET_STD))
    return ((images.float() - mean) / std).permute(0, 3, 1, 2)


def sgd(parameters: Iterable[torch.nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """SGD with momentum, fused."""
    return torch.optim.SGD(parameters, rate, 0.9, fused=True)


def adamw(parameters: Iterable[torch.nn.Parameter], decay: float) -> torch.optim.Optimizer:
    """AdamW with the rate 1e-4, fused."""
    return torch.optim.AdamW(parameters, 1e-4, weight_decay=decay, fused=True)


def work(
    model: torch.nn.Module,
    loss: Callable[[], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    dtype: str,
    clip: float | None = None,
    outcome: Callable[[], Sequence[torch.Tensor]] | None = None,
) -> Work:
    """Steps: loss, gradient, clipping to a norm, update. For the outcome see `training_ours.Made`."""
    half = torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == "bfloat16")
    parameters = list(model.parameters())

    def step(limit: float | None = clip) -> tuple[torch.Tensor, ...]:
        optimizer.zero_grad()
        with half:
            value = loss()
        value.backward()
        norm = () if limit is None else (torch.nn.utils.clip_grad_norm_(parameters, limit),)
        optimizer.step()
        return value.detach(), *norm

    def run(units: int) -> None:
        for _ in range(units):
            step()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    def compared() -> list[float]:
        if outcome is not None:
            with torch.no_grad(), half:
                return [float(each) for each in outcome()]
        limit = float("inf") if clip is None else clip
        first, second = step(limit), step(limit)
        found = [float(first[0]), float(first[1]), float(second[0])]
        return found if dtype == "float32" else found[:1]

    return Work(run, compared, device_bytes=torch.cuda.max_memory_allocated if DEVICE == "cuda" else None)
