"""How a loss and a batch become a gradient: values of one type.

A `Gradient` turns `loss(variables, batch, key)` into `value_and_grad(variables, batch, key)`, which returns
`(loss, LossOutput), gradient of variables["params"]`. `mean_gradient` is one; `accumulate(k)` and
`per_example(clip, noise)` make others. Clipping of the whole gradient is `optax.clip_by_global_norm`.
"""

from collections.abc import Callable
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import optax

from jaxvision.errors import amount
from jaxvision.types import Batch, Key, LossOutput, Params, Scalar, Variables

Loss = Callable[[Variables, Batch, Key], tuple[Scalar, LossOutput]]
ValueAndGrad = Callable[[Variables, Batch, Key], tuple[tuple[Scalar, LossOutput], Params]]
Gradient = Callable[[Loss], ValueAndGrad]


def mean_gradient(loss: Loss) -> ValueAndGrad:
    """The gradient of the loss of the whole batch."""

    def value_and_grad(variables: Variables, batch: Batch, key: Key):
        def of_params(params):
            return loss({**variables, "params": params}, batch, key)

        return jax.value_and_grad(of_params, has_aux=True)(variables["params"])

    return value_and_grad


def accumulate(k: int) -> Gradient:
    """The mean gradient over `k` micro-batches, one after another: in the memory of one, where XLA runs them in turn.

    Micro-batch `i` holds the examples `i, i + k, i + 2k, ...`, so that every device of a sharded batch has a part of
    each. Collections (BatchNorm statistics) pass from one micro-batch to the next. The mean of the micro-batches is the
    full batch's gradient only where the loss is a mean over examples: BatchNorm normalises by micro-batch, and a loss
    that divides by the number of objects (or of valid examples) divides by each micro-batch's own.

    Raises:
      ValueError: while tracing, if the batch size is not a multiple of `k`.
    """
    if k < 1:
        raise ValueError(f"accumulate: k is {k}; it must be at least 1")

    def gradient(loss: Loss) -> ValueAndGrad:
        return partial(_accumulated, mean_gradient(loss), k)

    return gradient


def _accumulated(value_and_grad: ValueAndGrad, k: int, variables: Variables, batch: Batch, key: Key):
    micro_batches = jax.tree.map(partial(_interleave, k), batch)

    def one(carry, i):
        collections, total = carry
        micro = jax.tree.map(lambda x: x[i], micro_batches)
        (loss, out), grads = value_and_grad({**variables, **collections}, micro, jax.random.fold_in(key, i))
        collections = {**collections, **out.collections}
        return (collections, jax.tree.map(jnp.add, total, grads)), (loss, out.metrics, out.example_loss)

    # The collections of the carry need their final structure from the start.
    collections = {name: value for name, value in variables.items() if name not in ("params", "ema")}
    zeros = jax.tree.map(jnp.zeros_like, variables["params"])
    (collections, total), (loss, metrics, example_loss) = _loop(one, (collections, zeros), k)
    if example_loss is not None:
        example_loss = example_loss.swapaxes(0, 1).reshape(-1)
    metrics = jax.tree.map(lambda x: x.mean(0), metrics)
    return (loss.mean(), LossOutput(metrics, collections, example_loss)), jax.tree.map(lambda x: x / k, total)


def _interleave(k: int, x: jax.Array) -> jax.Array:
    if x.shape[0] % k:
        raise ValueError(
            f"accumulate: a batch of {amount(x.shape[0], 'example')} can't be split into {k} equal micro-batches"
        )
    return x.reshape(x.shape[0] // k, k, *x.shape[1:]).swapaxes(0, 1)


def _loop(body, carry, k: int):
    """`lax.scan`, but unrolled on CPU, where a convolution's gradient inside a scan is some fifty times slower."""
    if jax.default_backend() != "cpu":
        return jax.lax.scan(body, carry, jnp.arange(k))
    outputs = []
    for i in range(k):
        carry, output = body(carry, i)
        outputs.append(output)
    return carry, jax.tree.map(lambda *xs: jnp.stack(xs), *outputs)


def per_example(clip: float, noise: float = 0.0) -> Gradient:
    """Differentially private gradients (DP-SGD, arXiv:1607.00133).

    The gradient of each example alone is clipped to the norm `clip`; the sum gets Gaussian noise of standard deviation
    `noise * clip` and is divided by the batch size. Metrics and collections are the mean over the examples. Needs the
    memory of a gradient for every example; a network without BatchNorm, since that mixes the examples.

    Raises:
      ValueError: if `clip` is not positive or `noise` is negative.
    """
    if clip <= 0 or noise < 0:
        raise ValueError(f"per_example: clip is {clip} and noise is {noise}; they must be > 0 and >= 0")

    def gradient(loss: Loss) -> ValueAndGrad:
        return partial(_private, mean_gradient(loss), clip, noise)

    return gradient


def _private(value_and_grad: ValueAndGrad, clip: float, noise: float, variables: Variables, batch: Batch, key: Key):
    loss_key, noise_key = jax.random.split(key)
    count = batch.image.shape[0]

    def of_one(example, key):
        alone = jax.tree.map(lambda x: x[None], example)
        return value_and_grad(variables, alone, key)

    (loss, out), grads = jax.vmap(of_one)(batch, jax.random.split(loss_key, count))
    leaves, structure = jax.tree.flatten(grads)
    summed = cast(list, optax.per_example_global_norm_clip(leaves, clip)[0])
    keys = jax.random.split(noise_key, len(leaves))
    noisy = [x + noise * clip * jax.random.normal(k, x.shape, x.dtype) for x, k in zip(summed, keys, strict=True)]
    mean = partial(jax.tree.map, lambda x: x.mean(0, dtype=x.dtype))
    example_loss = None if out.example_loss is None else out.example_loss[:, 0]
    output = LossOutput(mean(out.metrics), mean(out.collections), example_loss)
    return (loss.mean(), output), jax.tree.unflatten(structure, [x / count for x in noisy])
