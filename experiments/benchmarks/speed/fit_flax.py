"""A minimal loop of Flax's `TrainState` and Optax in the benchmark `fit`: no jaxvision in it."""

import itertools

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

from experiments.benchmarks.speed import fit_data
from experiments.benchmarks.speed.contest import Work


class CNN(nn.Module):
    """3x3 convolutions with BatchNorm, ReLU and pooling; one dense layer."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of normalised images."""
        for stage, channels in enumerate(fit_data.CHANNELS, 1):
            x = nn.Conv(channels, (3, 3), use_bias=False, name=f"stage{stage}_conv1")(x)
            x = nn.relu(nn.BatchNorm(use_running_average=False, epsilon=1e-5, name=f"stage{stage}_norm1")(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(fit_data.CLASSES, name="head")(x.reshape(len(x), -1))


class State(TrainState):
    """State of Flax, and the statistics of BatchNorm beside it."""

    batch_stats: dict


def step(state: State, image: jax.Array, label: jax.Array) -> tuple[State, jax.Array]:
    """A training step, and its loss."""

    def loss_of(params: dict) -> tuple[jax.Array, dict]:
        x = (image.astype(jnp.float32) - fit_data.MEAN) / fit_data.STD
        logits, changed = state.apply_fn({"params": params, "batch_stats": state.batch_stats}, x, mutable="batch_stats")
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), changed["batch_stats"]

    (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    return state.apply_gradients(grads=grads, batch_stats=stats), loss


def loop(batch_size: int) -> Work:
    """The step, again and again; the outcome is the first losses."""
    model, given = CNN(), fit_data.batches(batch_size)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, fit_data.SIDE, fit_data.SIDE, 1)))
    call = jax.jit(step, donate_argnums=0)
    batches = itertools.cycle(given)

    def fresh() -> State:
        params, stats = fit_data.filled(variables["params"]), jax.tree.map(jnp.copy, variables["batch_stats"])
        return State.create(apply_fn=model.apply, params=params, tx=fit_data.optimizer(), batch_stats=stats)

    state = fresh()

    def run(units: int) -> None:
        nonlocal state
        for _ in range(units):
            state, _ = call(state, *next(batches))
        jax.block_until_ready(state)

    def outcome() -> list[float]:
        state, found = fresh(), []
        for each in given[: fit_data.COMPARED]:
            state, loss = call(state, *each)
            found.append(float(loss))
        return found

    return Work(run, outcome)
