"""DETR (arXiv:2005.12872): a transformer that turns a map of features into a fixed number of detections.

Names: `backbone/...`, `projection`, `encoder1/attention/{query,key,value,output}`, `encoder1/norm1`, `encoder1/dense1`,
`encoder1/dense2`, `encoder1/norm2`; `queries`, `decoder1/attention`, `decoder1/norm1`, `decoder1/cross_attention`,
`decoder1/norm2`, `decoder1/dense1`, `decoder1/dense2`, `decoder1/norm3`; `norm`, `classes`, `boxes1` to `boxes3`.
"""

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jaxvision.nn import positions, resnet
from jaxvision.nn.conv import Conv
from jaxvision.nn.norm import FrozenBatchNorm, Norm
from jaxvision.nn.precision import at_least_float32

xavier = nn.initializers.xavier_uniform()
packed_xavier = nn.initializers.variance_scaling(0.5, "fan_in", "uniform")
"""Of queries, keys and values, whose matrices the authors initialise as one."""


class Outputs(NamedTuple):
    """What DETR says of every image by every layer of its decoder; the last is the result, the others are to be trained."""

    logits: Float[Array, "l b q c"]
    """Of the classes and, last, of no object."""
    boxes: Float[Array, "l b q 4"]
    """Centre, width and height as shares of the content, 0 to 1."""


class Attention(nn.Module):
    """Attention of several heads: queries ask those of the keys that are `valid`.

    Dropout falls on the weights as in PyTorch's layer; needs an rng named "dropout" while training then.
    """

    heads: int
    dropout: float
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "b q d"],
        key: Float[Array, "b k d"],
        value: Float[Array, "b k d"],
        valid: Bool[Array, "b k"] | None = None,
        *,
        train: bool,
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
        weights = nn.Dropout(self.dropout, deterministic=not train)(nn.softmax(logits)).astype(self.dtype)
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
        x = _attend(self, "attention", "norm1", x, x + place, x + place, x, valid, train)
        return _feed_forward(self, "norm2", x, train)


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
        x = _attend(self, "attention", "norm1", x, x + queries, x + queries, x, None, train)
        x = _attend(self, "cross_attention", "norm2", x, x + queries, memory + place, memory, valid, train)
        return _feed_forward(self, "norm3", x, train)


def _attend(
    layer: EncoderLayer | DecoderLayer,
    name: str,
    norm: str,
    x: Array,
    query: Array,
    key: Array,
    value: Array,
    valid: Array | None,
    train: bool,
) -> Array:
    found = Attention(layer.heads, layer.dropout, layer.dtype, name=name)(query, key, value, valid, train=train)
    return _norm(norm, x + nn.Dropout(layer.dropout, deterministic=not train)(found).astype(x.dtype))


def _feed_forward(layer: EncoderLayer | DecoderLayer, norm: str, x: Array, train: bool) -> Array:
    drop = nn.Dropout(layer.dropout, deterministic=not train)
    hidden = drop(nn.relu(_dense("dense1", layer.hidden, layer.dtype, xavier)(x)))
    found = drop(_dense("dense2", x.shape[-1], layer.dtype, xavier)(hidden))
    return _norm(norm, x + found.astype(x.dtype))


class DETR(nn.Module):
    """Features of a backbone, an encoder of them, a decoder of learned queries, and what each of these found.

    Dropout is that of the authors' code: of attention weights, of what every branch adds, and of hidden units. It needs an
    rng named "dropout" while training, unless it is 0.
    """

    backbone: nn.Module
    """Gives a list of maps, of which the last is taken."""
    classes: int
    queries: int = 100
    """At most so many objects are found."""
    width: int = 256
    heads: int = 8
    hidden: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    dropout: float = 0.1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], size: Int[Array, "b 2"], *, train: bool) -> Outputs:
        """Outputs for normalised images whose content is `size` large; in float32 (float64 if `dtype` is).

        What the canvas holds outside the content is not attended to.

        Raises:
            ValueError: for a width that is no multiple of 4 or that `heads` does not divide.
        """
        options = (self.heads, self.hidden, self.dropout, self.dtype)
        memory, place, valid = self._embed(images, size, train)
        for number in range(1, self.encoder_layers + 1):
            memory = EncoderLayer(*options, name=f"encoder{number}")(memory, place, valid, train=train)
        asked = self.param("queries", nn.initializers.normal(1.0), (self.queries, self.width), memory.dtype)[None]
        x, found = jnp.zeros((len(images), *asked.shape[1:]), memory.dtype), []
        for number in range(1, self.decoder_layers + 1):
            x = DecoderLayer(*options, name=f"decoder{number}")(x, asked, memory, place, valid, train=train)
            found.append(x)
        return self._heads(_norm("norm", jnp.stack(found)))

    def _embed(self, images: Array, size: Array, train: bool) -> tuple[Array, Array, Array]:
        """Tokens and positions `b n d`, and which tokens are of the content `b n`."""
        features = self.backbone(images, train=train)[-1]
        projected = Conv(self.width, 1, dtype=self.dtype, kernel_init=resnet.uniform_fan_in, name="projection")(
            features
        )
        shape, wide = features.shape[1:3], at_least_float32(self.dtype)
        rows, columns = (_starting_inside(size[:, i], shape[i], images.shape[1 + i]) for i in (0, 1))
        extent = jnp.stack([rows.sum(1), columns.sum(1)], 1)
        place = positions.sine(extent, shape, self.width, wide)
        tokens = (len(images), shape[0] * shape[1], self.width)
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
    """Which of the cells along a side of so many pixels begin inside the content: its nearest interpolation."""
    return (jnp.arange(cells) * pixels // cells)[None] < size[:, None]


def _dense(name: str, features: int, dtype: DTypeLike, kernel_init: nn.initializers.Initializer) -> nn.Dense:
    wide = at_least_float32(dtype)
    return nn.Dense(features, dtype=dtype, param_dtype=wide, kernel_init=kernel_init, name=name)


def _norm(name: str, x: Array) -> Array:
    """LayerNorm with PyTorch's epsilon, in the type of `x`."""
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=x.dtype, param_dtype=x.dtype, name=name)(x)
