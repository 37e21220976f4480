"""Structured pruning: the narrower network computes what the wide one does with the other channels silent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detectors import make_batch, small_ssd

from jaxvision.errors import ConfigError
from jaxvision.experiment import Experiment
from jaxvision.nn import resnet
from jaxvision.nn.cnn import SmallCNN, TutorialCNN
from jaxvision.tasks.classification import classification
from jaxvision.trust.lighter import channels
from jaxvision.types import Batch, Labels, Stream


def batch_of(side=16, rows=4, colours=3):
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.integers(0, 256, (rows, side, side, colours), dtype=np.uint8))
    size = jnp.full((rows, 2), side).at[:, 0].set(side - 3)
    return Batch(image, size, size, jnp.arange(rows), jnp.ones(rows, bool), Labels(jnp.arange(rows) % 3))


def alive(task, batch):
    """Variables whose every number matters."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(task.init, jax.random.key(0), batch)
    noisy = lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.3, x.dtype)
    variables = jax.tree.map(noisy, shapes)
    positive = lambda path, x: jnp.abs(x) + 0.5 if path[-1].key in ("var", "scale") else x
    return jax.tree_util.tree_map_with_path(positive, variables)


def silenced(variables, keep):
    """The variables with the weakest channels of each convolution that may lose some at 0, by NumPy loops."""
    flat = {
        jax.tree_util.keystr(path, simple=True, separator="/"): x
        for path, x in jax.tree_util.tree_leaves_with_path(variables)
    }
    for name in [name for name in flat if keep.get(name.removeprefix("params/").removesuffix("/kernel"))]:
        layer = name.removeprefix("params/").removesuffix("/kernel")
        kernel = np.asarray(flat[name])
        strength = [np.abs(kernel[..., n]).sum() for n in range(kernel.shape[-1])]
        for n in np.argsort(strength)[: kernel.shape[-1] - keep[layer]]:
            norm = f"params/{layer.replace('conv', 'norm')}"
            for each in ("scale", "bias"):
                flat[f"{norm}/{each}"] = flat[f"{norm}/{each}"].at[n].set(0.0)
    leaves, tree = jax.tree.flatten(variables)
    assert len(leaves) == len(flat)
    return jax.tree.unflatten(tree, list(flat.values()))


NETWORKS = {
    "small_cnn": (
        SmallCNN(3, (4, 6), dropout=0.0),
        0.5,
        {"": {"channels": ((2, 2), (3, 3))}},
        {"stage1_conv1": 2, "stage1_conv2": 2, "stage2_conv1": 3, "stage2_conv2": 3},
    ),
    "basic": (
        resnet.ResNet(resnet.Backbone(resnet.BasicBlock, (1, 1), width=6, stem="cifar"), 3),
        1 / 3,
        {"backbone": {"inside": (2, 4)}},
        {"backbone/stage1_block1/conv1": 2, "backbone/stage2_block1/conv1": 4},
    ),
    "bottleneck": (
        resnet.ResNet(resnet.Backbone(resnet.Bottleneck, (1, 1), width=4, stem="cifar"), 3),
        0.75,
        {"backbone": {"inside": (3, 6)}},
        {f"backbone/stage{s}_block1/conv{n}": 3 * s for s in (1, 2) for n in (1, 2)},
    ),
}


@pytest.mark.parametrize(
    "name", [name if name == "small_cnn" else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_the_narrower_network_equals_the_wide_one_with_silent_channels(name, float64):
    network, keep, arguments, kept = NETWORKS[name]
    task, batch = classification(network, mean=100.0, std=50.0), batch_of()
    variables = jax.tree.map(lambda x: x.astype(jnp.float64), alive(task, batch))
    found = channels.without_channels(task, variables, batch, keep)
    assert found.arguments == arguments
    narrow = channels.narrowed(task, found.arguments)
    shapes = jax.eval_shape(narrow.init, jax.random.key(0), batch)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, found.variables)
    predict = jax.jit(task.predict)
    expected = predict(silenced(variables, kept), batch).logits
    one = jax.jit(narrow.predict)(found.variables, batch).logits
    np.testing.assert_allclose(one, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(expected - predict(variables, batch).logits).max() > 1e-3
    path = next(iter(arguments))
    again = (
        network.clone(**arguments[path])
        if path == ""
        else network.clone(backbone=network.backbone.clone(**arguments[path]))
    )
    direct = classification(again, mean=100.0, std=50.0)
    np.testing.assert_array_equal(jax.jit(direct.predict)(found.variables, batch).logits, one)
    assert channels.flops(narrow, found.variables, batch) < 0.9 * channels.flops(task, variables, batch)


def check_laws(task, batch, keep, *chosen):
    """Target, padding and compilations of a task without channels, which is trained, too."""
    variables = jax.jit(task.init)(jax.random.key(0), batch)
    found = channels.without_channels(task, variables, batch, keep, *chosen)
    narrow = channels.narrowed(task, found.arguments)
    predict = jax.jit(narrow.predict)
    outside = jnp.arange(batch.image.shape[1])[None, :, None, None] >= batch.size[:, :1, None, None]
    spoilt = batch.replace(image=jnp.where(outside, jnp.asarray(77, batch.image.dtype), batch.image), target=None)
    one, two = predict(found.variables, batch.replace(target=None)), predict(found.variables, spoilt)
    assert predict._cache_size() == 1
    jax.tree.map(np.testing.assert_array_equal, one, two)
    jax.tree.map(np.testing.assert_array_equal, one, predict(found.variables, batch))
    loss = jax.jit(narrow.loss)
    value, out = loss(found.variables, batch, jax.random.key(1))
    assert value == loss(found.variables, spoilt.replace(target=batch.target), jax.random.key(1))[0]
    assert jax.tree.map(jnp.shape, out.collections) == jax.tree.map(
        jnp.shape, {"batch_stats": found.variables["batch_stats"]}
    )
    wide = jax.eval_shape(task.predict, variables, batch)  # the task itself is as it was
    assert jax.tree.map(jnp.shape, wide) == jax.tree.map(jnp.shape, one)
    return found


def test_laws_of_a_narrower_classifier():
    task = classification(SmallCNN(3, (4, 6), depth=1, dropout=0.0), mean=100.0, std=50.0)
    check_laws(task, batch_of(), 0.5)


@pytest.mark.slow
def test_laws_of_a_narrower_detector():
    found = check_laws(small_ssd(), make_batch(dtype=np.float32), 0.5, "features/backbone/stage2.*")
    assert found.arguments == {"features/backbone": {"inside": (8, 8)}}
    kernel = found.variables["params"]["features"]["backbone"]["stage2_block1"]["conv1"]["kernel"]
    assert kernel.shape == (3, 3, 8, 8)


def test_an_experiment_takes_the_smaller_arguments():
    task = classification(SmallCNN(3, (4,), depth=1, dropout=0.0))
    made = channels.narrowed_experiment(
        Experiment(task, None, 1, Stream(None, None, None)), {"": {"channels": ((2,),)}}
    )
    shapes = jax.eval_shape(made.task.init, jax.random.key(0), batch_of())
    assert shapes["params"]["stage1_conv1"]["kernel"].shape == (3, 3, 3, 2)


def test_strongest_filters_in_their_order():
    kernel = np.array([[1.0, -9.0, 3.0, 3.0], [1.0, 1.0, 0.0, 0.0]])
    assert channels.strongest(kernel, 0.5).tolist() == [1, 2]
    assert channels.strongest(kernel, 0.01).tolist() == [1]
    assert channels.strongest(kernel, 1.0).tolist() == [0, 1, 2, 3]


def test_what_is_not_allowed_is_told():
    batch, task = batch_of(), classification(SmallCNN(3, (4, 6), dropout=0.0))
    variables = task.init(jax.random.key(0), batch)
    for keep in (0.0, 1.2, float("nan")):
        with pytest.raises(ConfigError, match=rf"keep is {keep}; it must be above 0 and at most 1"):
            channels.without_channels(task, variables, batch, keep)
    with pytest.raises(
        ConfigError, match=r"'stage9.*' matches no convolution .*; the nearest names are stage\d_conv\d"
    ):
        channels.without_channels(task, variables, batch, 0.5, "stage9.*")
    other = classification(TutorialCNN(3))
    big = batch_of(32)
    with pytest.raises(
        ConfigError, match=r"channels of TutorialCNN can't be pruned: allowed are SmallCNN and Backbone"
    ):
        channels.without_channels(other, jax.eval_shape(other.init, jax.random.key(0), big), big, 0.5)
    with pytest.raises(
        ValueError, match=r"channels is \(4, \(1, 2, 3\)\); of a stage allowed is one number, or depth=2"
    ):
        SmallCNN(3, (4, (1, 2, 3))).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
    with pytest.raises(ValueError, match=r"inside=\(3,\) is of 1 blocks, and there are 2"):
        resnet.Backbone(resnet.BasicBlock, (1, 1), inside=(3,)).init(
            jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False
        )
