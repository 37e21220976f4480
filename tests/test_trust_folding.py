"""BatchNorm folded into the layer before it: exact in float64, what can't be folded stays, the laws of tasks hold."""

import json
import os
import subprocess
import sys
from pathlib import Path

import detectors
import exports
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from segmenters import EVERY as SEGMENTERS
from segmenters import make_batch as segmentation_batch

from jaxvision.nn.conv import Conv
from jaxvision.nn.norm import BatchNorm, FrozenBatchNorm
from jaxvision.tasks.classification import classification
from jaxvision.trust.lighter.folding import fold, foldable, folded
from jaxvision.types import Batch, Labels


class Mixed(nn.Module):
    """Every way in which a normalisation stands behind a layer, or does not."""

    @nn.compact
    def __call__(self, x, *, train):
        still = not train
        x = BatchNorm(name="first_norm", dtype=x.dtype)(self.conv(x, "first", bias=True), use_running_average=still)
        x = FrozenBatchNorm(name="frozen_norm", dtype=x.dtype)(self.conv(nn.relu(x), "frozen"))
        read_twice = self.conv(x, "twice")
        x = BatchNorm(name="twice_norm", dtype=x.dtype)(read_twice, use_running_average=still) + read_twice
        shared = Conv(4, 1, use_bias=False, dtype=x.dtype, name="shared")
        x = BatchNorm(name="one_norm", dtype=x.dtype)(shared(x), use_running_average=still)
        x = BatchNorm(name="other_norm", dtype=x.dtype)(shared(x), use_running_average=still)
        x = BatchNorm(name="late_norm", dtype=x.dtype)(nn.relu(self.conv(x, "late")), use_running_average=still)
        both = jnp.concatenate([self.conv(x, "left"), self.conv(x, "right")], -1)
        x = BatchNorm(name="both_norm", dtype=x.dtype)(both, use_running_average=still).mean((1, 2))
        x = nn.Dense(5, use_bias=False, name="dense", dtype=x.dtype, param_dtype=x.dtype)(x)
        options = {"use_bias": False, "dtype": x.dtype, "param_dtype": x.dtype}
        x = nn.BatchNorm(use_running_average=still, name="dense_norm", **options)(x)
        return nn.Dense(3, name="head", dtype=x.dtype, param_dtype=x.dtype)(x)

    @nn.nowrap
    def conv(self, x, name, bias=False):
        return Conv(4, 3, padding=1, use_bias=bias, dtype=x.dtype, name=name)(x)


def spread(variables):
    """The variables with no number at the value that it begins with, variances positive."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + np.abs(rng.normal(0, 0.1, x.shape)).astype(x.dtype), variables)


def images(side=8, rows=4, dtype=np.float64):
    """Images whose last row of pixels is none of their content."""
    image = np.random.default_rng(1).integers(0, 256, (rows, side, side, 3)).astype(dtype)
    size = np.tile([side - 1, side], (rows, 1))
    index = np.arange(rows)
    return jax.tree.map(jnp.asarray, Batch(image, size, size, index, index >= 0, Labels(index % 3)))


def apart(one, two):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    return max(float(np.max(np.abs(np.asarray(a, float) - np.asarray(b, float)), initial=0)) for a, b in pairs)


def made(task, batch):
    """Variables of a task, those folded, and what was found."""
    variables = spread(jax.jit(task.init)(jax.random.key(0), batch))
    found = foldable(task, variables, batch)
    return variables, fold(variables, found), found


@pytest.mark.usefixtures("float64")
def test_a_normalisation_directly_behind_a_layer_of_its_own_is_folded_and_no_other():
    task, batch = classification(Mixed(), mean=128.0, std=60.0, dtype=jnp.float64), images()
    variables, lighter, found = made(task, batch)
    assert [("/".join(pair.linear), "/".join(pair.norm)) for pair in found.pairs] == [
        ("first", "first_norm"),
        ("frozen", "frozen_norm"),
        ("dense", "dense_norm"),
    ]
    assert found.rest == ("both_norm", "late_norm", "one_norm", "other_norm", "twice_norm")
    assert set(lighter["batch_stats"]) == {*found.rest, "frozen_norm"}
    assert set(lighter["batch_stats"]["frozen_norm"]) == {"bias"}  # it is not trained, as before
    after = folded(task)
    assert apart(task.predict(variables, batch), after.predict(lighter, batch)) < 1e-9
    fresh = jax.eval_shape(after.init, jax.random.key(0), batch)
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, lighter)
    (loss, out), gradient = jax.value_and_grad(after.loss, has_aux=True)(lighter, batch, jax.random.key(1))
    assert np.isfinite(loss)
    assert jax.tree.structure(out.collections["batch_stats"]) == jax.tree.structure(lighter["batch_stats"])
    assert np.abs(gradient["params"]["first_norm"]["bias"]).max() > 0


@pytest.mark.usefixtures("float64")
def test_folding_equals_a_loop_in_numpy():
    class One(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            x = Conv(2, 1, use_bias=True, dtype=x.dtype, name="conv")(x)
            norm = BatchNorm(epsilon=0.01, dtype=x.dtype, name="norm")
            return norm(x, use_running_average=not train).mean((1, 2))

    task, batch = classification(One(), mean=0.0, std=1.0, dtype=jnp.float64), images()
    variables, lighter, _ = made(task, batch)
    params, statistics = (jax.device_get(variables[name]) for name in ("params", "batch_stats"))
    kernel, shift = params["conv"]["kernel"][0, 0], params["conv"]["bias"]
    assert "batch_stats" not in lighter
    for image, logits in zip(batch.image, folded(task).predict(lighter, batch).logits, strict=True):
        content = np.array(image)
        content[7:] = 0
        for k in range(2):
            total = 0.0
            for pixel in content.reshape(-1, 3):
                x = sum(pixel[c] * kernel[c, k] for c in range(3)) + shift[k]
                x = (x - statistics["norm"]["mean"][k]) / np.sqrt(statistics["norm"]["var"][k] + 0.01)
                total += x * params["norm"]["scale"][k] + params["norm"]["bias"][k]
            assert logits[k] == pytest.approx(total / 64, rel=1e-9)


def check_laws(task, batch):
    """Target, padding of the canvas, compilations of a folded task, and equality; how many were folded, and what was not."""
    variables, lighter, found = made(task, batch)
    compiled = jax.jit(folded(task).predict)
    first = compiled(lighter, batch.replace(target=None))
    assert apart(jax.jit(task.predict)(variables, batch), first) < 1e-9
    outside = jnp.arange(batch.image.shape[1])[None, :, None, None] >= batch.size[:, :1, None, None]
    spoilt = jnp.where(outside, jnp.asarray(77, batch.image.dtype), batch.image)
    assert apart(first, compiled(lighter, batch.replace(image=spoilt, target=None))) == 0
    assert compiled._cache_size() == 1
    assert apart(first, folded(task).predict(lighter, batch)) < 1e-9
    return len(found.pairs), found.rest


@pytest.mark.usefixtures("float64")
def test_laws_of_a_folded_classifier():
    make, _ = exports.NETWORKS["small_cnn"]
    task = classification(make(dtype=jnp.float64), mean=73.0, std=90.0, dtype=jnp.float64)
    assert check_laws(task, images(16)) == (4, ())


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["ssd", "faster_rcnn", "yolox"])
def test_laws_of_a_folded_detector(name):
    count, rest = check_laws(detectors.EVERY[name](jnp.float64), detectors.make_batch(dtype=np.float64))
    assert count >= 5
    assert rest == ()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vgg_bn"])
def test_all_of_a_network_is_found(name):
    make, side = exports.NETWORKS[name]
    every_norm_is_found(classification(make()), exports.images(side))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inception_v3", *SEGMENTERS, *detectors.EVERY])
def test_all_of_every_network_is_found(name):
    if name in exports.NETWORKS:
        make, side = exports.NETWORKS[name]
        return every_norm_is_found(classification(make()), exports.images(side))
    if name in SEGMENTERS:
        return every_norm_is_found(SEGMENTERS[name](), segmentation_batch(2, dtype=np.float32))
    return every_norm_is_found(detectors.EVERY[name](), detectors.make_batch(dtype=np.float32))


def every_norm_is_found(task, batch):
    """Nothing is computed: shapes alone."""
    shapes = jax.eval_shape(task.init, jax.random.key(0), batch)
    found = foldable(task, shapes, batch)
    rest = [name for name in found.rest if not name.startswith("auxiliary")]  # a head that training alone has
    assert rest == []
    names, _ = jax.tree_util.tree_flatten_with_path(shapes.get("batch_stats", {}))
    assert len(found.pairs) + len(found.rest) == sum("mean" in str(path[-1]) for path, _ in names)


@pytest.mark.slow
def test_eight_devices_compute_what_one_does():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    command = [sys.executable, Path(__file__).parent / "lighter_on_eight_devices.py"]
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_ENABLE_X64": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert {"classifier", "detector"} <= set(found)
    assert max(found.values()) < 1e-9, found
