"""Scores of detectors to explain: of a candidate, raw, where gradients reach it; or of the most similar detection.

The first is for gradients and class activation maps: the candidate is that of a detection, or the best for an object that
was missed. The second takes the detector as it is, `predict`, and is for hidden parts: D-RISE.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float

from jaxvision.errors import ConfigError, amount
from jaxvision.ops import raw_scores
from jaxvision.ops.boxes import iou, pairwise
from jaxvision.ops.raw_scores import Candidates
from jaxvision.trust.explain.scores import Score, shown
from jaxvision.types import Batch, Detections, Task, Variables

Side = Literal["left", "top", "right", "bottom"]
SIDES: tuple[Side, ...] = ("left", "top", "right", "bottom")


class Chosen(NamedTuple):
    """The candidate of an image that is explained."""

    index: int
    """Which anchor, query or region it is."""
    label: int
    box: Float[np.ndarray, "4"]
    """`x0 y0 x1 y1` in pixels of the canvas."""
    score: float


def candidates(task: Task, variables: Variables, batch: Batch) -> Candidates:
    """All candidates of every image of a batch, with their gradients; inside `jit` what selects from them costs nothing.

    Raises:
      ConfigError: if the task is no detector of `tasks`.
    """
    with raw_scores.listening() as told:
        task.predict(variables, batch)
    if not told:
        raise ConfigError("the task tells no candidates: explained are detectors whose `decode` does (ops.raw_scores)")
    return told[0]


def detected(found: Detections, number: int) -> Chosen:
    """The detection of this number in the first image, from 1 on, the best first.

    Raises:
      ConfigError: if there are not so many.
    """
    count = int(np.asarray(found.valid)[0].sum())
    if not 1 <= number <= count:
        allowed = f"allowed are 1 to {count}" if count else "a missed object has a candidate, though: name its box"
        raise ConfigError(f"there is no detection {number}: the image has {amount(count, 'detection')}; {allowed}")
    assert found.index is not None
    row = np.flatnonzero(np.asarray(found.valid)[0])[number - 1]
    index, label, score = (np.asarray(x)[0, row].item() for x in (found.index, found.labels, found.scores))
    return Chosen(index, label, np.asarray(found.boxes)[0, row], score)


def best_candidate(found: Candidates, box: Float[np.ndarray, "4"], label: int) -> Chosen:
    """The candidate of the first image for an object: the highest product of IoU with its box and score for its class.

    Raises:
      ConfigError: if none meets the box.
    """
    scores = found.scores[0, :, label]
    boxes = found.boxes[0, :, label] if found.boxes.ndim == 4 else found.boxes[0]
    fit = pairwise(iou, jnp.asarray(box, boxes.dtype)[None], boxes)[0] * scores
    index = int(fit.argmax())
    if not fit[index] > 0:
        raise ConfigError(
            f"no candidate of the detector meets the box {np.round(box, 1).tolist()}: there is none to explain"
        )
    return Chosen(index, label, np.asarray(boxes[index]), float(scores[index]))


def of_candidate(task: Task, variables: Variables, batch: Batch, chosen: Chosen) -> Score:
    """The raw score of a candidate for its class."""
    return Partial(_raw(task), variables, batch, chosen.index, chosen.label)


@cache
def _raw(task: Task) -> Callable[..., Array]:
    def score(variables: Variables, batch: Batch, index: int, label: int, images: Array) -> Float[Array, "b"]:
        return candidates(task, variables, shown(batch, images)).scores[:, index, label]

    return score


def of_side(task: Task, variables: Variables, batch: Batch, chosen: Chosen, side: Side) -> Score:
    """How far out a side of a candidate's box lies: `right`, `bottom` are its coordinates, others their negative."""
    return Partial(_coordinate(task, SIDES.index(side)), variables, batch, chosen.index, chosen.label)


@cache
def _coordinate(task: Task, which: int) -> Callable[..., Array]:
    def score(variables: Variables, batch: Batch, index: int, label: int, images: Array) -> Float[Array, "b"]:
        boxes = candidates(task, variables, shown(batch, images)).boxes[:, index]
        boxes = boxes[:, label] if boxes.ndim == 3 else boxes
        return boxes[:, which] if which > 1 else -boxes[:, which]

    return score


def similarity(
    box: Float[Array, "4"],
    vector: Float[Array, "k"],
    boxes: Float[Array, "n 4"],
    vectors: Float[Array, "n k"],
    objectness: Float[Array, "n"],
    valid: Bool[Array, "n"],
) -> Float[Array, ""]:
    """The highest product of IoU, cosine of class scores, and objectness, of a detection with those of another image.

    Equations 2 to 5 of D-RISE (arXiv:2006.03204).
    """
    overlap = pairwise(iou, box[None], boxes)[0]
    lengths = jnp.linalg.norm(vectors, axis=-1) * jnp.linalg.norm(vector)
    cosine = vectors @ vector / jnp.where(lengths > 0, lengths, 1)
    return jnp.where(valid, overlap * cosine * objectness, 0).max()


def most_similar(task: Task, variables: Variables, batch: Batch, chosen: Chosen, classes: int) -> Score:
    """The similarity of the most similar detection: with `masking.rise` it is D-RISE.

    A detection has one class: its class scores are 0 but for that, and its score is the objectness.
    """
    return Partial(_similarity(task, classes), variables, batch, chosen.label, jnp.asarray(chosen.box))


@cache
def _similarity(task: Task, classes: int) -> Callable[..., Array]:
    def score(variables: Variables, batch: Batch, label: int, box: Array, images: Array) -> Float[Array, "b"]:
        found: Any = task.predict(variables, shown(batch, images))
        vector, vectors = (jax.nn.one_hot(each, classes) for each in (label, found.labels))
        one = lambda boxes, vectors, scores, valid: similarity(
            box.astype(boxes.dtype), vector, boxes, vectors, scores, valid
        )
        return jax.vmap(one)(found.boxes, vectors, found.scores, found.valid)

    return score
