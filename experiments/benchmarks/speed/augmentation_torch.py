"""Side of torchvision in the benchmark `augmentation`."""

import torch
from torchvision.transforms import v2

from experiments.benchmarks.speed.augmentation_images import COMPARED, images, told
from experiments.benchmarks.speed.contest import Work

BILINEAR = v2.InterpolationMode.BILINEAR
COLOURS = v2.ColorJitter(0.4, 0.4, 0.4, 0.1)
AFFINE = v2.RandomAffine(40, (0.2, 0.2), (0.8, 1.2), (-11.3, 11.3), BILINEAR)
"""Shear of 0.2 pixels per pixel, in degrees."""
POLICIES = {
    "crop_and_flip": lambda side: [v2.RandomCrop(side, 4), v2.RandomHorizontalFlip()],
    "resized_crop": lambda side: [v2.RandomResizedCrop(side, antialias=False), v2.RandomHorizontalFlip()],
    "affine": lambda side: [AFFINE],
    "colours": lambda side: [COLOURS],
    "affine_colours_erasing": lambda side: [AFFINE, COLOURS, v2.RandomErasing()],
    "randaugment": lambda side: [v2.RandAugment(interpolation=BILINEAR)],
    "trivialaugment": lambda side: [v2.TrivialAugmentWide(interpolation=BILINEAR)],
    "augmix": lambda side: [v2.AugMix(all_ops=False, interpolation=BILINEAR)],
}


def work(policy: str, side: int, count: int) -> Work:
    """A policy on each image of a batch."""
    batch = torch.from_numpy(images(side, count)).permute(0, 3, 1, 2).contiguous()
    transform = v2.Compose(POLICIES[policy](side))
    once = lambda: torch.stack([transform(image) for image in batch])

    def run(units: int) -> None:
        for _ in range(units):
            once()

    def outcome() -> list[float]:
        torch.manual_seed(0)
        return told(batch.numpy(), [once().numpy() for _ in range(COMPARED)])

    return Work(run, outcome)
