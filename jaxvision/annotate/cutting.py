"""Cutting: masks for objects that have a box alone, by a network that finds what stands out in a photograph.

The box is seen with a quarter of its sides around it, since what fills an image to its edges does not stand out; the mask is
cut to the box.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from jaxvision.annotate.labeller import digest
from jaxvision.annotate.records import Annotation
from jaxvision.errors import ConfigError
from jaxvision.experiment import Output, Record, Selection
from jaxvision.formats.annotation import Box
from jaxvision.formats.image_file import Size
from jaxvision.masks.class_map import class_map
from jaxvision.masks.runs import Runs, of_window
from jaxvision.run import prediction
from jaxvision.run.prediction import Model
from jaxvision.types import Canvas, PixelScores

MARGIN = 4
"""Part of the sides of a box, one in so many, that is seen around it."""
CLASSES = ("background", "object")
"""Classes of a network that cuts objects out."""

Window = tuple[int, int, int, int]
"""`x0 y0 x1 y1` in whole pixels of the image."""


class Cutter(NamedTuple):
    """A network that tells what stands out from what does not."""

    model: Model
    name: str
    """Its name and the digest of its variables."""

    def cut(self, images: Iterable[tuple[UInt8[np.ndarray, "h w c"], Sequence[Annotation]]]) -> list[list[Annotation]]:
        """The objects of images with masks, in order; those that have one keep it, and those with none in their box get none.

        Each image is its pixels and its objects.
        """
        images = list(images)
        boxes = [
            (image, row)
            for image, (_, found) in enumerate(images)
            for row, each in enumerate(found)
            if not each.segmentation
        ]
        result = [list(found) for _, found in images]
        seen = (seen_around(images[image][0], result[image][row].box) for image, row in boxes)
        for (image, row), mask in zip(boxes, self._masks(seen), strict=True):
            pixels, each = images[image][0], result[image][row]
            runs = _in_box(mask, each.box, (pixels.shape[0], pixels.shape[1]))
            result[image][row] = each._replace(segmentation=runs)
        return result

    def _masks(self, seen: Iterable[UInt8[np.ndarray, "h w c"]]) -> Iterator[np.ndarray]:
        shown = ((("", None), self.model.preprocessing(pixels)) for pixels in seen)
        for each in self.model.stream(shown, Selection(CLASSES)):
            yield each.record["mask"]


def cutter(name: str, batch_size: int | None = None) -> Cutter:
    """The network of this name, such as "u2netp", or of a run.

    Raises:
      ConfigError: for a network that does not tell objects from a background.
      WorkdirError, CheckpointError, WeightsError: as `run.load`.
    """
    return of_model(prediction.load(name, batch_size=batch_size), name)


def of_model(model: Model, name: str) -> Cutter:
    """The network of a model that is loaded. Raises ConfigError as `cutter` does."""
    shapes: Any = jax.eval_shape(model.task.predict, model.variables, model.spec)
    if not isinstance(shapes, PixelScores) or model.classes != CLASSES:
        raise ConfigError(
            f"--masks={name}: allowed is a segmenter with the classes {', '.join(CLASSES)}, such as u2netp; this has "
            f"{', '.join(model.classes[:8])}"
        )
    return Cutter(model._replace(output=MASKS), f"{name} {digest(model)}")


def _mask_record(scores: PixelScores, canvas: Canvas, selection: Selection) -> Record:
    return {"mask": class_map(np.asarray(scores.logits), canvas) == 1}


MASKS = Output(_mask_record)
"""Output that a cutter's model has: the mask of what it is shown."""


def window_of(box: Box, size: Size) -> Window:
    """The part of the box in an image of this size in whole pixels, one pixel at least."""
    height, width = size
    x0, y0 = (min(max(int(start), 0), side - 1) for start, side in ((box[0], width), (box[1], height)))
    return x0, y0, min(max(int(np.ceil(box[2])), x0 + 1), width), min(max(int(np.ceil(box[3])), y0 + 1), height)


def around(box: Box, size: Size) -> Window:
    """The window with a quarter of its sides around it, as far as the image goes."""
    x0, y0, x1, y1 = window_of(box, size)
    across, down = round((x1 - x0) / MARGIN), round((y1 - y0) / MARGIN)
    return max(x0 - across, 0), max(y0 - down, 0), min(x1 + across, size[1]), min(y1 + down, size[0])


def seen_around(pixels: UInt8[np.ndarray, "h w c"], box: Box) -> UInt8[np.ndarray, "y x c"]:
    """What the network is shown of a box."""
    x0, y0, x1, y1 = around(box, (pixels.shape[0], pixels.shape[1]))
    return np.ascontiguousarray(pixels[y0:y1, x0:x1])


def _in_box(mask: np.ndarray, box: Box, size: Size) -> Runs | None:
    """What a mask of the window around a box has inside the box, as a mask of the image."""
    (x0, y0, x1, y1), (left, top, _, _) = window_of(box, size), around(box, size)
    inside = mask[y0 - top : y1 - top, x0 - left : x1 - left]
    return of_window(inside, (y0, x0), (int(size[0]), int(size[1]))) if inside.any() else None
