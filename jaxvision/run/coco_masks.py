"""Masks in records of predictions, as COCO's JSON has them: run lengths, or polygons."""

from jaxvision.experiment import Record
from jaxvision.masks import runs
from jaxvision.masks.polygons import of_polygons, outline
from jaxvision.masks.runs import Runs


def segmentation(mask: Runs, *, polygons: bool = False) -> Record | list[list[float]]:
    """A mask as COCO's JSON has it: run lengths, or polygons along the edges of its pixels where it has no hole."""
    found = outline(mask) if polygons else None
    return mask.coco() if found is None else [list(map(float, each)) for each in found]


def mask_of(told: Record | list[list[float]], size: tuple[int, int]) -> Runs:
    """The mask that `segmentation` told, of an image of this height and width."""
    return runs.of_coco(told) if isinstance(told, dict) else of_polygons(told, size)
