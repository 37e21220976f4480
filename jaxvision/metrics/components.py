"""Objects as the connected parts of a map of classes: instance segmentation by a semantic segmenter."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxvision.errors import amount
from jaxvision.masks import packing, runs
from jaxvision.masks.class_map import class_map
from jaxvision.masks.runs import Runs
from jaxvision.metrics import file_masks
from jaxvision.metrics.classification import class_names
from jaxvision.metrics.file_masks import Readable
from jaxvision.metrics.instances import instances, truth_of_source
from jaxvision.types import Batch, Canvas, Metric, PixelScores, Rows


class Component(NamedTuple):
    """A connected part of a map of classes."""

    label: int
    score: float
    box: tuple[int, int, int, int]
    mask: Runs


def components(
    classes: Sequence[str] | int,
    truth: Callable[[], Readable],
    *,
    smallest: int = 1,
    most: int = 500,
    score: float = 0.5,
) -> Metric:
    """The metrics of `metrics.instances`, of the parts of a predicted map that hang together by the sides of pixels.

    The prediction is PixelScores, whose class 0 is the background; its class k is class k - 1 of the objects. The score of a
    part is the mean probability of its class over its pixels. Rows, metrics and errors are those of `metrics.instances`.

    Args:
      classes: names of the classes of objects, or how many there are.
      truth: opens the source that the stream is of, whose objects have these classes: its annotations are the ground truth.
      smallest: pixels that a part must have.
      most: parts of an image that count, those with the best scores.
      score: for precision, recall and F1 of boxes.
    """
    of_instances, names = instances(classes, truth, score=score), class_names(classes)
    source = cache(truth)

    def observe(scores: PixelScores, batch: Batch) -> Rows:
        if scores.logits.shape[-1] != len(names) + 1:
            raise ValueError(
                f"the scores are of {amount(scores.logits.shape[-1], 'class')}, not of the background and "
                f"{amount(len(names), 'class')} of objects"
            )
        canvas = jnp.tile(jnp.asarray([batch.image.shape[1:3]], jnp.int32), (len(batch.image), 1))
        sizes = {"size": batch.size, "original_size": batch.original_size, "window": batch.window}
        return {"logits": scores.logits, "canvas": canvas, "index": batch.index, **sizes}

    def condense(rows: Rows) -> Mapping[str, np.ndarray]:
        count = len(rows["index"])
        found = [_best(_parts(rows, row, smallest), most) for row in range(count)]
        true = [truth_of_source(rows, row, source()) for row in range(count)]
        objects, annotated = zip(*true, strict=True)
        columns = {"true_objects": file_masks.column(objects), "true_masks": file_masks.column(annotated)}
        masks = file_masks.column([packing.pack(each.mask for each in parts) for parts in found])
        kept = {name: np.asarray(rows[name]) for name in ("index", "original_size")}
        return {**kept, **_table(found, most), "masks": masks, **columns}

    return Metric(observe, of_instances.compute, None, condense)


def parts_of(
    labels: Int[np.ndarray, "h w"], probability: Callable[[int], Float[np.ndarray, "h w"]], smallest: int = 1
) -> Iterator[Component]:
    """The connected parts of each class but 0 that have so many pixels, class by class; `probability` is that of a class."""
    from scipy import ndimage

    for label in np.unique(labels[labels > 0]).tolist():
        labelled: Any = ndimage.label(labels == label)
        numbers = labelled[0]
        of_class = probability(label)
        for number, (rows, columns) in enumerate(ndimage.find_objects(numbers), 1):
            mask = numbers[rows, columns] == number
            if np.count_nonzero(mask) >= smallest:
                box = (columns.start, rows.start, columns.stop, rows.stop)
                score = float(of_class[rows, columns][mask].mean())
                yield Component(label - 1, score, box, runs.of_window(mask, (rows.start, columns.start), labels.shape))


def _parts(rows: Rows, row: int, smallest: int) -> Iterator[Component]:
    """The parts of the map of one image, in pixels of its file."""
    shape, logits = tuple(map(int, rows["canvas"][row])), np.asarray(rows["logits"][row], np.float32)
    canvas = file_masks.canvas_of(rows, row)._replace(image=np.zeros((*shape, 0), np.uint8))
    return parts_of(class_map(logits, canvas), probabilities(logits, canvas), smallest)


def probabilities(logits: Float[np.ndarray, "h w k"], canvas: Canvas) -> Callable[[int], Float[np.ndarray, "y x"]]:
    """From a class to its probability at each pixel of the image file: that of the cell of the map that the pixel lies in."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    y, x = (_nearest(canvas, axis, logits.shape[axis]) for axis in (0, 1))
    normalised = powers / powers.sum(-1, keepdims=True)
    return lambda label: normalised[..., label][y][:, x]


def _nearest(canvas: Canvas, axis: int, cells: int) -> Int[np.ndarray, "n"]:
    """The cell of a map of the canvas that each pixel of a side of the file lies in."""
    scale, shift = (each[1 - axis] for each in canvas.to_file())
    place = (np.arange(canvas.original_size[axis]) + 0.5 - shift) / scale * (cells / canvas.image.shape[axis])
    return np.clip(np.floor(place), 0, cells - 1).astype(np.intp)


def _best(parts: Iterator[Component], most: int) -> list[Component]:
    return sorted(parts, key=lambda each: -each.score)[:most]


def _table(found: Sequence[Sequence[Component]], most: int) -> dict[str, np.ndarray]:
    """The parts of each image as rows of one width."""
    shape = (len(found), most)
    table = {"boxes": np.zeros((*shape, 4)), "labels": np.zeros(shape, np.int32), "scores": np.zeros(shape)}
    table["detected"] = np.arange(most)[None] < np.array([len(parts) for parts in found]).reshape(-1, 1)
    for row, parts in enumerate(found):
        for place, each in enumerate(parts):
            table["boxes"][row, place], table["labels"][row, place] = each.box, each.label
            table["scores"][row, place] = each.score
    return table
