"""The types that every room shares.

Conventions that hold everywhere: images are `b h w c` with values 0-255, the content in the top-left corner of a canvas
of fixed size; boxes are `x0 y0 x1 y1` in pixels of that canvas, `x1 y1` exclusive; class labels count from 0 and no
label means background or padding: `valid` alone says what is real.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt8

Key = Array
Scalar = Array
Params = PyTree
Variables = Mapping[str, Any]
"""`{"params": ..., **collections}`; while training also `"ema"`, the averaged variables (or None)."""
Prediction = Any
Rows = Mapping[str, Any]
"""One row an example: arrays whose first axis is the batch, as many rows as examples."""


class Labels(struct.PyTreeNode):
    """Image-level classes, the target of classification."""

    label: Int[Array, "*b"]
    probs: Float[Array, "*b k"] | None = None
    """Soft targets (mixup, CutMix, distillation); they take the place of `label` in the loss."""
    weight: Float[Array, "*b"] | None = None
    """Weight of the example in the loss; 0 for an unlabelled one."""


class PackedMasks(struct.PyTreeNode):
    """Masks of the whole canvas as bits: an eighth of the memory, and exact. `ops.masks` unpacks them in the step."""

    bits: UInt8[Array, "*b n h _"]
    """Eight pixels a byte along x, the first in the highest bit, as `numpy.packbits` has it."""
    width: int = struct.field(pytree_node=False)
    """Width of the canvas, in pixels."""


class CutMasks(struct.PyTreeNode):
    """Masks cut out at their boxes, each resized to a grid of `s s` cells, as bits."""

    bits: UInt8[Array, "*b n s _"]
    """Eight cells a byte along x, the first in the highest bit; `s` is a multiple of 8."""
    frames: Float[Array, "*b n 4"]
    """`x0 y0 x1 y1` in pixels of the canvas: what each grid covers, beyond its border where that cut the object.
    Mirrored where x1 is less than x0, or y1 than y0."""


Masks = Bool[Array, "*b n h w"] | PackedMasks | CutMasks
"""Masks of ground truth: of the canvas, of the canvas as bits, or cut out at their boxes."""


class Objects(struct.PyTreeNode):
    """Ground-truth objects or proposals: `n` rows an image, of which `valid` marks the real ones."""

    boxes: Float[Array, "*b n 4"]
    labels: Int[Array, "*b n"]
    valid: Bool[Array, "*b n"]
    ignore: Bool[Array, "*b n"]
    """COCO crowd, VOC difficult: never a training target; the metric knows what to make of them."""
    masks: Any = None
    """`Masks`, or None."""
    attributes: Any = None
    weight: Float[Array, "*b n"] | None = None
    area: Float[Array, "*b n"] | None = None
    """Area as annotated, in square pixels of the image file: what COCO's sizes go by. Never moved; None: that of the box."""


class BoxMasks(struct.PyTreeNode):
    """Predicted masks in boxes, as Mask R-CNN gives them."""

    probabilities: Float[Array, "*b n s s"]
    boxes: Float[Array, "*b n 4"]
    """Box of the canvas that each grid covers."""
    geometry: Literal["aligned", "torchvision"] = struct.field(pytree_node=False, default="aligned")
    """How a grid lies in its box (`masks.paste`)."""


class PrototypeMasks(struct.PyTreeNode):
    """Predicted masks as sums of prototypes, as YOLACT gives them: the sigmoid of the sum, cut by its detection's box."""

    prototypes: Float[Array, "*b h w k"]
    """Maps that cover the canvas."""
    coefficients: Float[Array, "*b n k"]
    boxes: Float[Array, "*b n 4"]
    extent: tuple[int, int] = struct.field(pytree_node=False)
    """Height and width, in pixels of the canvas, that the maps cover."""


class MapMasks(struct.PyTreeNode):
    """Predicted masks as maps of the whole canvas, as DETR gives them."""

    logits: Float[Array, "*b n h w"]
    extent: tuple[int, int] = struct.field(pytree_node=False)
    """Height and width, in pixels of the canvas, that the maps cover: more than the canvas where it was padded."""


class Detections(struct.PyTreeNode):
    """Detections of a detector: the best `n` first, `valid` marks the real ones."""

    boxes: Float[Array, "*b n 4"]
    labels: Int[Array, "*b n"]
    scores: Float[Array, "*b n"]
    valid: Bool[Array, "*b n"]
    masks: BoxMasks | PrototypeMasks | MapMasks | Sequence[Any] | None = None
    """What the network gives; `masks.paste` makes run lengths in pixels of the image file of it, one object at a time. Or
    these run lengths, one a row: `run.tiles` gives them."""
    attributes: Any = None
    index: Int[Array, "*b n"] | None = None
    """Which anchor, query or region of the image each was."""


class SegmentationMap(struct.PyTreeNode):
    """A class for every pixel; `valid` is False where a pixel has none (void, padding)."""

    label: Int[Array, "*b h w"]
    valid: Bool[Array, "*b h w"]
    weight: Float[Array, "*b h w"] | None = None
    """Weight of each pixel in the loss, 0 or more: U-Net's border weights (`ops.borders`), say. None: 1."""


class PixelScores(struct.PyTreeNode):
    """Scores of a semantic segmenter: unnormalised log probabilities, on a map that covers the whole canvas."""

    logits: Float[Array, "*b h w k"]
    """Scores on a map of the size of the canvas, or a smaller one: then resized bilinearly before the best class is taken."""


class ClassScores(struct.PyTreeNode):
    """Scores of a classifier: unnormalised log probabilities."""

    logits: Float[Array, "*b k"]
    members: Bool[Array, "*b k"] | None = None
    """Classes of the prediction set, which holds the true one with a wanted probability; of a run calibrated with such."""


class Batch(struct.PyTreeNode):
    """Images of one canvas size, with their targets and sizes."""

    image: Array
    """`b h w c`, 0-255: uint8 from the host, float after augmentation that needs it."""
    size: Int[Array, "b 2"]
    """Height and width of the content on the canvas."""
    original_size: Int[Array, "b 2"]
    """Height and width of the image file."""
    index: Int[Array, "b"]
    """Index of the example in the source; `Stream.about().name(index)` gives its name."""
    valid: Bool[Array, "b"]
    """False for the padding of the last evaluation batch, and for an unreadable image that was skipped."""
    target: Any = None
    """Labels, Objects, SegmentationMap, or a dict of them (multi-task)."""
    given: Any = None
    """Extra input that `predict` may read: proposals, a second view, prompts."""
    window: Float[Array, "b 4"] | None = None
    """Box of the image file, `x0 y0 x1 y1` in its pixels, that the content showed before any augmentation; beyond the file's
    border where the host padded. None: the whole file."""


class LossOutput(struct.PyTreeNode):
    """Metrics and collections that a loss returns beside its value."""

    metrics: dict[str, Scalar] = struct.field(default_factory=dict)
    """Scalars to log."""
    collections: dict[str, Any] = struct.field(default_factory=dict)
    """Collections that the forward pass changed (`batch_stats`)."""
    example_loss: Float[Array, "b"] | None = None
    """One number an example: names the example behind a NaN."""


class Task(NamedTuple):
    """A vision task as three pure functions.

    Laws, tested for every task: `predict` ignores `batch.target`; padding (object rows, canvas outside `size`) changes
    neither loss nor gradient; the loss is defined for a batch of one; an example that is not `valid` is as if it were not in
    the batch, for loss, gradient and collections (BatchNorm statistics).
    """

    init: Callable[[Key, Batch], Variables]
    loss: Callable[[Variables, Batch, Key], tuple[Scalar, LossOutput]]
    predict: Callable[[Variables, Batch], Prediction]


class Metric(NamedTuple):
    """Metrics of a prediction: rows on the device, then metrics from all rows.

    `observe` is pure JAX and returns fixed-shape rows, one an example. `compute` is NumPy and sees the rows of all valid
    examples, in the order of their `index` (which is one of the columns).
    """

    observe: Callable[[Prediction, Batch], Rows]
    compute: Callable[[Mapping[str, np.ndarray]], dict[str, float]]
    classes: tuple[str, ...] | None = None
    """The names of the labels, where the metrics depend on their number; a run compares them with those of the data."""
    condense: Callable[[Rows], Mapping[str, np.ndarray]] | None = None
    """Rows of the valid examples of one batch, fetched, to smaller ones, on the host and as each batch arrives: run lengths
    in place of masks. Arrays of the same number of rows, `index` among them; one of bytes objects is of dtype object. What
    it is given may hold trees of arrays, such as `Detections.masks`."""


class Groups(NamedTuple):
    """Groups of examples, or of objects, that metrics are told for apart: by an attribute, or several crossed."""

    attribute: str
    names: tuple[str, ...]
    number: Callable[[Mapping[str, np.ndarray]], np.ndarray]
    """Rows to the number of the group of each example, `n`, or of each object, `n m`; -1: of none."""
    observe: Callable[[Batch], Rows] = lambda batch: {}
    """Columns of the rows that `number` needs beside those of the metric; pure JAX."""
    objects: bool = False
    """Whether objects are grouped, not examples."""


class About(NamedTuple):
    """Description of a stream's examples once its data are open."""

    examples: int
    classes: tuple[str, ...]
    name: Callable[[int], str]
    """Index of an example to its file name or id."""
    fingerprint: str
    """Fingerprint that changes when the data change."""
    counts: Callable[[], Sequence[int]] | None = None
    """Number of examples of each class. May read all of them."""
    notes: tuple[str, ...] = ()
    """What a person should know of the data, such as files that were left out; a line each."""
    doubts: tuple[str, ...] = ()
    """What looks wrong with the data as a whole; a line each."""


class Fault(NamedTuple):
    """Fault of one example: what is wrong with it."""

    text: str
    """Name of the example, and why it can't be used."""
    skipped: bool
    """Whether the stream leaves it out and goes on."""


class Shard(NamedTuple):
    """Shard of every batch that one of several processes reads: block `index` of `count` equal blocks of its rows."""

    index: int = 0
    count: int = 1

    def rows(self, batch_size: int) -> range:
        """The numbers of its rows.

        Raises:
          ValueError: if the batch can't be split evenly.
        """
        if batch_size % self.count:
            raise ValueError(
                f"a batch of {batch_size} can't be split evenly over processes, of which there are {self.count}"
            )
        each = batch_size // self.count
        return range(self.index * each, (self.index + 1) * each)


WHOLE = Shard()


class Batches(Protocol):
    """`(step, shard) -> iterator`: batches from this step on, or one process's shard of each."""

    def __call__(self, step: int, shard: Shard = WHOLE, /) -> Iterator[Batch]:  # noqa: D102
        ...


class Canvas(NamedTuple):
    """One image as a model is shown it, on its canvas."""

    image: np.ndarray
    """`h w c`, uint8."""
    size: tuple[int, int]
    """Height and width of its content on the canvas."""
    original_size: tuple[int, int]
    """Height and width of the image file."""
    given: Any = None
    """A row of `Batch.given`, as a batch of one; None where a model gets nothing beside the image."""
    window: tuple[float, float, float, float] | None = None
    """Box of the image file that the content shows, as `Batch.window`; None: the whole file."""

    def in_file(self, boxes: Array) -> np.ndarray:
        """Boxes `n 4` of the canvas in pixels of the image file, cut at its border."""
        scale, shift = self.to_file()
        height, width = self.original_size
        return np.clip(np.asarray(boxes, np.float64) * [*scale, *scale] + [*shift, *shift], 0, [width, height] * 2)

    def to_file(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Scale and shift, x and y each, that take a point of the canvas to one of the file: `point * scale + shift`."""
        (height, width), (rows, columns) = self.original_size, self.size
        x0, y0, x1, y1 = self.window or (0, 0, width, height)
        return ((x1 - x0) / columns, (y1 - y0) / rows), (x0, y0)


class Stream(NamedTuple):
    """Batches as a pure function of the step number.

    Making a stream touches no data: `spec` is known from its arguments; `about` and `batches` open the source.
    """

    spec: Batch
    """A whole `Batch` of `jax.ShapeDtypeStruct`."""
    batches: Batches
    """Batches from this step on: without end for training, to the last example for evaluation."""
    about: Callable[[], About]
    decode: Callable[[bytes | np.ndarray], Canvas] | None = None
    """Another image, an encoded file or pixels, as this stream would have it; None where that takes random numbers.

    Raises a ValueError that says why for what is no image, or none that fits.
    """
    faults: Callable[[Sequence[int]], list[Fault]] | None = None
    """Reads and decodes these examples whole, by their index, and tells what is wrong with any."""
    skipped: Callable[[], tuple[int, int]] | None = None
    """Rows read so far that have no usable image, and all rows read so far; None where the first such ends the run."""


Augment = Callable[[Key, Scalar, Batch], Batch]
"""`(key, step, batch) -> batch`, pure JAX, inside the jitted step."""
