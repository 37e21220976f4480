"""Inception v3 (arXiv 1512.00567) for images of 299x299 pixels.

Modules are named as in the figures of the original code and in torchvision: `Conv2d_1a_3x3`, `Mixed_5b/branch5x5_1`,
each with `conv` and `norm`; `AuxLogits`; `head`.
"""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.conv import ConvNormAct, max_pool
from jaxvision.nn.norm import BatchNorm, Norm
from jaxvision.nn.precision import at_least_float32

tensorflow_norm: Norm = partial(BatchNorm, epsilon=1e-3)
"""Batch normalisation with the epsilon of the original code."""
keras_norm: Norm = partial(BatchNorm, epsilon=1e-3, momentum=0.99, use_scale=False)
"""Batch normalisation as Keras' Inception v3 has it."""
inception_layer = partial(ConvNormAct, kernel_init=nn.initializers.normal(0.1))
"""Convolution, normalisation, ReLU; the field `norm` is to be given."""


class _Mixed(nn.Module):
    """Branches of convolutions over the same features, concatenated."""

    dtype: DTypeLike
    norm: Norm
    count_border: bool
    """Whether the zeros beyond the border count in an average."""

    def run(
        self, name: str, x: Array, features: int, size: int | tuple[int, int], train: bool, stride: int = 1
    ) -> Array:
        """One convolution of a branch; one with a stride is not padded."""
        padding = None if stride == 1 else 0
        layer = inception_layer(features, size, stride, padding, dtype=self.dtype, norm=self.norm, name=name)
        return layer(x, train=train)

    def chain(self, name: str, x: Array, layers: list[tuple], train: bool) -> Array:
        """Convolutions `(features, kernel_size[, stride])` one after another: `{name}_1`, `{name}_2`, ..."""
        for number, (features, size, *stride) in enumerate(layers, 1):
            x = self.run(f"{name}_{number}", x, features, size, train, *stride)
        return x

    def pooled(self, x: Array, features: int, train: bool) -> Array:
        """Averages of 3x3 pixels, then a 1x1 convolution."""
        average = average_pool(x, 3, padding=1, count_border=self.count_border)
        return self.run("branch_pool", average, features, 1, train)


class MixedA(_Mixed):
    """1x1, 5x5, two 3x3, pooling: 224 + `pool` channels."""

    pool: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"], *, train: bool) -> Float[Array, "b h w o"]:
        """Run the branches."""
        one = self.run("branch1x1", x, 64, 1, train)
        five = self.chain("branch5x5", x, [(48, 1), (64, 5)], train)
        three = self.chain("branch3x3dbl", x, [(64, 1), (96, 3), (96, 3)], train)
        return jnp.concatenate([one, five, three, self.pooled(x, self.pool, train)], axis=-1)


class MixedB(_Mixed):
    """Halves the image: 3x3, two 3x3, max pooling; 480 channels more."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"], *, train: bool) -> Float[Array, "b y x o"]:
        """Run the branches."""
        three = self.run("branch3x3", x, 384, 3, train, 2)
        double = self.chain("branch3x3dbl", x, [(64, 1), (96, 3), (96, 3, 2)], train)
        return jnp.concatenate([three, double, max_pool(x, 3, stride=2)], axis=-1)


class MixedC(_Mixed):
    """1x1, 7x7 in two steps, 7x7 in four steps, pooling: 768 channels."""

    inside: int
    """Channels inside the long branches."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"], *, train: bool) -> Float[Array, "b h w o"]:
        """Run the branches."""
        c, row, column = self.inside, (1, 7), (7, 1)
        one = self.run("branch1x1", x, 192, 1, train)
        seven = self.chain("branch7x7", x, [(c, 1), (c, row), (192, column)], train)
        double = self.chain("branch7x7dbl", x, [(c, 1), (c, column), (c, row), (c, column), (192, row)], train)
        return jnp.concatenate([one, seven, double, self.pooled(x, 192, train)], axis=-1)


class MixedD(_Mixed):
    """Halves the image: 3x3, 7x7 in two steps and 3x3, max pooling; 512 channels more."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"], *, train: bool) -> Float[Array, "b y x o"]:
        """Run the branches."""
        three = self.chain("branch3x3", x, [(192, 1), (320, 3, 2)], train)
        seven = self.chain("branch7x7x3", x, [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)], train)
        return jnp.concatenate([three, seven, max_pool(x, 3, stride=2)], axis=-1)


class MixedE(_Mixed):
    """1x1, 3x3 as a row beside a column, 3x3 and then the same, pooling: 2048 channels."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"], *, train: bool) -> Float[Array, "b h w o"]:
        """Run the branches."""
        one = self.run("branch1x1", x, 320, 1, train)
        three = self._cross("branch3x3_2", self.chain("branch3x3", x, [(384, 1)], train), train)
        double = self._cross("branch3x3dbl_3", self.chain("branch3x3dbl", x, [(448, 1), (384, 3)], train), train)
        return jnp.concatenate([one, three, double, self.pooled(x, 192, train)], axis=-1)

    def _cross(self, name: str, x: Array, train: bool) -> Array:
        row, column = self.run(f"{name}a", x, 384, (1, 3), train), self.run(f"{name}b", x, 384, (3, 1), train)
        return jnp.concatenate([row, column], axis=-1)


class AuxiliaryHead(nn.Module):
    """A small classifier of the 17x17 features, which trains the layers below; not used afterwards."""

    classes: int
    dtype: DTypeLike
    norm: Norm

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"], *, train: bool) -> Float[Array, "b k"]:
        """Logits; x: at least 17x17 features.

        Raises:
            ValueError: if there are fewer.
        """
        if min(x.shape[1:3]) < 17:
            raise ValueError(f"Inception v3: the auxiliary head needs 17x17 features (299 pixels), not {x.shape[1:3]}")
        conv = partial(inception_layer, dtype=self.dtype, norm=self.norm)
        x = average_pool(x, 5, stride=3)
        x = conv(128, 1, name="conv0")(x, train=train)
        x = conv(768, 5, padding=0, kernel_init=nn.initializers.normal(0.01), name="conv1")(x, train=train)
        return _dense("fc", self.classes, 0.001, self.dtype)(x.astype(at_least_float32(self.dtype)).mean((1, 2)))


class InceptionV3(nn.Module):
    """Inception v3, which classifies images of at least 75x75 pixels.

    Needs an rng named "dropout" while training, unless `dropout` is 0.
    """

    classes: int | None
    """None: no head, and none that is auxiliary; the result are the averaged features."""
    auxiliary: bool = False
    """Have an auxiliary head; it needs images of 299x299 pixels or more."""
    dropout: float = 0.5
    """Fraction of the averaged features dropped while training."""
    dtype: DTypeLike = jnp.float32
    norm: Norm = tensorflow_norm
    count_border: bool = True
    """Count the zeros beyond the border in averages, as PyTorch does and TensorFlow doesn't."""

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b k"], Float[Array, "b k"]]:
        """Logits of normalised images, in float32 (float64 if `dtype` is); training with `auxiliary`: also those of its head.

        Raises:
            ValueError: if the images are too small.
        """
        if min(images.shape[1:3]) < 75:
            raise ValueError(f"Inception v3 needs images of at least 75x75 pixels, not {images.shape[1:3]}")
        part = {"dtype": self.dtype, "norm": self.norm}
        x = self._middle(self._stem(images, train), train)
        second = None
        if self.auxiliary and self.classes is not None and (train or self.is_initializing()):
            second = AuxiliaryHead(self.classes, **part, name="AuxLogits")(x, train=train)
        mixed = {**part, "count_border": self.count_border}
        x = MixedD(**mixed, name="Mixed_7a")(x, train=train)
        x = MixedE(**mixed, name="Mixed_7b")(x, train=train)
        x = MixedE(**mixed, name="Mixed_7c")(x, train=train)
        x = x.astype(at_least_float32(self.dtype)).mean((1, 2))
        if self.classes is None:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        logits = _dense("head", self.classes, 0.1, self.dtype)(x)
        return logits if second is None or not train else (logits, second)

    def _stem(self, images: Array, train: bool) -> Array:
        """35x35 features of 299x299 pixels."""
        conv = partial(inception_layer, dtype=self.dtype, norm=self.norm)
        x = conv(32, 3, 2, padding=0, name="Conv2d_1a_3x3")(images, train=train)
        x = conv(32, 3, padding=0, name="Conv2d_2a_3x3")(x, train=train)
        x = max_pool(conv(64, 3, name="Conv2d_2b_3x3")(x, train=train), 3, stride=2)
        x = conv(80, 1, name="Conv2d_3b_1x1")(x, train=train)
        return max_pool(conv(192, 3, padding=0, name="Conv2d_4a_3x3")(x, train=train), 3, stride=2)

    def _middle(self, x: Array, train: bool) -> Array:
        """17x17 features of 35x35."""
        part = {"dtype": self.dtype, "norm": self.norm, "count_border": self.count_border}
        for name, pool in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = MixedA(**part, pool=pool, name=name)(x, train=train)
        x = MixedB(**part, name="Mixed_6a")(x, train=train)
        for name, inside in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = MixedC(**part, inside=inside, name=name)(x, train=train)
        return x


def inception_v3(classes: int | None = 1000, *, auxiliary: bool = False, dtype: DTypeLike = jnp.float32) -> InceptionV3:
    """Inception v3; 27,161,264 parameters with the auxiliary head, whose loss `classification(auxiliary=0.4)` adds."""
    return InceptionV3(classes, auxiliary, dtype=dtype)


def keras_inception_v3(classes: int | None = 1000, *, dtype: DTypeLike = jnp.float32) -> InceptionV3:
    """Inception v3 as `keras.applications` has it: normalisation without a scale, averages without the border."""
    return InceptionV3(classes, dtype=dtype, norm=keras_norm, count_border=False)


def average_pool(
    images: Float[Array, "b h w c"], window: int, *, stride: int = 1, padding: int = 0, count_border: bool = True
) -> Float[Array, "b y x c"]:
    """The mean of every `window` x `window` square; zeros beyond the border count only if `count_border`."""
    area, steps, edges = (1, window, window, 1), (1, stride, stride, 1), (padding, padding)

    def sums(x: Array) -> Array:
        return lax.reduce_window(x, 0.0, lax.add, area, steps, ((0, 0), edges, edges, (0, 0)))

    if count_border:
        return sums(images) / window**2
    return sums(images) / sums(jnp.ones((1, *images.shape[1:3], 1), images.dtype))


def _dense(name: str, features: int, deviation: float, dtype: DTypeLike) -> nn.Dense:
    wide, init = at_least_float32(dtype), nn.initializers.normal(deviation)
    return nn.Dense(features, dtype=wide, param_dtype=wide, kernel_init=init, name=name)
