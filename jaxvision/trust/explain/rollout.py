"""Attention rollout (arXiv:2005.00928): how much of each patch the class token has seen behind all blocks of a ViT."""

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from jaxvision.errors import ConfigError
from jaxvision.trust.explain.scores import Score, partial

Weights = Float[Array, "b heads n n"]


def attention_weights(score: Score, images: Float[Array, "b h w c"]) -> list[Weights]:
    """The attention of every block, first to last, written out from queries and keys: the network multiplies them at once.

    Raises:
      ConfigError: if the network has no self-attention of tokens (`nn.vit`).
    """
    found = _attention(partial(score), images)
    if not found:
        raise ConfigError("rollout is for a vision transformer (nn.vit); this network has no self-attention of patches")
    return found


@jax.jit
def _attention(score: Partial, images: Float[Array, "b h w c"]) -> list[Weights]:
    found: list[Weights] = []

    def intercept(call: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        output = call(*args, **kwargs)
        if context.method_name == "__call__" and context.module.name == "qkv":
            found.append(weights(output, cast(Any, context.module.parent).heads))
        return output

    with nn.intercept_methods(intercept):
        score(images)
    return found


def weights(qkv: Float[Array, "b n _"], heads: int) -> Weights:
    """The softmax of the products of queries and keys, for every head."""
    query, key, _ = jnp.moveaxis(qkv.reshape(*qkv.shape[:2], 3, heads, -1), 2, 0)
    products = jnp.einsum("bqhd,bkhd->bhqk", query * query.shape[-1] ** -0.5, key)
    return jax.nn.softmax(products.astype(jnp.promote_types(products.dtype, jnp.float32)))


def rollout(attention: list[Weights]) -> Float[Array, "b n n"]:
    """The product of all blocks' attention, the mean of their heads, half of it being the shortcut around each block."""
    count = attention[0].shape[-1]
    shortcut = product = jnp.eye(count, dtype=attention[0].dtype)[None]
    for each in attention:
        product = (each.mean(1) + shortcut) / 2 @ product
    return product


def of_class_token(attention: list[Weights], grid: tuple[int, int]) -> Float[Array, "b y x"]:
    """The class token's row of the rollout, its patches laid out as rows and columns."""
    seen = rollout(attention)[:, 0, 1:]
    return seen.reshape(len(seen), *grid)
