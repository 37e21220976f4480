"""Attributes of crops: the loss against SciPy, and the laws of tasks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equalities import equalities
from flax import linen as nn
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, log_expit, log_softmax, softmax

from jaxvision.gradient import mean_gradient
from jaxvision.tasks.attributes import AttributeHeads, attributes, decode, extent
from jaxvision.types import Batch, Labels

VALUES = {"colour": 3, "parts": 4}


class Pixels(nn.Module):
    """A backbone whose map is the image, with batch normalisation behind it or not."""

    norm: bool = False

    @nn.compact
    def __call__(self, images, *, train):
        if self.norm:
            return [nn.BatchNorm(not train, param_dtype=images.dtype, dtype=images.dtype)(images)]
        return images


@functools.cache
def task_of(norm=False, dtype=jnp.float64):
    network = AttributeHeads(Pixels(norm), VALUES, hidden=6, dropout=0.0, dtype=dtype)
    return attributes(network, several=("parts",), mean=127.5, std=64.0, dtype=dtype)


def batch_of(rows=5, side=8, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 0.5, (rows, 2))
    place = np.concatenate([low, low + rng.uniform(0.1, 0.5, (rows, 2))], 1).astype(dtype)
    colour = Labels(rng.integers(0, 3, rows).astype(np.int32), None, (np.arange(rows) != 1).astype(np.float32))
    parts = (rng.random((rows, 4)) < 0.4).astype(np.float32)
    target = {
        "colour": colour,
        "parts": Labels(np.zeros(rows, np.int32), parts, (np.arange(rows) != 2).astype(np.float32)),
    }
    size, index = np.full((rows, 2), side, np.int32), np.arange(rows, dtype=np.int32)
    image = rng.integers(0, 256, (rows, side, side, 3)).astype(np.uint8)
    return jax.tree.map(jnp.asarray, Batch(image, size, size, index, np.ones(rows, bool), target, place))


def variables_of(task, batch):
    return jax.jit(task.init)(jax.random.key(0), batch)


def terms_by_numpy(logits, target):
    """Losses by attribute, and whether it is known."""
    colour = np.asarray(logits["colour"].logits, np.float64)
    by_colour = -log_softmax(colour, -1)[np.arange(len(colour)), target["colour"].label]
    scores, parts = np.asarray(logits["parts"].logits, np.float64), np.asarray(target["parts"].probs, np.float64)
    by_part = -(parts * log_expit(scores) + (1 - parts) * log_expit(-scores)).mean(-1)
    known = [np.asarray(target[name].weight) > 0 for name in ("colour", "parts")]
    return np.stack([by_colour, by_part]), np.stack(known)


def test_the_loss_is_the_mean_over_what_is_known(float64):
    task, batch = task_of(), batch_of()
    variables = variables_of(task, batch)
    (loss, out), _ = gradient(task, variables, batch)
    terms, known = terms_by_numpy(jitted(task)[1](variables, batch), batch.target)
    example = (terms * known).sum(0) / known.sum(0)
    assert_allclose(loss, example.mean(), rtol=1e-6)
    assert_allclose(out.example_loss, example, rtol=1e-6)
    assert_allclose(out.metrics["colour_loss"], terms[0][known[0]].mean(), rtol=1e-6)
    assert_allclose(out.metrics["parts_loss"], terms[1][known[1]].mean(), rtol=1e-6)


@functools.cache
def jitted(task):
    """Loss with its gradient, and prediction."""
    return jax.jit(mean_gradient(task.loss)), jax.jit(task.predict)


def gradient(task, variables, batch):
    return jitted(task)[0](variables, batch, jax.random.key(1))


def assert_close(found, expected):
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-9, atol=1e-12), found, expected)


def test_padding_and_examples_that_are_not_valid_change_nothing(float64):
    task, batch = task_of(norm=True), batch_of()
    variables = variables_of(task, batch)
    (expected, _), expected_gradient = gradient(task, variables, batch)
    more = batch_of(7, seed=3)
    joined = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), batch, more.replace(valid=jnp.zeros(7, bool)))
    (loss, out), grads = gradient(task, variables, joined)
    assert_close((loss, grads), (expected, expected_gradient))
    assert_array_equal(out.example_loss[5:], 0)


@pytest.mark.parametrize("fill", [0, 200])
def test_the_canvas_outside_the_content_is_the_mean_colour(float64, fill):
    task, batch = task_of(), batch_of()
    variables = variables_of(task, batch)
    grey = batch.replace(image=batch.image.at[:, 5:].set(0), size=batch.size.at[:, 0].set(5))
    padded = grey.replace(image=grey.image.at[:, 5:].set(fill))
    assert_close(gradient(task, variables, padded), gradient(task, variables, grey))


def test_jit_is_no_jit_and_a_batch_of_one_is_one_of_many(float64):
    task, batch = task_of(), batch_of()
    variables = variables_of(task, batch)
    (_, out), _ = gradient(task, variables, batch)
    whole = jitted(task)[1](variables, batch.replace(target=None))
    with jax.disable_jit():
        assert_close(task.predict(variables, batch), whole)
    for row in (0, 2):
        one = jax.tree.map(lambda x: x[row : row + 1], batch)  # noqa: B023
        assert_allclose(gradient(task, variables, one)[0][0], out.example_loss[row], rtol=1e-9)
        assert_close(
            jitted(task)[1](variables, one.replace(target=None))["parts"].logits[0], whole["parts"].logits[row]
        )


def test_without_anything_known_the_loss_is_zero_and_so_is_its_gradient(float64):
    task, batch = task_of(), batch_of()
    variables = variables_of(task, batch)
    unknown = {name: each.replace(weight=jnp.zeros(5)) for name, each in batch.target.items()}
    for nothing in (batch.replace(target=unknown), batch.replace(valid=jnp.zeros(5, bool))):
        (loss, out), grads = gradient(task, variables, nothing)
        assert float(loss) == 0
        assert all(not leaf.any() for leaf in jax.tree.leaves((grads, out.metrics)))


def test_a_value_that_the_network_does_not_have_is_never_learned_in_silence(float64):
    task, batch = task_of(), batch_of()
    variables = variables_of(task, batch)
    for row, expected in ((0, True), (1, False)):  # the colour of row 1 is not known
        wrong = batch.target["colour"].replace(label=batch.target["colour"].label.at[row].set(3))
        (loss, out), _ = gradient(task, variables, batch.replace(target=batch.target | {"colour": wrong}))
        assert bool(jnp.isnan(loss)) == bool(jnp.isnan(out.example_loss[row])) == expected


def test_strict_types_and_no_float_has_to_equal_another(strict_gradient):
    task, batch = task_of(norm=True, dtype=jnp.float32), batch_of(dtype=np.float32)
    variables = variables_of(task, batch)
    loss, grads = strict_gradient(task, variables, batch)
    assert np.isfinite(loss)
    assert all(leaf.dtype == jnp.float32 and jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert not equalities(
        lambda params: task.loss(variables | {"params": params}, batch, jax.random.key(1))[0], variables["params"]
    )
    half = attributes(AttributeHeads(Pixels(), VALUES, dtype=jnp.bfloat16), several=("parts",), dtype=jnp.bfloat16)
    shapes = jax.eval_shape(lambda: half.predict(half.init(jax.random.key(0), batch), batch))
    assert {each.logits.dtype for each in shapes.values()} == {jnp.dtype(jnp.float32)}


@pytest.mark.slow
def test_it_learns_a_few_examples_by_heart(train_steps):
    task, batch = task_of(dtype=jnp.float32), batch_of(dtype=np.float32)
    state, losses = train_steps(task, batch, steps=200)
    found = {name: each.logits for name, each in jitted(task)[1](state.variables, batch).items()}
    assert losses[-1] < 0.1 * losses[0]
    known = batch.target["colour"].weight > 0
    assert_array_equal(found["colour"].argmax(-1)[known], batch.target["colour"].label[known])
    known = batch.target["parts"].weight > 0
    assert_array_equal((found["parts"] > 0)[known], (batch.target["parts"].probs > 0)[known])


def test_probabilities_add_up_where_one_value_is_right_and_stand_alone_else(float64):
    rng = np.random.default_rng(0)
    logits = {"colour": rng.normal(size=(2, 3)), "parts": rng.normal(size=(2, 4))}
    found = decode({name: jnp.asarray(each) for name, each in logits.items()}, ("parts",))
    assert_allclose(found["colour"], softmax(logits["colour"], -1), rtol=1e-9)
    assert_allclose(found["parts"], expit(logits["parts"]), rtol=1e-9)


def test_the_extent_of_a_place(float64):
    x0, y0, x1, y1 = 0.1, 0.2, 0.5, 0.4
    expected = [0.3, 0.3, 0.4, 0.2, np.log(0.4), np.log(0.2), np.log(0.4)]
    assert_allclose(extent(jnp.array([[x0, y0, x1, y1]]))[0], expected, rtol=1e-9)
    assert jnp.isfinite(extent(jnp.zeros((1, 4)))).all()
