import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax

from jaxvision.ops import losses
from jaxvision.types import Labels

K = 5
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (12, K)).astype(np.float32)
SOFT = RNG.dirichlet(np.ones(K), 12).astype(np.float32)
LABEL = np.arange(12, dtype=np.int32) % K
HARD = np.eye(K)[LABEL]


def loop_hinge(z, t):
    per_class = [[max(0, 1 + max(np.delete(row, k)) - row[k]) for k in range(K)] for row in z]
    return (t * per_class).sum(-1)


def sigmoid_focal(z, t, gamma, alpha):
    p = expit(z)
    entropy = -(t * np.log(p) + (1 - t) * np.log1p(-p))
    off = t * (1 - p) + (1 - t) * p
    return (off**gamma * entropy * (1 if alpha is None else alpha * t + (1 - alpha) * (1 - t))).sum(-1)


def distilled(z, t, temperature, share, label=HARD):
    teacher = t ** (1 / temperature) / (t ** (1 / temperature)).sum(-1, keepdims=True)
    divergence = np.where(
        teacher > 0, teacher * (np.log(np.where(teacher > 0, teacher, 1)) - log_softmax(z / temperature, -1)), 0
    )
    return share * temperature**2 * divergence.sum(-1) - (1 - share) * (label * log_softmax(z, -1)).sum(-1)


WEIGHTS = np.array([0.0, 0.5, 1, 2, 3])
BY_NUMPY = {
    "cross_entropy": (losses.cross_entropy, lambda z, t: -(t * log_softmax(z, -1)).sum(-1)),
    "binary": (losses.binary_cross_entropy, lambda z, t: sigmoid_focal(z, t, 0, None) / K),
    "squared": (losses.squared_error, lambda z, t: ((softmax(z, -1) - t) ** 2).mean(-1)),
    "absolute": (losses.absolute_error, lambda z, t: np.abs(softmax(z, -1) - t).mean(-1)),
    "hinge": (losses.hinge, loop_hinge),
    "focal": (losses.focal(2), lambda z, t: -(t * (1 - softmax(z, -1)) ** 2 * log_softmax(z, -1)).sum(-1)),
    "half_focal": (losses.focal(0.5), lambda z, t: -(t * (1 - softmax(z, -1)) ** 0.5 * log_softmax(z, -1)).sum(-1)),
    "sigmoid_focal": (losses.sigmoid_focal(), lambda z, t: sigmoid_focal(z, t, 2, 0.25)),
    "sigmoid_focal_0": (losses.sigmoid_focal(0.0, None), lambda z, t: sigmoid_focal(z, t, 0, None)),
    "weighted": (
        losses.class_weighted(losses.cross_entropy, WEIGHTS),
        lambda z, t: -(t * WEIGHTS).sum(-1) * (t * log_softmax(z, -1)).sum(-1),
    ),
    "distillation": (losses.distillation(3.0, 0.7), lambda z, t: distilled(z, t, 3.0, 0.7)),
}
EVERY = pytest.mark.parametrize("name", BY_NUMPY)


def labels(name, soft):
    hard = HARD.astype(np.float32) if name == "distillation" else None
    return Labels(jnp.asarray(LABEL), jnp.asarray(SOFT) if soft else None if hard is None else jnp.asarray(hard))


@EVERY
@pytest.mark.parametrize("soft", [False, True], ids=["label", "probs"])
def test_a_loss_equals_numpy(name, soft):
    loss, by_numpy = BY_NUMPY[name]
    with jax.numpy_dtype_promotion("strict"):
        found = jax.jit(loss)(jnp.asarray(LOGITS), labels(name, soft))
    expected = by_numpy(LOGITS.astype(np.float64), SOFT.astype(np.float64) if soft else HARD)
    np.testing.assert_allclose(found, expected, rtol=3e-5, atol=2e-6)
    assert found.dtype == jnp.float32


@EVERY
@pytest.mark.parametrize("scale", [*(pytest.param(s, marks=pytest.mark.slow) for s in (0.0, 1e3)), 1e6])
def test_extreme_logits_give_finite_losses_and_gradients(name, scale):
    logits = jnp.asarray(np.sign(LOGITS) * scale, jnp.float32)
    for soft in (False, True):
        total = lambda z, soft=soft: BY_NUMPY[name][0](z, labels(name, soft)).sum()
        value, gradient = jax.jit(jax.value_and_grad(total))(logits)
        assert np.isfinite(value)
        assert value >= -1e-5
        assert np.isfinite(gradient).all()


def test_class_weights_by_their_definitions():
    counts = [10, 0, 40, 50]
    inverse = losses.inverse_frequency(counts)
    np.testing.assert_allclose(inverse, [100 / 30, 0, 100 / 120, 100 / 150])
    np.testing.assert_allclose(np.dot(inverse, counts) / 100, 1)

    numbers = [(1 - 0.9**n) / (1 - 0.9) for n in (10, 40, 50)]
    expected = 1 / np.array(numbers)
    np.testing.assert_allclose(losses.effective_number(counts, 0.9)[[0, 2, 3]], expected * 3 / expected.sum())
    assert losses.effective_number(counts, 0.9)[1] == 0
    np.testing.assert_allclose(losses.effective_number(counts, 0.0), [1, 0, 1, 1])
    almost = losses.effective_number(counts, 1 - 1e-9)
    np.testing.assert_allclose(almost / almost[0], inverse / inverse[0], rtol=1e-5)


def test_class_weights_that_cannot_be():
    for counts in ([1, -1], [0, 0], np.array([1, np.nan]), np.array([1, np.inf])):
        with pytest.raises(ValueError, match="numbers of examples, 0 or more, one above 0"):
            losses.inverse_frequency(counts)
    with pytest.raises(ValueError, match="beta=1"):
        losses.effective_number([1], 1.0)
    with pytest.raises(ValueError, match="2 class weights for logits of 5 classes"):
        losses.class_weighted(losses.hinge, [1, 2])(jnp.asarray(LOGITS), labels("hinge", False))


def test_options_that_cannot_be():
    for make, told in [
        (lambda: losses.focal(-1.0), "focal.gamma=-1"),
        (lambda: losses.sigmoid_focal(alpha=2.0), "alpha=2"),
        (lambda: losses.distillation(0.0), "temperature=0"),
        (lambda: losses.distillation()(jnp.asarray(LOGITS), labels("hinge", False)), "needs labels.probs"),
        (lambda: losses.hinge(jnp.zeros((2, 1)), labels("hinge", False)), "two classes or more"),
    ]:
        with pytest.raises(ValueError, match=told):
            make()
