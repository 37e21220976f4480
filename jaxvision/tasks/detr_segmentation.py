"""DETR with masks (arXiv:2005.12872, section 4.4): a head draws a map of each query from where it looks in the image.

`masks.panoptic` makes one map of an image of them, things and stuff. As published, DETR is trained first and stays as it is
while its mask head is trained: `frozen=("detr/.*",)` of the experiment.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jaxvision.nn.conv import Conv, convolve
from jaxvision.nn.fpn import doubled, lecun_uniform
from jaxvision.nn.norm import FrozenBatchNorm, GroupNorm, Norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.ops import losses, pixels
from jaxvision.ops.resize import bilinear
from jaxvision.tasks import detection
from jaxvision.tasks import detr as boxes_of
from jaxvision.tasks.detection import LossTerms
from jaxvision.tasks.detr import DETR, PAPER, Outputs, Seen, Weights, decode, detr_resnet50, xavier
from jaxvision.tasks.forward import forward_training, model_variables
from jaxvision.types import Batch, Detections, Key, Labels, LossOutput, MapMasks, Objects, Scalar, Task, Variables

GROUPS = 8
"""Groups of the normalisations of the mask head, fewer where it has fewer channels."""


class AttentionMaps(nn.Module):
    """Where each query looks: weights of the cells for every head, which sum to 1 over cells and heads together.

    Names: `query`, `key`.
    """

    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, queries: Float[Array, "b q d"], memory: Float[Array, "b h w d"], valid: Bool[Array, "b h w"]
    ) -> Float[Array, "b q h w n"]:
        """The weights; 0 where a cell is not `valid`.

        Raises:
            ValueError: if `heads` does not divide the width.
        """
        width, wide = queries.shape[-1], at_least_float32(self.dtype)
        if width % self.heads:
            raise ValueError(f"{width} channels do not form {self.heads} heads of equal size")
        dense = partial(nn.Dense, width, dtype=self.dtype, param_dtype=wide, kernel_init=xavier)
        asked, keys = (
            dense(name=name)(x).reshape(*x.shape[:-1], self.heads, -1)
            for name, x in (("query", queries), ("key", memory))
        )
        asked = asked * (width // self.heads) ** -0.5
        logits = jnp.einsum("bqnc,bhwnc->bqhwn", asked, keys).astype(wide)
        logits = jnp.where(valid[:, None, :, :, None], logits, jnp.finfo(wide).min)
        return nn.softmax(logits.reshape(*logits.shape[:2], -1)).reshape(logits.shape).astype(self.dtype)


class SharedConv(nn.Module):
    """A 3x3 convolution of maps that all queries have in common beside maps of each query; the result has as many channels.

    The parameters of one convolution of both; what is common is computed once, not for every query.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, common: Float[Array, "b h w c"], each: Float[Array, "b q h w n"]) -> Float[Array, "b q h w c+n"]:
        """Convolve."""
        wide, first = at_least_float32(self.dtype), common.shape[-1]
        channels = first + each.shape[-1]
        kernel = self.param("kernel", lecun_uniform, (3, 3, channels, channels), wide).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,), wide).astype(self.dtype)
        of_all = convolve(common.astype(self.dtype), kernel[:, :, :first], padding=1) + bias.reshape(1, 1, 1, -1)
        of_each = convolve(each.astype(self.dtype).reshape(-1, *each.shape[2:]), kernel[:, :, first:], padding=1)
        return of_all[:, None] + of_each.reshape(*each.shape[:-1], channels)


class MaskHead(nn.Module):
    """Maps of the masks of queries: where each looks beside the features, twice as large with every finer map.

    Names: `conv1`, `norm1`, ..., `adapter1`, ..., `output`.
    """

    width: int = 256
    """Channels of the transformer; half of it from the second convolution on, and half again with every finer map."""
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        projected: Float[Array, "b h w d"],
        attention: Float[Array, "b q h w n"],
        finer: list[Float[Array, "b _ _ _"]],
    ) -> Float[Array, "b q y x"]:
        """Logits at the size of the last of the `finer` maps, the coarsest of which comes first.

        Raises:
            ValueError: if a map is not twice as large as the one before; if there are too few channels to be halved so often.
        """
        images, queries = attention.shape[:2]
        channels = [self.width >> shift for shift in range(1, len(finer) + 2)]
        if channels[-1] < 1:
            raise ValueError(f"width={self.width} of the mask head can't be halved {len(finer) + 1} times")
        layer = partial(Conv, dtype=self.dtype, kernel_init=lecun_uniform)

        def normalised(x: Array, number: int) -> Array:
            norm = GroupNorm(min(GROUPS, x.shape[-1]), dtype=self.dtype, name=f"norm{number}")
            return nn.relu(norm(x))

        x = SharedConv(self.dtype, name="conv1")(projected, attention)
        x = normalised(x.reshape(images * queries, *x.shape[2:]), 1)
        x = normalised(layer(channels[0], 3, padding=1, name="conv2")(x), 2)
        for number, (fine, narrower) in enumerate(zip(finer, channels[1:], strict=True), 1):
            shared = layer(x.shape[-1], 1, name=f"adapter{number}")(fine)
            x = doubled(x, *shared.shape[1:3]).reshape(images, queries, *shared.shape[1:]) + shared[:, None]
            x = layer(narrower, 3, padding=1, name=f"conv{number + 2}")(x.reshape(-1, *shared.shape[1:]))
            x = normalised(x, number + 2)
        logits = layer(1, 3, padding=1, name="output")(x)
        return logits.reshape(images, queries, *logits.shape[1:3]).astype(at_least_float32(self.dtype))


class DETRSegmentation(nn.Module):
    """DETR and a mask head on it: names `detr`, `attention`, `mask_head`."""

    detr: DETR
    attention: AttentionMaps
    mask_head: MaskHead

    def see(self, images: Float[Array, "b h w c"], size: Int[Array, "b 2"], *, train: bool) -> Seen:
        """What DETR finds in normalised images whose content is `size` large."""
        return self.detr.see(images, size, train=train)

    def draw(self, seen: Seen, queries: Float[Array, "b n d"]) -> Float[Array, "b n h w"]:
        """Logits of the masks of `queries`, rows of `seen.found`, at the size of the finest map but three above the last."""
        finer = seen.maps[:-1][::-1][:3]
        return self.mask_head(seen.projected, self.attention(queries, seen.memory, seen.valid), finer)

    def __call__(
        self, images: Float[Array, "b h w c"], size: Int[Array, "b 2"], *, train: bool
    ) -> tuple[Outputs, Float[Array, "b q y x"]]:
        """Outputs, and logits of the masks of all queries."""
        seen = self.see(images, size, train=train)
        return seen.outputs, self.draw(seen, seen.found)


def segmenting(network: DETR) -> DETRSegmentation:
    """A DETR with a mask head as wide as it is."""
    head = MaskHead(network.width, network.dtype)
    return DETRSegmentation(network, AttentionMaps(network.heads, network.dtype), head)


def detr_segmentation_resnet50(
    classes: int, *, norm: Norm = FrozenBatchNorm, dtype: DTypeLike = jnp.float32, **options: Any
) -> DETRSegmentation:
    """DETR-R50 with masks; `options` are those of `DETR`: queries, encoder_layers, decoder_layers, dropout."""
    return segmenting(detr_resnet50(classes, norm=norm, dtype=dtype, **options))


class MaskWeights(NamedTuple):
    """Weights of the terms of masks in the loss."""

    focal: float | int = 1
    dice: float | int = 1


PAPER_MASKS = MaskWeights()


def detr_segmentation(
    network: DETRSegmentation,
    *,
    mean: float | Sequence[float] = pixels.IMAGENET_MEAN,
    std: float | Sequence[float] = pixels.IMAGENET_STD,
    weights: Weights = PAPER,
    mask_weights: MaskWeights = PAPER_MASKS,
    no_object: float = 0.1,
    dtype=jnp.float32,
) -> Task:
    """The task of DETR with masks.

    Args:
      network: a `DETRSegmentation`.
      mean: of the pixels of each channel (or of all), on the scale 0-255.
      std: standard deviation of the pixels of each channel (or of all).
      weights: of the class, of the L1 distance of boxes and of their generalised IoU.
      mask_weights: of the focal loss and of the Dice loss of masks.
      no_object: weight of the queries without an object in the mean of the class losses.
      dtype: of the normalised images.

    Returns:
      A task whose target is `Objects` with masks and whose prediction is `Detections`, one a query, with `MapMasks`. Its
      loss is that of `tasks.detr` and, of the last layer, `mask_loss` and `dice_loss` by the number of objects in all
      images: the focal loss, a mean over all pixels of the canvas, and the Dice loss of the mask of each object and that of
      its query, which is resized to the canvas. What is predicted outside the content counts, as the authors have it.
    """

    def inputs(batch: Batch) -> tuple[Array, Array]:
        return detection.images(batch, mean, std, dtype), jnp.asarray(batch.size)

    def init(key: Key, batch: Batch) -> Variables:
        return network.init(key, *inputs(batch), train=False)

    def draw(variables: Variables, seen: Seen, queries: Array) -> Float[Array, "b n h w"]:
        return cast(Array, network.apply(model_variables(variables), seen, queries, method="draw"))

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        given, target, size = inputs(batch), detection.targets(batch), jnp.asarray(batch.size)
        options = {"valid": batch.valid, "key": key, "method": "see"}
        seen, collections = forward_training(network, variables, *given, **options)
        logits, found = seen.outputs
        of_object = jax.vmap(partial(queries_of, weights=weights))(logits[-1], found[-1], target, size)
        queries = jnp.take_along_axis(seen.found, of_object[..., None], 1)
        masks = draw({**variables, **collections}, seen, queries)

        each = partial(loss_terms, weights=weights, no_object=no_object)
        early = jax.vmap(lambda l, b: jax.vmap(partial(each, masks=None))(l, b, target, size))
        last = jax.vmap(lambda l, b, m, t, s: each(l, b, t, s, masks=m, canvas=batch.image.shape[1:3]))
        of_masks, of_boxes = _parted(last(logits[-1], found[-1], masks, target, size))
        layers = early(logits[:-1], found[:-1]) if len(logits) > 1 else None
        return _total(_stacked(layers, of_boxes), of_masks, batch, collections, weights, mask_weights)

    def predict(variables: Variables, batch: Batch) -> Detections:
        seen = cast(Seen, network.apply(model_variables(variables), *inputs(batch), train=False, method="see"))
        logits, found = seen.outputs
        detections = detection.detections(decode, logits[-1], found[-1], jnp.asarray(batch.size))
        masks = draw(variables, seen, jnp.take_along_axis(seen.found, cast(Array, detections.index)[..., None], 1))
        height, width = batch.image.shape[1:3]
        return detections.replace(masks=MapMasks(masks, (height, width)))

    return Task(init, loss, predict)


def queries_of(
    logits: Float[Array, "q c"], boxes: Float[Array, "q 4"], target: Objects, size: Int[Array, "2"], weights: Weights
) -> Int[Array, "n"]:
    """The query that is matched to each object; the first for what is no target."""
    wanted = boxes_of.as_fractions(target.boxes.astype(boxes.dtype), size)
    matched = boxes_of.match(logits, boxes, target.labels, wanted, detection.trained_on(target), weights)
    return (matched[None] == jnp.arange(len(wanted))[:, None]).argmax(1)


def loss_terms(
    logits: Float[Array, "q c"],
    boxes: Float[Array, "q 4"],
    target: Objects,
    size: Int[Array, "2"],
    *,
    masks: Float[Array, "n h w"] | None,
    canvas: tuple[int, ...] = (0, 0),
    weights: Weights = PAPER,
    no_object: float = 0.1,
) -> LossTerms:
    """Terms of one image and one layer of the decoder: those of `tasks.detr`, and sums of `mask_loss` and `dice_loss`.

    Args:
      logits: of the queries.
      boxes: of the queries, as fractions of the content.
      target: the ground truth.
      size: height and width of the content.
      masks: logits of the masks of the queries that are matched to the objects, see `queries_of`; None: of an earlier
        layer, which has none.
      canvas: height and width that the masks cover.
      weights: of the cost of a match.
      no_object: weight of the queries without an object.

    Raises:
      ValueError: if the target has no masks.
    """
    terms = boxes_of.loss_terms(logits, boxes, target, size, weights, no_object)
    if masks is None:
        return terms
    real = detection.trained_on(target)
    weight = jnp.where(real, detection.weights(target), 0).astype(masks.dtype)
    flat = lambda each: each.reshape(len(each), canvas[0] * canvas[1])
    drawn = flat(jax.vmap(lambda each: bilinear(each[..., None], *canvas))(masks))
    truth = flat(detection.masks(target, canvas) & real[:, None, None]).astype(masks.dtype)
    focal = losses.sigmoid_focal()(drawn, Labels(target.labels, probs=truth)) / drawn.shape[1]
    sums = {"mask_loss": (weight * focal).sum(), "dice_loss": (weight * dice(drawn, truth)).sum()}
    return terms | LossTerms(sums, dict.fromkeys(sums, real.sum()))


def dice(logits: Float[Array, "n p"], truth: Float[Array, "n p"]) -> Float[Array, "n"]:
    """One less the Dice coefficient of each mask, 1 added above and below as the authors have it."""
    found = nn.sigmoid(logits)
    return 1 - (2 * (found * truth).sum(1) + 1) / (found.sum(1) + truth.sum(1) + 1)


OF_MASKS = ("mask_loss", "dice_loss")


def _parted(terms: LossTerms) -> tuple[LossTerms, LossTerms]:
    """The terms of masks, and the others."""
    chosen = lambda keep: LossTerms(*({name: x for name, x in each.items() if keep(name)} for each in terms))
    return chosen(lambda name: name in OF_MASKS), chosen(lambda name: name not in OF_MASKS)


def _stacked(layers: LossTerms | None, last: LossTerms) -> LossTerms:
    """Terms `l b` of all layers, the last of which has no axis of layers yet."""
    last = jax.tree.map(lambda x: x[None], last)
    return last if layers is None else jax.tree.map(lambda a, b: jnp.concatenate([a, b]), layers, last)


def _total(
    layers: LossTerms, masks: LossTerms, batch: Batch, collections: dict, weights: Weights, mask_weights: MaskWeights
) -> tuple[Scalar, LossOutput]:
    """The loss of a batch, from the terms of all layers `l b` and of masks `b`."""
    loss, out = boxes_of.total_loss(layers, batch, collections, weights)
    masks = detection.of_valid_images(masks, batch)
    means = detection.means(jax.tree.map(lambda x: x.sum(0), masks))
    weighted = lambda x: mask_weights.focal * x["mask_loss"] + mask_weights.dice * x["dice_loss"]
    by_image = cast(Array, out.example_loss) + weighted(detection.means(masks))
    return loss + weighted(means), out.replace(metrics=out.metrics | means, example_loss=by_image)
