"""Features as data: batches hold the rows that the order names; a linear probe equals scikit-learn's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from sklearn.linear_model import LogisticRegression

from jaxvision.data import features, order
from jaxvision.tasks.classification import classification
from jaxvision.train import init_state, make_train_step


def table(n=10, d=3, classes=2):
    random = np.random.RandomState(0)
    labels = random.randint(classes, size=n)
    x = (random.standard_normal((n, d)) + labels[:, None]).astype(np.float32)
    return x, labels, [f"c{k}" for k in range(classes)]


def test_training_follows_the_order_from_any_step():
    x, y, names = table()
    stream = features.training(lambda: features.source(x, y, names), order=order.shuffled(3), width=3, batch_size=4)
    indices = order.shuffled(3)(features.source(x, y, names))(np.arange(40)).reshape(10, 4)
    from_the_start, later = stream.batches(0), stream.batches(5)
    for step in range(10):
        batch = next(from_the_start)
        np.testing.assert_array_equal(batch.index, indices[step])
        np.testing.assert_array_equal(batch.image[:, 0, 0], x[indices[step]])
        np.testing.assert_array_equal(batch.target.label, y[indices[step]])
        if step >= 5:
            np.testing.assert_array_equal(batch.image, next(later).image)


def test_evaluation_has_every_example_once_and_pads():
    x, y, names = table()
    batches = list(features.evaluation(lambda: features.source(x, y, names), width=3, batch_size=4).batches(0))
    valid = np.concatenate([batch.valid for batch in batches])
    assert valid.tolist() == [True] * 10 + [False] * 2
    np.testing.assert_array_equal(np.concatenate([batch.image[:, 0, 0] for batch in batches])[valid], x)


def test_batches_look_as_the_spec_says():
    x, y, names = table()
    stream = features.training(lambda: features.source(x, y, names), order=order.sequential(), width=3, batch_size=4)
    told = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), stream.spec)
    assert told == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), next(stream.batches(0)))
    assert stream.about().examples == 10
    assert stream.about().counts() == np.bincount(y).tolist()


def test_a_cache_is_computed_once_and_written_whole(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return table()

    first = features.cached(tmp_path / "deep" / "f.npz", make)
    second = features.cached(tmp_path / "deep" / "f.npz", make)
    assert len(calls) == 1
    assert first.fingerprint == second.fingerprint
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["f.npz"]


def test_a_failed_computation_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError, match="no device"):
        features.cached(tmp_path / "f.npz", lambda: (_ for _ in ()).throw(RuntimeError("no device")))
    assert not list(tmp_path.iterdir())


def test_a_broken_cache_is_named(tmp_path):
    (tmp_path / "f.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(ValueError, match=r"f\.npz holds no features.*remove it"):
        features.cached(tmp_path / "f.npz", table)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((2, 3, 1)), [0, 1], r"must be \[n, d\]"),
        (np.zeros((2, 3)), [0, 2], "allowed are 0 to 1"),
        (np.array([[0.0], [np.nan]]), [0, 1], r"features\[1\] has features that are not finite"),
    ],
)
def test_wrong_features_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        features.source(x, y, ["a", "b"])


class Linear(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, images, *, train):
        return nn.Dense(self.classes, kernel_init=nn.initializers.zeros, name="head")(images.reshape(len(images), -1))


def test_a_probe_trained_to_the_end_equals_logistic_regression():
    x, y, names = table(60, 4, 3)
    stream = features.training(lambda: features.source(x, y, names), order=order.sequential(), width=4, batch_size=60)
    strength = 0.1
    # scikit-learn: C * sum of losses + |w|^2 / 2; here the mean of the losses + strength * |w|^2 / 2
    expected = LogisticRegression(C=1 / (strength * 60), tol=1e-10, max_iter=10_000).fit(x.astype(np.float64), y)
    task = classification(Linear(3), mean=0.0, std=1.0)
    mask = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    tx = optax.chain(optax.add_decayed_weights(strength, mask=mask), optax.sgd(0.5, momentum=0.9))
    state = init_state(task, tx, jax.random.key(0), stream.spec)
    step, batch = jax.jit(make_train_step(task, tx)), next(stream.batches(0))
    for _ in range(400):
        state, _ = step(state, batch)
    ours = jax.nn.softmax(task.predict(state.variables, batch).logits)
    np.testing.assert_allclose(ours, expected.predict_proba(x.astype(np.float64)), atol=1e-4)
    assert jnp.isfinite(ours).all()
