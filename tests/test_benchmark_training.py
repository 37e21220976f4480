"""The benchmarks of training steps: shared weights, plain Flax's names, and agreement with the peers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from experiments.benchmarks.speed import fashion_files, flax_networks, scenes, training_flax, training_ours
from experiments.benchmarks.speed.contest import Missing, Told, hold
from experiments.benchmarks.speed.training import SMALL, contest
from experiments.benchmarks.speed.weights import weights
from jaxvision.nn.resnet import resnet18, resnet50
from jaxvision.nn.vit import vit_tiny
from jaxvision.pretrained import timm, torchvision


def test_weights_depend_on_names_and_shapes_alone():
    shapes = {"b.weight": (4, 2, 3, 3), "a.running_var": (4,), "b.bias": (4,)}
    first, second = weights(shapes), weights(dict(reversed(shapes.items())))
    assert all(np.array_equal(first[name], second[name]) and first[name].dtype == np.float32 for name in shapes)
    assert {name: x.shape for name, x in first.items()} == shapes
    assert (first["a.running_var"] > 0).all()


@pytest.mark.parametrize(
    ("ours", "sources", "plain"),
    [
        (resnet18(10, stem="cifar"), torchvision.resnet_sources, flax_networks.resnet(18, 10, "cifar", jnp.float32)),
        pytest.param(
            *(resnet50(10), torchvision.resnet_sources, flax_networks.resnet(50, 10, "imagenet", jnp.float32)),
            marks=pytest.mark.slow,
        ),
        (vit_tiny(10, depth=2), timm.vit_sources, flax_networks.vit("vit_tiny", 10, jnp.float32, depth=2)),
    ],
    ids=["resnet18", "resnet50", "vit"],
)
def test_plain_flax_has_the_arrays_that_ours_have(ours, sources, plain):
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    spec = lambda network: jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images)
    expected = {source.name for source in sources(spec(ours)).values()}
    found = {
        training_flax.theirs(path, x.shape)[0]: training_flax.theirs(path, x.shape)[1]
        for path, x in traverse_util.flatten_dict(dict(spec(plain))).items()
    }
    assert set(found) == expected
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
    assert sum(int(np.prod(shape)) for shape in found.values()) == count(spec(ours))


def test_scenes_have_masks_within_their_boxes():
    scene = scenes.scene(1, (48, 64))
    for mask, (x0, y0, x1, y1) in zip(scene.masks[0], scene.boxes[0].astype(int), strict=True):
        y, x = np.nonzero(mask)
        assert (y.min(), y.max() + 1, x.min(), x.max() + 1) == (y0, y1, x0, x1)


def test_the_learning_rate_of_both_sides_rises_and_falls():
    assert [fashion_files.rate(step, 10, 512) for step in (0, 1, 2, 10)] == [
        0,
        0.2,
        0.4,
        0,
    ]


@pytest.mark.benchmark
@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.name)
def test_small_steps_agree_with_the_peers_that_are_installed(network):
    told = hold(contest(network))
    assert isinstance(told["ours"], Told)
    assert np.isfinite(told["ours"].outcome).all()
    if network.plain:
        assert isinstance(told["plain Flax"], Told)
    missing = [each.why for each in told.values() if isinstance(each, Missing)]
    assert all("No module named" in why for why in missing), missing


def test_every_network_of_ours_has_a_row():
    rows = {network.given["network"] for network in SMALL}
    assert rows == set(training_ours.NETWORKS) - {"yolox"}
