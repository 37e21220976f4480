"""Program of Flax in the benchmark `start`: a main as the MNIST and ImageNet examples of Flax have it.

Flags of absl and a config, a `TrainState` with BatchNorm's statistics, checkpoints, one jitted step. The data are read by
NumPy, where the examples have TensorFlow.
"""

import json
import os

import jax
import jax.numpy as jnp
import ml_collections
import optax
from absl import app, flags, logging
from flax import linen as nn
from flax.training import checkpoints, train_state
from ml_collections import config_flags

from experiments.benchmarks.speed.start_data import fashion_mnist


def get_config() -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(
        {"seed": 0, "batch_size": 128, "epochs": 8, "learning_rate": 6e-3, "weight_decay": 0.02, "dropout": 0.4}
    )


FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Directory to store model data.")
config_flags.DEFINE_config_dict("config", get_config(), "Hyperparameters.")


class CNN(nn.Module):
    """The network of the quickstart."""

    dropout: float

    @nn.compact
    def __call__(self, x, train: bool):
        """Logits."""
        for features in (16, 32, 64):
            for _ in range(2):
                x = nn.Conv(features, (3, 3), use_bias=False, padding=1)(x)
                x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.Dropout(self.dropout, deterministic=not train)(x.reshape((x.shape[0], -1)))
        return nn.Dense(10)(x)


class TrainState(train_state.TrainState):
    """The state, with BatchNorm's statistics."""

    batch_stats: dict


def create_train_state(rng, config, steps: int) -> TrainState:
    """The first state."""
    cnn = CNN(config.dropout)
    variables = cnn.init(rng, jnp.ones([1, 28, 28, 1]), train=False)
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, steps // 10, steps)
    tx = optax.adamw(schedule, weight_decay=config.weight_decay)
    stats = variables["batch_stats"]
    return TrainState.create(apply_fn=cnn.apply, params=variables["params"], tx=tx, batch_stats=stats)


@jax.jit
def train_step(state: TrainState, images, labels, rng):
    """One step."""
    flip_rng, rng = jax.random.split(jax.random.fold_in(rng, state.step))
    flipped = jax.random.bernoulli(flip_rng, 0.5, (len(images), 1, 1, 1))
    images = (jnp.where(flipped, images[:, :, ::-1], images).astype(jnp.float32) - 73.0) / 90.0

    def loss_fn(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, new = state.apply_fn(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": rng})
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), (logits, new["batch_stats"])

    (loss, (logits, stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    state = state.apply_gradients(grads=grads, batch_stats=stats)
    return state, {"loss": loss, "accuracy": jnp.mean(jnp.argmax(logits, -1) == labels)}


def train_and_evaluate(config, workdir: str) -> None:
    """Trains; ends behind the first step."""
    images, labels = fashion_mnist("train")
    steps = config.epochs * len(images) // config.batch_size
    rng, init_rng = jax.random.split(jax.random.key(config.seed))
    state = checkpoints.restore_checkpoint(workdir, create_train_state(init_rng, config, steps))
    order = jax.random.permutation(rng, len(images))[: config.batch_size]
    state, metrics = train_step(state, images[order], labels[order], rng)
    jax.block_until_ready((state.params, metrics))
    parameters = sum(each.size for each in jax.tree.leaves(state.params))
    print(json.dumps({"parameters": parameters, "batch": config.batch_size}), flush=True)
    os._exit(0)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError("Too many command-line arguments.")
    logging.info("JAX devices: %r", jax.local_devices())
    train_and_evaluate(FLAGS.config, FLAGS.workdir)


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    app.run(main)
