"""ROI heads: what the R-CNN family says of regions whose features were pooled from maps of the image."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from jaxvision.nn import resnet
from jaxvision.nn.conv import Conv, kaiming_normal
from jaxvision.nn.fpn import Backbone, Maps
from jaxvision.nn.precision import at_least_float32
from jaxvision.ops.roi_align import roi_pool

Pool = Callable[[Sequence[Float[Array, "_ _ c"]], Float[Array, "n 4"]], Float[Array, "n s s c"]]
"""`(maps of one image, boxes in its pixels) -> features of each box`."""

AT_ONCE = 16
"""Regions of each image that the mask head computes at once, on CPU."""


class RegionScores(NamedTuple):
    """What is predicted for each region."""

    logits: Float[Array, "*b n k"]
    """Background first, then the classes."""
    offsets: Float[Array, "*b n k 4"]
    """Offsets of the box for each class, as `ops.box_codec` encodes them; those of background mean nothing."""


class BoxHead(nn.Module):
    """Two dense layers, and one each for classes and boxes: names `dense1`, `dense2`, `logits`, `offsets`.

    Needs an rng named "dropout" while training, unless `dropout` is 0.
    """

    classes: int
    hidden: int = 1024
    dropout: float = 0.0
    """Fraction of the units of both dense layers that are dropped while training; 0.5 in VGG16."""
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, pooled: Float[Array, "*b n s s c"], *, train: bool) -> RegionScores:
        """Scores of every region, in float32 at least."""
        wide = at_least_float32(self.dtype)
        dense = partial(nn.Dense, param_dtype=wide, kernel_init=resnet.uniform_fan_in)
        x = pooled.reshape(*pooled.shape[:-3], -1)
        for name in ("dense1", "dense2"):
            x = nn.relu(dense(self.hidden, dtype=self.dtype, name=name)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x, all_classes = x.astype(wide), self.classes + 1
        offsets = dense(4 * all_classes, dtype=wide, name="offsets")(x)
        return RegionScores(
            dense(all_classes, dtype=wide, name="logits")(x), offsets.reshape(*x.shape[:-1], all_classes, 4)
        )


class MaskHead(nn.Module):
    """3x3 convolutions, a transposed one that doubles the sides, and a mask for each class (arXiv:1703.06870, figure 4).

    Names: `conv1` and so on, `up`, `logits`.
    """

    classes: int
    channels: int = 256
    layers: int = 4
    """3x3 convolutions."""
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """The layers."""
        layer = partial(Conv, dtype=self.dtype)
        for n in range(1, self.layers + 1):
            setattr(self, f"conv{n}", layer(self.channels, 3, padding=1))
        self.up = Doubling(self.channels, self.dtype)
        self.logits = layer(self.classes + 1, 1)

    def __call__(
        self, pooled: Float[Array, "b n s s c"], valid: Bool[Array, "b n"] | None = None
    ) -> Float[Array, "b n t t k"]:
        """Logits of the masks of every region, twice its sides, background first; in float32 at least.

        On a CPU alone regions are computed some at a time, the first of all images first, and not at all, but taken to be 0,
        where none of them is `valid`: a step costs what its valid regions do, if these are the first. Several devices would
        exchange the gradients of each turn.
        """
        if valid is None or jax.default_backend() != "cpu" or jax.device_count() > 1:
            return self._logits(pooled)
        turns = [
            nn.cond(valid[:, rows].any(), MaskHead._logits, MaskHead._zeros, self, pooled[:, rows])
            for rows in (slice(n, n + AT_ONCE) for n in range(0, pooled.shape[1], AT_ONCE))
        ]
        return jnp.concatenate(turns, 1)

    def _logits(self, pooled: Float[Array, "b n s s c"]) -> Float[Array, "b n t t k"]:
        x = pooled.reshape(-1, *pooled.shape[-3:])
        for n in range(1, self.layers + 1):
            x = nn.relu(getattr(self, f"conv{n}")(x))
        x = self.logits(nn.relu(self.up(x))).astype(at_least_float32(self.dtype))
        return x.reshape(*pooled.shape[:-3], *x.shape[1:])

    def _zeros(self, pooled: Float[Array, "b n s s c"]) -> Float[Array, "b n t t k"]:
        b, n, height, width, _ = pooled.shape
        return jnp.zeros((b, n, 2 * height, 2 * width, self.classes + 1), at_least_float32(self.dtype))


class Doubling(nn.Module):
    """A transposed convolution of 2x2 with stride 2: every pixel becomes four. Parameters `kernel` `2 2 i o` and `bias`."""

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b y x o"]:
        """The map with twice its height and width."""
        wide, (b, h, w, i) = at_least_float32(self.dtype), x.shape
        kernel = self.param("kernel", kaiming_normal, (2, 2, i, self.features), wide)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), wide)
        spread = jnp.einsum("bhwi,yxio->bhywxo", x.astype(self.dtype), kernel.astype(self.dtype))
        return spread.reshape(b, 2 * h, 2 * w, -1) + bias.astype(self.dtype).reshape(1, 1, 1, -1)


class Last(nn.Module):
    """The coarsest map of a backbone alone."""

    backbone: Backbone

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Maps:
        """A list of one map."""
        return self.backbone(images, train=train)[-1:]


def pool_last(maps: Sequence[Float[Array, "_ _ c"]], boxes: Float[Array, "n 4"]) -> Float[Array, "n 7 7 c"]:
    """ROIPool (arXiv:1504.08083) to 7x7 cells from the last map, whose stride is 16."""
    return roi_pool(maps[-1], boxes, size=7, scale=1 / 16)
