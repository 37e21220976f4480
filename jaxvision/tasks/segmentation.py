"""What semantic segmenters share: their input, the map that they are trained on, their loss from its terms, and their output.

The file of every segmenter has, or imports from here, two functions of one image: `loss_terms(...) -> LossTerms` and
`decode(...) -> PixelScores`. A task maps them over its batch; so does a task of several heads on one backbone.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.ops import pixels, resize
from jaxvision.ops.pixel_losses import PixelLoss, cross_entropy
from jaxvision.tasks import detection
from jaxvision.tasks.detection import LossTerms
from jaxvision.tasks.forward import forward_training, model_variables
from jaxvision.types import Batch, Key, LossOutput, PixelScores, Scalar, SegmentationMap, Task, Variables

CROSS_ENTROPY = cross_entropy()


def segmenter(
    network: nn.Module,
    *,
    loss: PixelLoss = CROSS_ENTROPY,
    auxiliary: Sequence[float | int] = (),
    multiple_of: int = 1,
    mean: float | Sequence[float] = pixels.IMAGENET_MEAN,
    std: float | Sequence[float] = pixels.IMAGENET_STD,
    dtype=jnp.float32,
) -> Task:
    """The task of giving each pixel one of `k` classes.

    Args:
      network: called as `network(images, train=...)` on normalised images `b h w c`; returns logits on a map `b y x k` that
        covers the images, or several: a tuple, that of the main output first. Its collections other than `params` (BatchNorm
        statistics) are updated by training, from the valid images; the `dropout` generator is supplied.
      loss: of one image, any of `ops.pixel_losses` or a function of your own.
      auxiliary: weight of the loss of each output behind the main one, which is only trained.
      multiple_of: what must divide the sides of the network's input; the canvas is padded on the right and below.
      mean: mean of the pixels of each channel (or of all), on the scale 0-255.
      std: standard deviation of the pixels of each channel (or of all), on the scale 0-255.
      dtype: of the normalised images.

    Returns:
      A task whose target is `SegmentationMap`, on the canvas, and whose prediction is `PixelScores`, on the network's map;
      on the canvas where that was padded. For the loss logits are resized bilinearly. Pixels outside the content are not
      valid. The loss of an image that has a valid pixel whose label the network does not have is NaN, so that training stops
      and names it.

    Raises:
      ValueError: in use, for another number of outputs than of weights, and for a map of another size than the canvas.
      TypeError: in use, for another target.
    """

    def images(batch: Batch) -> Float[Array, "b h w c"]:
        return padded(detection.images(batch, mean, std, dtype), multiple_of)

    return segmenter_on(network, images, loss=loss, auxiliary=auxiliary)


def segmenter_on(
    network: nn.Module,
    images: Callable[[Batch], Float[Array, "b h w c"]],
    *,
    covers: Callable[[int, int], tuple[int, int]] = lambda height, width: (height, width),
    loss: PixelLoss = CROSS_ENTROPY,
    auxiliary: Sequence[float | int] = (),
) -> Task:
    """The task of `segmenter` for a network that is given its images otherwise.

    Args:
      network: as for `segmenter`.
      images: the network's input, from a batch; pixels outside the content must not reach it.
      covers: from height and width of the network's input to those, in pixels of the canvas, that its outputs cover from the
        top left corner on: those of the canvas or more.
      loss: as for `segmenter`.
      auxiliary: as for `segmenter`.
    """

    def init(key: Key, batch: Batch) -> Variables:
        return network.init(key, images(batch), train=False)

    def mean_loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        given, target = images(batch), targets(batch)
        outputs, collections = forward_training(network, variables, given, valid=batch.valid, key=key)
        one = partial(loss_terms, loss=loss, auxiliary=auxiliary, covers=covers(*given.shape[1:3]))
        terms = jax.vmap(one)(_as_tuple(outputs), target)
        return detection.loss_of(jax.tree.map(lambda x: jnp.where(batch.valid, x, 0), terms), collections)

    def predict(variables: Variables, batch: Batch) -> PixelScores:
        given = images(batch)
        outputs = _as_tuple(network.apply(model_variables(variables), given, train=False))
        one = partial(decode, canvas=batch.image.shape[1:3], covers=covers(*given.shape[1:3]))
        return jax.vmap(one)(outputs)

    return Task(init, mean_loss, predict)


def padded(images: Float[Array, "b h w c"], multiple_of: int) -> Float[Array, "b y x c"]:
    """Images with zeros below and on the right, so that this number divides the sides."""
    height, width = images.shape[1:3]
    return jnp.pad(images, ((0, 0), (0, -height % multiple_of), (0, -width % multiple_of), (0, 0)))


def targets(batch: Batch) -> SegmentationMap:
    """The maps of a batch, valid inside the content of valid images.

    Raises:
      TypeError: if the target is something else.
      ValueError: if a map is of another size than the canvas.
    """
    if not isinstance(batch.target, SegmentationMap):
        raise TypeError(f"a segmenter needs batch.target to be a SegmentationMap, got {type(batch.target).__name__}")
    canvas = batch.image.shape[1:3]
    if batch.target.label.shape[1:] != canvas:
        raise ValueError(f"batch.target.label has {batch.target.label.shape[1:]} pixels, the canvas {canvas}")
    content = jax.vmap(pixels.inside, (0, None, None))(jnp.asarray(batch.size), *canvas)
    return batch.target.replace(valid=batch.target.valid & content & batch.valid[:, None, None])


def loss_terms(
    outputs: Sequence[Float[Array, "_ _ k"]],
    target: SegmentationMap,
    loss: PixelLoss = CROSS_ENTROPY,
    auxiliary: Sequence[float | int] = (),
    covers: tuple[int, ...] | None = None,
) -> LossTerms:
    """Loss terms of one image: `pixel_loss`, and `auxiliary1_loss` and so on of the outputs behind the main one, weighted.

    Those of a loss of several terms (`pixel_losses.added`) are numbered: `pixel_loss1`, `pixel_loss2`.

    Args:
      outputs: logits on maps of any size, those of the main output first.
      target: classes on the canvas.
      loss: of one image.
      auxiliary: weight of each output behind the main one.
      covers: height and width, in pixels of the canvas, that the outputs cover, if that was padded.

    Raises:
      ValueError: for another number of outputs than of weights.
    """
    if len(outputs) != len(auxiliary) + 1:
        raise ValueError(
            f"the network has {len(outputs) - 1} auxiliary outputs; auxiliary={tuple(auxiliary)} weighs {len(auxiliary)}"
        )
    canvas, sums, counts = target.label.shape, {}, {}
    for number, (logits, weight) in enumerate(zip(outputs, (1, *auxiliary), strict=True)):
        part = loss(on_canvas(logits, canvas, covers or canvas), target)
        name = f"auxiliary{number}_loss" if number else "pixel_loss"
        several = [("", ())] if part.sum.ndim == 0 else [(f"{n + 1}", n) for n in range(len(part.sum))]
        sums |= {name + term: weight * part.sum[at] for term, at in several}
        counts |= {name + term: part.count[at] for term, at in several}
    known = ((target.label >= 0) & (target.label < outputs[0].shape[-1])) | ~target.valid
    return LossTerms({name: jnp.where(known.all(), x, jnp.nan) for name, x in sums.items()}, counts)


def decode(
    outputs: Sequence[Float[Array, "_ _ k"]], canvas: tuple[int, ...], covers: tuple[int, ...] | None = None
) -> PixelScores:
    """Scores of one image: the logits of the main output on a map that covers the canvas.

    Args:
      outputs: logits on maps of any size, those of the main output first.
      canvas: height and width of it, in pixels.
      covers: height and width, in pixels of the canvas, that the outputs cover, if that was padded: the result is then on
        the canvas itself.
    """
    if covers is None or tuple(covers) == tuple(canvas):
        return PixelScores(outputs[0])
    return PixelScores(on_canvas(outputs[0], canvas, covers))


def on_canvas(logits: Float[Array, "_ _ k"], canvas: tuple[int, ...], covers: tuple[int, ...]) -> Float[Array, "h w k"]:
    """Logits resized bilinearly to what their map covers, and cut to the canvas."""
    return resize.bilinear(logits, *covers)[: canvas[0], : canvas[1]]


def _as_tuple(outputs: Any) -> tuple[Array, ...]:
    return (outputs,) if isinstance(outputs, jax.Array) else tuple(outputs)
