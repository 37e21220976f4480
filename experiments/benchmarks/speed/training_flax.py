"""Side of a plain Flax and Optax program in the benchmarks `training` and `training_gpu`; nothing of jaxvision."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from flax.training.train_state import TrainState

from experiments.benchmarks.speed import flax_networks, scenes
from experiments.benchmarks.speed.contest import Work
from experiments.benchmarks.speed.weights import weights

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
Arrays = dict[str, np.ndarray]


class State(TrainState):
    """Flax's, with the statistics of BatchNorm."""

    batch_stats: Any


def step(network: str, batch: int, size: Sequence[int], classes: int, dtype: str = "float32", **options: Any) -> Work:
    """Training steps of a ResNet or a ViT."""
    model = getattr(flax_networks, network)(classes=classes, dtype=jnp.dtype(dtype), **options)
    given = scenes.classified(batch, size, classes)
    images, labels = jnp.asarray(given.images), jnp.asarray(given.labels)
    optimizer = optax.adamw(1e-4, weight_decay=0.05) if network == "vit" else optax.sgd(1e-3, 0.9)
    spec = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(images.shape), train=False))
    variables = loaded(spec)
    rest = variables.get("batch_stats", {})
    state = State.create(apply_fn=model.apply, params=variables["params"], tx=optimizer, batch_stats=rest)
    run = jax.jit(trained, donate_argnums=0)

    def stepped(units: int) -> dict[str, jax.Array]:
        nonlocal state
        metrics = {}
        for _ in range(units):
            state, metrics = run(state, images, labels)
        return jax.block_until_ready(metrics)

    def outcome() -> list[float]:
        first, second = stepped(1), stepped(1)
        found = [float(first["loss"]), float(first["gradient_norm"]), float(second["loss"])]
        return found if dtype == "float32" else found[:1]

    return Work(stepped, outcome, device_bytes=gpu_bytes if jax.default_backend() == "gpu" else None)


def gpu_bytes() -> float:
    """The most that was used of the device."""
    return (jax.devices()[0].memory_stats() or {})["peak_bytes_in_use"]


def trained(state: State, images: jax.Array, labels: jax.Array) -> tuple[State, dict[str, jax.Array]]:
    """One step, as Flax's examples have it."""

    def loss_of(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        normalised = (images.astype(jnp.float32) - jnp.float32(MEAN)) / jnp.float32(STD)
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, changed = state.apply_fn(variables, normalised, train=True, mutable=["batch_stats"])
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, (logits, changed)

    (loss, (logits, changed)), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    state = state.apply_gradients(grads=gradient, batch_stats=changed.get("batch_stats", state.batch_stats))
    accuracy = (logits.argmax(-1) == labels).mean()
    return state, {"loss": loss, "accuracy": accuracy, "gradient_norm": optax.tree.norm(gradient)}


LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
ATTENTION = ("query", "key", "value")


def loaded(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The shared weights, from PyTorch's names and axes."""
    arrays: dict[Any, Any] = {**traverse_util.flatten_dict(dict(spec))}
    flat = {path: x.shape for path, x in arrays.items()}
    arrays = weights(dict(theirs(path, shape) for path, shape in flat.items()))
    return traverse_util.unflatten_dict(
        {path: ours(path, shape, arrays[theirs(path, shape)[0]]) for path, shape in flat.items()}
    )


def theirs(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Name and shape of an array in PyTorch: `blocks_0/attn/query/kernel` is a third of `blocks.0.attn.qkv.weight`."""
    *modules, leaf = path[1:]
    if not modules:
        return leaf, shape
    name = ".".join(
        part.replace("_", ".") if part not in ("patch_embed_proj",) else "patch_embed.proj" for part in modules
    )
    if modules[-1] in ATTENTION:
        name = name.removesuffix(modules[-1]) + "qkv"
        width = shape[-2] * shape[-1]
        return f"{name}.{LEAVES[leaf]}", (3 * width, width) if leaf == "kernel" else (3 * width,)
    if modules[-1] == "out":
        name = name.removesuffix("out") + "proj"
        return f"{name}.{LEAVES[leaf]}", (shape[-1], shape[-1]) if leaf == "kernel" else shape
    if leaf == "kernel":
        shape = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
    return f"{name}.{LEAVES[leaf]}", shape


def ours(path: tuple[str, ...], shape: tuple[int, ...], array: np.ndarray) -> jax.Array:
    """The array with Flax's axes."""
    module, leaf = path[-2], path[-1]
    if module in ATTENTION:
        array = np.split(array, 3)[ATTENTION.index(module)]
    if leaf == "kernel":
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return jnp.asarray(array.reshape(shape))
