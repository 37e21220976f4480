"""What all tests share: strictness, float64 on request, shape annotations checked, compilations fast and kept on disk."""

import os
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # many tests compile the same small programs
os.environ.setdefault(
    "JAX_DISABLE_MOST_OPTIMIZATIONS", "1"
)  # most programs run once: LLVM's take longer than they save

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jaxtyping import install_import_hook
from PIL import Image

# Not jaxvision.train: a pytree class that checks its fields can't hold what jax.tree.map puts there.
install_import_hook(["jaxvision.ops", "jaxvision.nn", "jaxvision.tasks"], "beartype.beartype")

from jaxvision import train  # noqa: E402
from jaxvision.data import host_tensorflow  # noqa: E402
from jaxvision.gradient import mean_gradient  # noqa: E402
from jaxvision.machine import eigen  # noqa: E402
from jaxvision.run import devices  # noqa: E402
from jaxvision.types import Batch, Labels  # noqa: E402

if jax.__version_info__ < (
    0,
    11,
):  # an unknown flag ends the process; MLIR's emitters take twice as long as those before
    os.environ["XLA_FLAGS"] = f"--xla_cpu_use_fusion_emitters=false {os.environ.get('XLA_FLAGS', '')}"
eigen.ask()
devices.keep_compilations()
jax.config.update("jax_numpy_rank_promotion", "raise")


PROCESSOR_SECONDS = 30
"""What a test of the default suite may take; one that takes longer is marked `slow`, or made smaller. Few take over 5 s, but
the same test takes twice as long where other machines share the memory."""
PROBE_SECONDS = 0.3
"""Processor time of the probe on the machine that the limit is meant for; a slower one is granted more in proportion."""


BEGUN_WITHIN = "JAXVISION_TEST_SECONDS"
"""Environment variable: seconds after which no further test begins, for a machine that is slower than most."""
STARTED = time.monotonic()


def pytest_runtest_setup(item):
    """Skips what is left when the time is over, so that a slow machine tells what it has found."""
    allowed = float(os.environ.get(BEGUN_WITHIN, "inf"))
    if time.monotonic() - STARTED > allowed:
        pytest.skip(f"not begun within {BEGUN_WITHIN}={allowed:.0f}")


LONG = ("test_learning_detectors.py", "test_run_killed.py", "test_quickstart.py", "eight_devices")
"""Parts of the names of tests that take a minute or more."""


def pytest_collection_modifyitems(items):
    """Long tests come first: at the end no process waits for another that has one left."""
    items.sort(key=lambda item: not any(part in item.nodeid for part in LONG))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    before = _processor_seconds()
    result = yield
    taken = _processor_seconds() - before
    if taken > PROCESSOR_SECONDS and not BIG.intersection(item.keywords):
        limit = PROCESSOR_SECONDS * max(1, _probe() / PROBE_SECONDS)
        if taken > limit:
            pytest.fail(f"{taken:.1f} s of processor time; a test that is not marked slow may take {limit:.1f} s")
    return result


def _probe():
    """Processor seconds of a fixed computation: how slow this machine is now."""
    before = time.process_time()
    sum(i * i for i in range(3_000_000))
    return time.process_time() - before


@pytest.fixture(autouse=True)
def float32_afterwards():
    """Whatever a test built in this process: an experiment in float64 lets JAX compute so from then on."""
    yield
    if jax.config.jax_enable_x64:
        jax.config.update("jax_enable_x64", False)


@pytest.fixture
def optimised():
    """The environment of a process that computes for longer than it compiles: without what only compiles faster."""
    quick = {"XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS"}
    return {name: value for name, value in os.environ.items() if name not in quick}


@pytest.fixture(scope="session")
def imported():
    """TensorFlow and Matplotlib are imported before the clock of a test runs; a fresh Matplotlib looks for fonts."""
    host_tensorflow.tensorflow_datasets()
    from matplotlib import font_manager

    assert font_manager.fontManager.ttflist


BIG = {"slow", "parity", "gpu", "network", "slurm", "ray", "formats", "text", "browser", "onnx", "benchmark"}


def _processor_seconds():
    """Of this process and of those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.fixture
def float64():
    """Makes JAX compute in float64 for one test."""
    with jax.enable_x64(True):
        yield


class TinyNet(nn.Module):
    """A convolution, a norm, a pooled linear layer: the smallest network with all that a real one has."""

    classes: int = 3
    width: int = 8
    norm: bool = True
    dtype: Any = jnp.float32
    pool: bool = True

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(self.width, (3, 3), strides=2, param_dtype=self.dtype, dtype=self.dtype)(x)
        if self.norm:
            x = nn.BatchNorm(use_running_average=not train, param_dtype=self.dtype, dtype=self.dtype)(x)
        x = nn.relu(x)
        x = x.mean((1, 2)) if self.pool else x
        return nn.Dense(self.classes, param_dtype=self.dtype, dtype=self.dtype)(x)


@pytest.fixture(scope="session")
def tiny_net():
    return TinyNet


@pytest.fixture
def colour_batch():
    """Makes a batch of noisy images whose class is the channel that is brighter than the others."""

    def make(count=12, side=16, seed=0):
        rng = np.random.default_rng(seed)
        label = np.arange(count, dtype=np.int32) % 3
        image = rng.integers(0, 120, (count, side, side, 3), dtype=np.uint8)
        image[np.arange(count), :, :, label] += 100
        size = np.full((count, 2), side, np.int32)
        return Batch(image, size, size, np.arange(count, dtype=np.int32), np.ones(count, bool), Labels(label))

    return make


@pytest.fixture
def train_steps():
    """Runs the one train step on the same batch again and again; gives the last state and the losses."""

    def run(task, batch, steps=30, optimizer=None, average=None, **options):
        optimizer = optimizer or optax.adam(1e-2)
        batch = jax.tree.map(jnp.asarray, batch)
        spec = jax.eval_shape(lambda: batch)
        state = train.init_state(task, optimizer, jax.random.key(0), spec, average=average)
        step = jax.jit(train.make_train_step(task, optimizer, average=average, **options))
        losses = []
        for _ in range(steps):
            state, metrics = step(state, batch)
            losses.append(float(metrics["loss"]))
        return state, losses

    return run


@pytest.fixture
def strict_gradient():
    """The loss and the gradient of a task, under strict dtype promotion."""

    def compute(task, variables, batch, key=None):
        batch = jax.tree.map(jnp.asarray, batch)
        key = jax.random.key(1) if key is None else key
        with jax.numpy_dtype_promotion("strict"):
            (loss, _), grads = jax.jit(mean_gradient(task.loss))(variables, batch, key)
        return float(loss), grads

    return compute


@pytest.fixture(scope="module")
def folder_of_classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    for name in ("a", "b", "c"):
        (folder / name).mkdir()
        for i in range(5):
            Image.new("RGB", (20, 30), (50 * i, 0, 0)).save(folder / name / f"{i}.png")
    return folder
