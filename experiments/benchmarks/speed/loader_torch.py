"""Side of PyTorch in the benchmark `loader`: a DataLoader with a process for each core, PIL and torchvision's transforms."""

import os

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.transforms import functional

from experiments.benchmarks.speed import photographs
from experiments.benchmarks.speed.contest import Work


class Photographs(Dataset):
    """The crops by position."""

    def __init__(self, count: int, side: int):
        self.crops, self.side = photographs.read_crops(count), side
        self.boxes = self.crops.boxes.tolist()

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        path, (left, top, right, bottom) = self.crops.paths[position], self.boxes[position]
        with Image.open(path) as file:
            image = file.convert("RGB")
        cropped = functional.resized_crop(image, top, left, bottom - top, right - left, [self.side, self.side])
        return functional.pil_to_tensor(cropped), int("second" in path)


def loader(count: int, batch: int, side: int) -> Work:
    """One pass, whatever is asked for; the processes stay from pass to pass."""
    dataset = Photographs(count, side)
    passes = DataLoader(dataset, batch, num_workers=len(os.sched_getaffinity(0)), persistent_workers=True)

    def run(units: int) -> None:
        for _ in passes:
            pass

    def outcome() -> list[float]:
        images, _ = next(iter(DataLoader(Subset(dataset, range(batch)), batch)))
        return photographs.means(images.permute(0, 2, 3, 1).numpy())

    return Work(run, outcome)
