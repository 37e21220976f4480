"""A new head on a backbone, for fine-tuning."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.precision import at_least_float32


class Head(nn.Module):
    """Global average pooling, a dense layer with ReLU, dropout, and a dense layer: names `dense`, `logits`.

    Needs an rng named "dropout" while training, unless `dropout` is 0.
    """

    classes: int
    hidden: int = 1024
    dropout: float = 0.5
    """Fraction of the hidden units that are dropped while training."""
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "b h w c"] | Float[Array, "b c"], *, train: bool) -> Float[Array, "b k"]:
        """Logits, in float32 (float64 if `dtype` is); features that are pooled already have two axes."""
        wide = at_least_float32(self.dtype)
        x = features.astype(wide)
        x = x.mean((1, 2)) if x.ndim == 4 else x
        x = nn.relu(nn.Dense(self.hidden, dtype=self.dtype, param_dtype=wide, name="dense")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.classes, dtype=wide, param_dtype=wide, name="logits")(x.astype(wide))


class WithHead(nn.Module):
    """A backbone and a head: `WithHead(resnet50().backbone, Head(2))`."""

    backbone: nn.Module
    """Gives features, or a list of them of which the last are taken."""
    head: nn.Module

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b k"]:
        """Logits of normalised images."""
        features = self.backbone(images, train=train)
        return self.head(features[-1] if isinstance(features, list) else features, train=train)


class Linear(nn.Module):
    """One dense layer, `head`, of features: a linear probe, or multinomial logistic regression."""

    classes: int

    @nn.compact
    def __call__(self, features: Float[Array, "b *s"], *, train: bool) -> Float[Array, "b k"]:
        """Logits; `train` changes nothing."""
        del train
        zeros = nn.initializers.zeros
        return nn.Dense(self.classes, kernel_init=zeros, name="head")(features.reshape(features.shape[0], -1))
