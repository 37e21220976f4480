"""DETR (arXiv:2005.12872): every object is matched to one of the queries, and no NMS is needed."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jaxvision.nn import positions, resnet
from jaxvision.nn.conv import Conv
from jaxvision.nn.norm import FrozenBatchNorm, LayerNorm, Norm
from jaxvision.nn.precision import at_least_float32
from jaxvision.nn.settled import settled
from jaxvision.ops import boxes as box
from jaxvision.ops import pixels, raw_scores
from jaxvision.ops.matching import hungarian
from jaxvision.ops.selection import Selection, padded
from jaxvision.ops.top_k import top_k
from jaxvision.tasks import detection
from jaxvision.tasks.detection import LossTerms
from jaxvision.tasks.forward import forward_training, model_variables
from jaxvision.types import Batch, Detections, Key, LossOutput, Objects, Scalar, Task, Variables

xavier = nn.initializers.xavier_uniform()
packed_xavier = nn.initializers.variance_scaling(0.5, "fan_in", "uniform")
"""Initialiser of queries, keys and values, whose matrices the authors initialise as one."""


class Outputs(NamedTuple):
    """What DETR says of every image by every layer of its decoder; the last is the result, the others are to be trained."""

    logits: Float[Array, "l b q c"]
    """Logits of the classes and, last, of no object."""
    boxes: Float[Array, "l b q 4"]
    """Centre, width and height as fractions of the content, 0 to 1."""


class Seen(NamedTuple):
    """What DETR found, and on the way to it: what a head for masks looks at."""

    outputs: Outputs
    maps: list[Float[Array, "b _ _ _"]]
    """Maps of the backbone, finest first."""
    projected: Float[Array, "b h w d"]
    """The last map in the width of the transformer."""
    memory: Float[Array, "b h w d"]
    """That map behind the encoder."""
    valid: Bool[Array, "b h w"]
    """Which of its cells are of the content."""
    found: Float[Array, "b q d"]
    """What the last layer of the decoder found for each query, normalised."""


class Drop:
    """Dropout of the arrays of a layer, `b ...` each, by one draw of random numbers for all.

    XLA on CPU compiles each draw for about a fifth of a second, and a layer would have four to six.
    """

    def __init__(self, layer: nn.Module, rate: float, values: int, like: Array, train: bool):
        """Draws.

        Args:
          layer: whose rng named "dropout" is asked.
          rate: the part that is dropped.
          values: of an image, in all arrays.
          like: an array `b ...`.
          train: whether anything is dropped.
        """
        self.keep, self.drawn, self.used = 1 - rate, None, 0
        if train and rate:
            self.drawn = jax.random.bernoulli(layer.make_rng("dropout"), self.keep, (len(like), values))

    def __call__(self, x: Float[Array, "b *n"]) -> Float[Array, "b *n"]:
        """The array with some values 0 and the others larger, so that its expectation stays."""
        if self.drawn is None:
            return x
        size = math.prod(x.shape[1:])
        kept = self.drawn[:, self.used : self.used + size].reshape(x.shape)
        self.used += size
        return jnp.where(kept, x / self.keep, 0)


class Attention(nn.Module):
    """Attention of several heads: queries ask those of the keys that are `valid`.

    Dropout, `drop`, falls on the weights as in PyTorch's layer.
    """

    heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "b q d"],
        key: Float[Array, "b k d"],
        value: Float[Array, "b k d"],
        valid: Bool[Array, "b k"] | None = None,
        *,
        drop: Callable[[Array], Array],
    ) -> Float[Array, "b q d"]:
        """Attend.

        Raises:
            ValueError: if `heads` does not divide the width.
        """
        width = query.shape[-1]
        if width % self.heads:
            raise ValueError(f"{width} channels do not form {self.heads} heads of equal size")

        def split(name: str, x: Array) -> Array:
            return _dense(name, width, self.dtype, packed_xavier)(x).reshape(*x.shape[:2], self.heads, -1)

        wide = at_least_float32(self.dtype)
        asked = split("query", query) * (width // self.heads) ** -0.5
        logits = jnp.einsum("bqhd,bkhd->bhqk", asked, split("key", key)).astype(wide)
        if valid is not None:
            logits = jnp.where(valid[:, None, None], logits, jnp.finfo(wide).min)
        weights = drop(nn.softmax(logits)).astype(self.dtype)
        attended = jnp.einsum("bhqk,bkhd->bqhd", weights, split("value", value)).reshape(query.shape)
        return _dense("output", width, self.dtype, xavier)(attended)


class EncoderLayer(nn.Module):
    """The tokens of the map attend to each other; a dense layer follows. Normalised behind every shortcut."""

    heads: int
    hidden: int
    """Units of the dense layer between."""
    dropout: float
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], place: Float[Array, "b n d"], valid: Bool[Array, "b n"], *, train: bool
    ) -> Float[Array, "b n d"]:
        """Run the layer, in float32 or better; positions are added to what asks and is asked, not to what is found."""
        tokens, width = x.shape[1:]
        values = tokens * (self.heads * tokens + width + self.hidden + width)
        drop = Drop(self, self.dropout, values, x, train)
        x = _attend(self, "attention", "norm1", x, x + place, x + place, x, valid, drop)
        return _feed_forward(self, "norm2", x, drop)


class DecoderLayer(nn.Module):
    """The queries attend to each other, then to the tokens of the map; a dense layer follows."""

    heads: int
    hidden: int
    dropout: float
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b q d"],
        queries: Float[Array, "1 q d"],
        memory: Float[Array, "b n d"],
        place: Float[Array, "b n d"],
        valid: Bool[Array, "b n"],
        *,
        train: bool,
    ) -> Float[Array, "b q d"]:
        """Run the layer as one of the encoder; the learned `queries` are the positions of `x`."""
        count, width = x.shape[1:]
        values = count * (self.heads * (count + memory.shape[1]) + 3 * width + self.hidden)
        drop = Drop(self, self.dropout, values, x, train)
        x = _attend(self, "attention", "norm1", x, x + queries, x + queries, x, None, drop)
        x = _attend(self, "cross_attention", "norm2", x, x + queries, memory + place, memory, valid, drop)
        return _feed_forward(self, "norm3", x, drop)


def _attend(
    layer: EncoderLayer | DecoderLayer,
    name: str,
    norm: str,
    x: Array,
    query: Array,
    key: Array,
    value: Array,
    valid: Array | None,
    drop: Drop,
) -> Array:
    found = Attention(layer.heads, layer.dtype, name=name)(query, key, value, valid, drop=drop)
    return _norm(norm, settled(x + drop(found).astype(x.dtype)))


def _feed_forward(layer: EncoderLayer | DecoderLayer, norm: str, x: Array, drop: Drop) -> Array:
    hidden = drop(nn.relu(_dense("dense1", layer.hidden, layer.dtype, xavier)(x)))
    found = drop(_dense("dense2", x.shape[-1], layer.dtype, xavier)(hidden))
    return _norm(norm, settled(x + found.astype(x.dtype)))


class DETR(nn.Module):
    """Features of a backbone, an encoder of them, a decoder of learned queries, and what each of these found.

    Dropout is that of the authors' code: of attention weights, of what every branch adds, and of hidden units. It needs an
    rng named "dropout" while training, unless it is 0.
    """

    backbone: nn.Module
    """Gives a list of maps, of which the last is taken."""
    classes: int
    queries: int = 100
    """The largest number of objects that are found."""
    width: int = 256
    heads: int = 8
    hidden: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    dropout: float = 0.1
    dtype: DTypeLike = jnp.float32

    def __call__(self, images: Float[Array, "b h w c"], size: Int[Array, "b 2"], *, train: bool) -> Outputs:
        """Outputs for normalised images whose content is `size` large; in float32 (float64 if `dtype` is).

        What the canvas holds outside the content is not attended to.

        Raises:
            ValueError: for a width that is no multiple of 4 or that `heads` does not divide.
        """
        return self.see(images, size, train=train).outputs

    @nn.compact
    def see(self, images: Float[Array, "b h w c"], size: Int[Array, "b 2"], *, train: bool) -> Seen:
        """Outputs as those of `__call__`, and what they were made from."""
        options = (self.heads, self.hidden, self.dropout, self.dtype)
        maps = self.backbone(images, train=train)
        projected, place, valid = self._embed(maps[-1], images.shape[1:3], size)
        memory = projected
        for number in range(1, self.encoder_layers + 1):
            memory = EncoderLayer(*options, name=f"encoder{number}")(memory, place, valid, train=train)
        asked = self.param("queries", nn.initializers.normal(1.0), (self.queries, self.width), memory.dtype)[None]
        x, found = jnp.zeros((images.shape[0], *asked.shape[1:]), memory.dtype), []
        for number in range(1, self.decoder_layers + 1):
            x = DecoderLayer(*options, name=f"decoder{number}")(x, asked, memory, place, valid, train=train)
            found.append(x)
        normalised = _norm("norm", jnp.stack(found))
        grid = maps[-1].shape[:3]
        projected, memory = (tokens.reshape(*grid, self.width) for tokens in (projected, memory))
        return Seen(self._heads(normalised), maps, projected, memory, valid.reshape(grid), normalised[-1])

    def _embed(self, features: Array, sides: tuple[int, ...], size: Array) -> tuple[Array, Array, Array]:
        """Tokens and positions `b n d` of a map of images with these sides, and which tokens are of the content `b n`."""
        projected = Conv(self.width, 1, dtype=self.dtype, kernel_init=resnet.uniform_fan_in, name="projection")(
            features
        )
        shape, wide = (features.shape[1], features.shape[2]), at_least_float32(self.dtype)
        rows, columns = (_starting_inside(size[:, i], shape[i], sides[i]) for i in (0, 1))
        extent = jnp.stack([rows.sum(1), columns.sum(1)], 1)
        place = positions.sine(extent, shape, self.width, wide)
        tokens = (features.shape[0], shape[0] * shape[1], self.width)
        valid = (rows[:, :, None] & columns[:, None]).reshape(tokens[:2])
        return projected.reshape(tokens).astype(wide), place.reshape(tokens), valid

    def _heads(self, x: Array) -> Outputs:
        dense = partial(_dense, dtype=x.dtype, kernel_init=resnet.uniform_fan_in)
        logits = dense("classes", self.classes + 1)(x)
        for name in ("boxes1", "boxes2"):
            x = nn.relu(dense(name, self.width)(x))
        return Outputs(logits, nn.sigmoid(dense("boxes3", 4)(x)))


def detr_resnet50(
    classes: int, *, norm: Norm = FrozenBatchNorm, dtype: DTypeLike = jnp.float32, **options: Any
) -> DETR:
    """DETR-R50; `options` are those of `DETR`: queries, encoder_layers, decoder_layers, dropout."""
    return DETR(resnet.resnet50(norm=norm, dtype=dtype).backbone, classes, dtype=dtype, **options)


def _starting_inside(size: Int[Array, "b"], cells: int, pixels: int) -> Bool[Array, "b n"]:
    """Which of the cells along a side of `pixels` begin inside the content: its nearest interpolation."""
    return (jnp.arange(cells) * pixels // cells)[None] < size[:, None]


def _dense(name: str, features: int, dtype: DTypeLike, kernel_init: nn.initializers.Initializer) -> nn.Dense:
    wide = at_least_float32(dtype)
    return nn.Dense(features, dtype=dtype, param_dtype=wide, kernel_init=kernel_init, name=name)


def _norm(name: str, x: Array) -> Array:
    """LayerNorm with PyTorch's epsilon, in the type of `x`."""
    return LayerNorm(1e-5, name=name)(x)


class Weights(NamedTuple):
    """Weights of the terms, in the cost of a match and in the loss alike."""

    classes: float | int = 1
    boxes: float | int = 5
    giou: float | int = 2


PAPER = Weights()


def detr(
    network: nn.Module,
    *,
    mean: float | Sequence[float] = pixels.IMAGENET_MEAN,
    std: float | Sequence[float] = pixels.IMAGENET_STD,
    weights: Weights = PAPER,
    no_object: float = 0.1,
    dtype=jnp.float32,
) -> Task:
    """The task of DETR.

    Args:
      network: a `DETR`.
      mean: of the pixels of each channel (or of all), on the scale 0-255.
      std: standard deviation of the pixels of each channel (or of all).
      weights: of the class, of the L1 distance of boxes and of their generalised IoU.
      no_object: weight of the queries without an object in the mean of the class losses.
      dtype: of the normalised images.

    Returns:
      A task whose target is `Objects` and whose prediction is `Detections`, one a query. Its loss is the weighted sum of
      `class_loss`, the cross-entropy, by the weights of all queries; of `box_loss` and `giou_loss`, by the number of
      objects in all images; and of the same of the earlier layers of the decoder, weighted as `auxiliary_loss`. Where an
      object is to be ignored nothing is, as the authors have it. An object's `weight` multiplies the losses of its query.
    """

    def inputs(batch: Batch) -> tuple[Array, Array]:
        return detection.images(batch, mean, std, dtype), jnp.asarray(batch.size)

    def init(key: Key, batch: Batch) -> Variables:
        return network.init(key, *inputs(batch), train=False)

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        outputs, collections = forward_training(network, variables, *inputs(batch), valid=batch.valid, key=key)
        target, size = detection.targets(batch), jnp.asarray(batch.size)
        one = lambda *each: loss_terms(*each, weights=weights, no_object=no_object)
        by_image = jax.vmap(lambda logits, boxes: jax.vmap(one)(logits, boxes, target, size))
        return total_loss(by_image(outputs.logits, outputs.boxes), batch, collections, weights)

    def predict(variables: Variables, batch: Batch) -> Detections:
        outputs: Any = network.apply(model_variables(variables), *inputs(batch), train=False)
        return detection.detections(decode, outputs.logits[-1], outputs.boxes[-1], jnp.asarray(batch.size))

    return Task(init, loss, predict)


def total_loss(
    terms: LossTerms, batch: Batch, collections: dict, weights: Weights = PAPER
) -> tuple[Scalar, LossOutput]:
    """The loss of a batch from the terms of every layer of the decoder and of every image, `l b`; see `detr`."""
    terms = jax.vmap(lambda of_layer: detection.of_valid_images(of_layer, batch))(terms)
    means = detection.means(jax.tree.map(lambda x: x.sum(1), terms))
    by_layer = _total(weights, means)
    metrics = {name: x[-1] for name, x in means.items()} | {"auxiliary_loss": by_layer[:-1].sum()}
    return by_layer.sum(), LossOutput(metrics, collections, _total(weights, detection.means(terms)).sum(0))


def loss_terms(
    logits: Float[Array, "q c"],
    boxes: Float[Array, "q 4"],
    target: Objects,
    size: Int[Array, "2"],
    weights: Weights = PAPER,
    no_object: float = 0.1,
) -> LossTerms:
    """Sums of `class_loss`, `box_loss` and `giou_loss` over the queries of one image, of one layer of the decoder.

    The first is counted by the weights of the queries, the others by the number of objects. `boxes` are fractions of the
    content, which is `size` large.
    """
    real = detection.trained_on(target)
    wanted = as_fractions(target.boxes.astype(boxes.dtype), size)
    matched = match(logits, boxes, target.labels, wanted, real, weights)
    positive = matched >= 0
    weight = jnp.where(positive, detection.weights(target)[matched], 1).astype(logits.dtype)

    label = jnp.where(positive, target.labels[matched], logits.shape[-1] - 1)
    class_weight = jnp.where(positive, 1, no_object).astype(logits.dtype)
    by_class = optax.softmax_cross_entropy_with_integer_labels(logits, label)

    predicted = jnp.where(positive[:, None], boxes, 0.5)
    goal = jnp.where(positive[:, None], wanted[matched], 0.5)
    by_box = jnp.abs(predicted - goal).sum(-1)
    by_giou = 1 - box.giou(box.from_centre(predicted), box.from_centre(goal))
    sums = {
        "class_loss": (by_class * class_weight * weight).sum(),
        "box_loss": jnp.where(positive, by_box * weight, 0).sum(),
        "giou_loss": jnp.where(positive, by_giou * weight, 0).sum(),
    }
    return LossTerms(sums, {"class_loss": class_weight.sum(), "box_loss": real.sum(), "giou_loss": real.sum()})


def match(
    logits: Float[Array, "q c"],
    boxes: Float[Array, "q 4"],
    labels: Int[Array, "g"],
    wanted: Float[Array, "g 4"],
    valid: Bool[Array, "g"],
    weights: Weights = PAPER,
) -> Int[Array, "q"]:
    """The number of the object of each query, or BACKGROUND: the matching of the least cost (section 3.1).

    Both boxes are centre, width and height as fractions of the content.
    """
    logits, boxes = jax.lax.stop_gradient((logits, boxes))
    wanted = jnp.where(valid[:, None], wanted, 0.5)
    by_class = -jax.nn.softmax(logits)[:, jnp.where(valid, labels, 0)]
    by_box = jnp.abs(boxes[:, None] - wanted[None]).sum(-1)
    by_giou = -box.pairwise(box.giou, box.from_centre(boxes), box.from_centre(wanted))
    return hungarian(_weighted(weights, by_class, by_box, by_giou), valid)


def as_fractions(boxes: Float[Array, "g 4"], size: Int[Array, "2"]) -> Float[Array, "g 4"]:
    """Boxes `x0 y0 x1 y1` of the canvas as centre, width and height in fractions of the content."""
    return box.to_centre(boxes / _extent(size, boxes.dtype))


def decode(logits: Float[Array, "n c"], boxes: Float[Array, "n 4"], size: Int[Array, "2"]) -> Selection:
    """The detection of every query of one image, the best first: its likeliest class, boxes in pixels of the canvas."""
    scores = jax.nn.softmax(logits)[:, :-1]
    found = box.clip(box.from_centre(boxes) * _extent(size, boxes.dtype), size)
    raw_scores.tell(lambda: raw_scores.Candidates(found, scores))
    score = jnp.where(box.area(found) > 0, scores.max(-1), 0)
    best, query = top_k(score, len(score))
    labels = scores.argmax(-1)[query].astype(jnp.int32)
    return padded(Selection(found[query], labels, best, best > 0, query), len(score))


def _weighted(weights: Weights, classes: Array, boxes: Array, giou: Array) -> Array:
    return weights.classes * classes + weights.boxes * boxes + weights.giou * giou


def _total(weights: Weights, means: dict[str, Array]) -> Array:
    return _weighted(weights, means["class_loss"], means["box_loss"], means["giou_loss"])


def _extent(size: Int[Array, "2"], dtype) -> Float[Array, "1 4"]:
    """Width and height twice, at least 1: what boxes are fractions of."""
    height, width = jnp.maximum(size, 1).astype(dtype)
    return jnp.stack([width, height, width, height])[None]
