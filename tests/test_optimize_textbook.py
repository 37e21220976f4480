"""Optimizers as the train step runs them, in float64, against the formulas of the books and papers, in NumPy.

The task is least squares: `mean(|x W + b - y|^2) / 2` over a batch, whose gradient is written down here.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision import optimize, train
from jaxvision.gradient import accumulate, mean_gradient
from jaxvision.types import Batch, LossOutput, Task

INPUTS, OUTPUTS, COUNT = 6, 4, 8
RATE = 0.05
pytestmark = pytest.mark.usefixtures("float64")


def least_squares(start):
    def init(key, batch):
        return {"params": jax.tree.map(jnp.asarray, start)}

    def loss(variables, batch, key):
        x, params = batch.image[:, 0, 0], variables["params"]
        residual = x @ params["kernel"] + params["bias"][None] - batch.target
        return 0.5 * (residual**2).sum(-1).mean(), LossOutput()

    return Task(init, loss, lambda variables, batch: None)


def gradient_in_numpy(params, batch):
    x, y = batch.image[:, 0, 0], batch.target
    residual = (x @ params["kernel"] + params["bias"] - y) / len(x)
    return {"kernel": x.T @ residual, "bias": residual.sum(0)}


def loss_in_numpy(params, batch):
    x, y = batch.image[:, 0, 0], batch.target
    return 0.5 * ((x @ params["kernel"] + params["bias"] - y) ** 2).sum(-1).mean()


def random_batch(rng):
    size = np.ones((COUNT, 2), np.int32)
    index, valid = np.arange(COUNT, dtype=np.int32), np.ones(COUNT, bool)
    return Batch(rng.normal(size=(COUNT, 1, 1, INPUTS)), size, size, index, valid, rng.normal(size=(COUNT, OUTPUTS)))


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    start = {"kernel": rng.normal(size=(INPUTS, OUTPUTS)), "bias": rng.normal(size=OUTPUTS)}
    return start, [random_batch(rng) for _ in range(3)]


def trained(optimizer, start, batches, gradient=mean_gradient):
    """The parameters after each step of the one train step."""
    task = least_squares(start)
    state = train.init_state(task, optimizer, jax.random.key(0), jax.eval_shape(lambda: batches[0]))
    step = jax.jit(train.make_train_step(task, optimizer, gradient=gradient))
    for batch in batches:
        state, metrics = step(state, batch)
        assert int(metrics["failed_step"]) == -1
        yield jax.device_get(state.params)


def each(function, *trees):
    return {name: function(*(tree[name] for tree in trees)) for name in trees[0]}


def check(optimizer, textbook, start, batches, **options):
    """`textbook(theta, gradient)` yields the parameters after each step; it calls `gradient(t, theta)`."""
    expected = textbook(start, lambda t, theta: gradient_in_numpy(theta, batches[t]))
    for got, theta in zip(trained(optimizer, start, batches, **options), expected, strict=False):
        for name in theta:
            np.testing.assert_allclose(got[name], theta[name], rtol=1e-12, atol=1e-14)


def descent(theta, gradient):
    """Goodfellow, Bengio, Courville, Deep Learning (2016), equation 4.5; with minibatches, algorithm 8.1."""
    for t in range(3):
        theta = each(lambda w, g: w - RATE * g, theta, gradient(t, theta))
        yield theta


@pytest.mark.parametrize("gradient", [mean_gradient, accumulate(4)], ids=["at once", "accumulated"])
def test_gradient_descent_takes_the_whole_batch_every_step(problem, gradient):
    start, batches = problem
    check(optax.sgd(RATE), descent, start, batches[:1] * 3, gradient=gradient)


def test_sgd_takes_a_minibatch_a_step(problem):
    check(optax.sgd(RATE), descent, *problem)


def test_momentum(problem):
    def textbook(theta, gradient):
        """Deep Learning, algorithm 8.2. Optax keeps -v / rate, which is the same while the rate is constant."""
        v = each(np.zeros_like, theta)
        for t in range(3):
            v = each(lambda v, g: 0.9 * v - RATE * g, v, gradient(t, theta))
            theta = each(np.add, theta, v)
            yield theta

    check(optax.sgd(RATE, momentum=0.9), textbook, *problem)


def test_nesterov_momentum(problem):
    def textbook(theta, gradient):
        """Sutskever et al. (ICML 2013), equations 3 and 4: the gradient is taken where momentum alone would lead.

        Optax's parameters are those places, theta + 0.9 v (arXiv:1212.0901, equation 7).
        """
        v = each(np.zeros_like, theta)
        for t in range(3):
            ahead = each(lambda w, v: w + 0.9 * v, theta, v)
            v = each(lambda v, g: 0.9 * v - RATE * g, v, gradient(t, ahead))
            theta = each(np.add, theta, v)
            yield each(lambda w, v: w + 0.9 * v, theta, v)

    check(optax.sgd(RATE, momentum=0.9, nesterov=True), textbook, *problem)


def test_adagrad(problem):
    def textbook(theta, gradient):
        """Duchi et al. (JMLR 2011), figure 1, with delta 0. Optax begins its sum at 0.1 and adds 1e-7 under the root."""
        r = each(np.zeros_like, theta)
        for t in range(3):
            g = gradient(t, theta)
            r = each(lambda r, g: r + g * g, r, g)
            theta = each(lambda w, g, r: w - RATE * g / np.sqrt(r), theta, g, r)
            yield theta

    check(optax.adagrad(RATE, initial_accumulator_value=0.0, eps=0.0), textbook, *problem)


def test_rmsprop(problem):
    def textbook(theta, gradient):
        """Deep Learning, algorithm 8.5, as optax: the constant is under the root. (PyTorch adds it to the root.)"""
        r = each(np.zeros_like, theta)
        for t in range(3):
            g = gradient(t, theta)
            r = each(lambda r, g: 0.9 * r + 0.1 * g * g, r, g)
            theta = each(lambda w, g, r: w - RATE * g / np.sqrt(1e-6 + r), theta, g, r)
            yield theta

    check(optax.rmsprop(RATE, decay=0.9, eps=1e-6), textbook, *problem)


def adam_direction(t, g, m, v, b1=0.9, b2=0.999, eps=1e-8):
    """Kingma and Ba, arXiv:1412.6980, algorithm 1: the moments, and the step for a rate of 1."""
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps), m, v


def test_adam(problem):
    def textbook(theta, gradient):
        moments = {name: (np.zeros_like(w), np.zeros_like(w)) for name, w in theta.items()}
        for t in range(3):
            g = gradient(t, theta)
            moved = {name: adam_direction(t + 1, g[name], *moments[name]) for name in theta}
            moments = {name: found[1:] for name, found in moved.items()}
            theta = {name: w - RATE * moved[name][0] for name, w in theta.items()}
            yield theta

    check(optax.adam(RATE), textbook, *problem)


# The first step, with masks and groups.

DECAY = {"kernel": 0.3, "bias": 0.0}


def first_step(step):
    def textbook(theta, gradient):
        g = gradient(0, theta)
        yield {name: step(w, g[name], DECAY[name]) for name, w in theta.items()}

    return textbook


def first_adam(g):
    return adam_direction(1, g, np.zeros_like(g), np.zeros_like(g))[0]


def test_adamw_decays_the_kernel_alone(problem):
    """arXiv:1711.05101, algorithm 2; as in PyTorch, the decay is times the rate."""
    optimizer = optax.adamw(RATE, weight_decay=0.3, mask=optimize.kernels)
    check(optimizer, first_step(lambda w, g, decay: w - RATE * (first_adam(g) + decay * w)), *problem)


def test_lamb_takes_the_norm_of_each_array(problem):
    """arXiv:1904.00962, algorithm 2, with phi the identity."""

    def step(w, g, decay):
        r = adam_direction(1, g, np.zeros_like(g), np.zeros_like(g), eps=1e-6)[0] + decay * w
        return w - RATE * np.linalg.norm(w) / np.linalg.norm(r) * r

    check(optax.lamb(RATE, weight_decay=0.3, mask=optimize.kernels), first_step(step), *problem)


def test_lion_moves_by_the_sign(problem):
    """arXiv:2302.06675, algorithm 2."""
    optimizer = optax.lion(RATE, weight_decay=0.3, mask=optimize.matching("kernel"))
    check(optimizer, first_step(lambda w, g, decay: w - RATE * (np.sign(0.1 * g) + decay * w)), *problem)


def newton_schulz(g):
    """Keller Jordan, https://kellerjordan.github.io/posts/muon: five steps of the quintic iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.T / np.linalg.norm(g)  # a wide matrix
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T


def test_muon_orthogonalises_the_kernel_and_adam_trains_the_rest(problem):
    start, batches = problem
    muon = optax.contrib.muon(RATE, eps=0.0, weight_decay=0.3, muon_weight_dimension_numbers=optimize.kernel_matrices)
    optimizer = optimize.by_group({"kernel": muon, ".*": optax.adam(RATE)})

    def step(w, g, decay):  # the first momentum is a multiple of g, and the iteration forgets by how much
        return w - RATE * ((newton_schulz(g) if w.ndim == 2 else first_adam(g)) + decay * w)

    check(optimizer, first_step(step), start, batches)
    moved = next(iter(trained(optimizer, start, batches)))["kernel"] - (1 - RATE * 0.3) * start["kernel"]
    singular = np.linalg.svd(moved / RATE, compute_uv=False)
    assert 0.5 < singular.min() <= singular.max() < 1.5  # the band that the iteration is tuned for


def test_muon_sees_the_kernel_of_a_convolution_as_one_matrix():
    rng = np.random.default_rng(1)
    params = {
        "conv": {"kernel": rng.normal(size=(2, 2, 3, 5)), "bias": rng.normal(size=5)},
        "positions": np.ones((2, 3)),
    }
    assert optimize.kernel_matrices(params)["positions"] is None
    muon = optax.contrib.muon(1.0, muon_weight_dimension_numbers=optimize.kernel_matrices)
    updates, _ = jax.jit(muon.update)(params, muon.init(params), params)
    expected = -newton_schulz(params["conv"]["kernel"].reshape(12, 5))
    np.testing.assert_allclose(updates["conv"]["kernel"].reshape(12, 5), expected, rtol=1e-6, atol=1e-9)


# Schedules that look at the loss, and those that don't.


def test_a_plateau_lowers_the_rate_at_the_step_that_numpy_gives(problem):
    start, _ = problem
    rng = np.random.default_rng(3)
    batches = [random_batch(rng) for _ in range(40)]
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=2, rtol=0.05, cooldown=1, accumulation_size=2)
    theta, rates, rate, best, bad, cooling, seen = start, [], RATE, np.inf, 0, 0, []
    for batch, got in zip(batches, trained(optax.chain(optax.sgd(RATE), plateau), start, batches), strict=True):
        seen.append(loss_in_numpy(theta, batch))
        if len(seen) == 2:
            value, seen = np.mean(seen), []
            best, bad = (value, 0) if value < 0.95 * best else (best, bad + 1)
            if cooling:
                cooling, bad = cooling - 1, 0
            elif bad == 2:
                rate, bad, cooling = rate / 2, 0, 1
        rates.append(rate)
        theta = each(lambda w, g, rate=rate: w - rate * g, theta, gradient_in_numpy(theta, batch))
        for name in theta:
            np.testing.assert_allclose(got[name], theta[name], rtol=1e-11, atol=1e-13)
    lowered = np.flatnonzero(np.diff(rates)) + 1
    assert len(lowered) >= 3
    assert len(set(np.diff(lowered))) > 1  # not a mere clock


def cosine(t, steps):
    return RATE * (1 + np.cos(np.pi * t / steps)) / 2


def one_cycle(t, steps):
    """arXiv:1708.07120 with cosine flanks: up from a 25th in 30 % of the steps, then down to a 10,000th of that."""
    top = int(0.3 * steps)
    low, end, t = RATE / 25, RATE / 25 / 1e4, np.asarray(t, float)
    up = low + (RATE - low) * (1 - np.cos(np.pi * t / top)) / 2
    down = end + (RATE - end) * (1 + np.cos(np.pi * (t - top) / (steps - top))) / 2
    return np.where(t < top, up, down)


def test_each_step_has_the_rate_of_its_schedule():
    steps = 20
    schedules = {
        "constant": (optax.constant_schedule(RATE), lambda t: np.full(steps, RATE)),
        "step": (
            optax.piecewise_constant_schedule(RATE, {8: 0.1, 15: 0.5}),
            lambda t: RATE * np.where(t < 8, 1, np.where(t < 15, 0.1, 0.05)),
        ),
        "cosine": (optax.cosine_decay_schedule(RATE, steps), lambda t: cosine(t, steps)),
        "warmup": (
            optax.warmup_cosine_decay_schedule(0.0, RATE, 5, steps),
            lambda t: np.where(t < 5, RATE * t / 5, cosine(t - 5, steps - 5)),
        ),
        "one_cycle": (optax.cosine_onecycle_schedule(steps, RATE), lambda t: one_cycle(t, steps)),
    }
    optimizer = optimize.by_group({name: optax.sgd(schedule) for name, (schedule, _) in schedules.items()})
    zeros = dict.fromkeys(schedules, 0.0)
    task = Task(
        lambda key, batch: {"params": jax.tree.map(jnp.float64, zeros)},
        lambda variables, batch, key: (sum(variables["params"].values()), LossOutput()),
        lambda variables, batch: None,
    )
    batch = random_batch(np.random.default_rng(0))
    state = train.init_state(task, optimizer, jax.random.key(0), jax.eval_shape(lambda: batch))
    step, where = jax.jit(train.make_train_step(task, optimizer)), [zeros]
    for _ in range(steps):
        state, _ = step(state, batch)
        where.append(jax.device_get(state.params))
    for name, (_, formula) in schedules.items():
        got = -np.diff([params[name] for params in where])
        np.testing.assert_allclose(got, formula(np.arange(steps)), rtol=1e-5, atol=1e-9, err_msg=name)
