"""The law of `valid` in networks with batch normalisation: examples that are not valid are as if they were not there.

Detectors have it among their laws, in `test_detectors.py`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxvision.gradient import accumulate, mean_gradient
from jaxvision.nn import mobilenet, resnet, vgg
from jaxvision.nn.cnn import SmallCNN
from jaxvision.nn.googlenet import GoogLeNet
from jaxvision.nn.inception import InceptionV3
from jaxvision.nn.norm import BatchNorm
from jaxvision.tasks.classification import classification
from jaxvision.types import Batch, Labels

pytestmark = pytest.mark.usefixtures("float64")
DTYPE = {"dtype": jnp.float64}


def small_resnet(block):
    return resnet.ResNet(resnet.Backbone(block, (1, 1), 4, "cifar", **DTYPE), 3)


def small_mobilenet(kernel=3, **options):
    stages = mobilenet.Stage(1, 4, 1, 1), mobilenet.Stage(2, 8, 2, 2, kernel)
    return mobilenet.MobileNet(mobilenet.Backbone(stages, 4, **DTYPE, **options), 3, 8, dropout=0.0)


def small_vgg():
    return vgg.VGG(vgg.Backbone((1, 1), (4, 8), norm=BatchNorm, **DTYPE), 3, 8, dropout=0.0)


NETWORKS = {
    "small_cnn": (partial(SmallCNN, 3, (4, 8), dropout=0.0, **DTYPE), 16),
    "resnet": (partial(small_resnet, resnet.BasicBlock), 16),
    "mobilenet": (small_mobilenet, 16),
    "vgg": (small_vgg, 16),
    "resnet18": (partial(resnet.resnet18, 3, width=4, stem="cifar", **DTYPE), 16),
    "bottleneck": (partial(small_resnet, resnet.Bottleneck), 16),
    "efficientnet": (partial(small_mobilenet, 5, padding="same", norm=mobilenet.tensorflow_norm), 16),
    "googlenet": (partial(GoogLeNet, 3, auxiliary=True, dropout=0.0, auxiliary_dropout=0.0, **DTYPE), 64),
    "inception": (partial(InceptionV3, 3, dropout=0.0, **DTYPE), 75),
}
"""Networks of three classes, and the side of their images."""
QUICK = ("small_cnn", "resnet")


def half_valid(side):
    """Noise in eight images, of which every second is valid, and the valid ones alone."""
    random = np.random.default_rng(0)
    image, label = random.integers(0, 256, (8, side, side, 3), np.uint8), random.integers(0, 3, 8, np.int32)
    size, index = np.full((8, 2), side, np.int32), np.arange(8, dtype=np.int32)
    batch = jax.tree.map(jnp.asarray, Batch(image, size, size, index, index % 2 == 0, Labels(label)))
    return batch, jax.tree.map(lambda x: x[::2], batch)


def assert_close(found, expected):
    """To 1e-9 of the largest value of each array, 1 at least."""
    for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert_allclose(ours, theirs, rtol=0, atol=1e-9 * np.max(np.abs(theirs), initial=1))


def check(network, side, **options):
    both, alone = half_valid(side)
    task = classification(network, dtype=jnp.float64, **options)
    variables, step = jax.jit(task.init)(jax.random.key(0), alone), jax.jit(mean_gradient(task.loss))
    (loss, out), gradient = step(variables, both, jax.random.key(1))
    found = loss, out.metrics, out.collections, out.example_loss[::2], gradient
    (loss, out), gradient = step(variables, alone, jax.random.key(1))
    assert_close(found, (loss, out.metrics, out.collections, out.example_loss, gradient))
    statistics = jax.tree.leaves(out.collections["batch_stats"])
    assert all((a != b).any() for a, b in zip(statistics, jax.tree.leaves(variables["batch_stats"]), strict=True))


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS])
def test_the_valid_half_of_a_batch_computes_what_it_does_alone(name):
    make, side = NETWORKS[name]
    check(make(), side, auxiliary=0.3 if name == "googlenet" else None)


def test_so_it_does_in_a_network_of_ones_own_with_the_layer_of_flax(tiny_net):
    check(tiny_net(dtype=jnp.float64), 16)


@pytest.mark.parametrize("flax", [True, False])
def test_a_batch_without_a_valid_example_changes_nothing(tiny_net, flax):
    network = tiny_net(dtype=jnp.float64) if flax else NETWORKS["small_cnn"][0]()
    task, (batch, _) = classification(network, dtype=jnp.float64), half_valid(16)
    variables = jax.jit(task.init)(jax.random.key(0), batch)
    batch = batch.replace(valid=jnp.zeros(8, bool))
    (loss, out), gradient = jax.jit(mean_gradient(task.loss))(variables, batch, jax.random.key(1))
    assert loss == 0
    assert all((np.asarray(x) == 0).all() for x in jax.tree.leaves(gradient))
    jax.tree.map(assert_array_equal, out.collections, {"batch_stats": variables["batch_stats"]})


def test_a_micro_batch_without_a_valid_example_leaves_the_statistics_to_the_others():
    task, (both, alone) = classification(NETWORKS["small_cnn"][0](), dtype=jnp.float64), half_valid(16)
    variables = jax.jit(task.init)(jax.random.key(0), alone)
    (_, found), halved = jax.jit(accumulate(2)(task.loss))(variables, both, jax.random.key(1))
    (_, expected), gradient = jax.jit(mean_gradient(task.loss))(variables, alone, jax.random.key(1))
    assert_close(found.collections, expected.collections)
    assert_close(halved, jax.tree.map(lambda x: x / 2, gradient))
