import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.data import arrays, order
from jaxvision.data.randomness import Purpose, permutation, philox
from jaxvision.data.source import concatenate


def make(n, classes=3, seed=0):
    labels = np.random.RandomState(seed).randint(0, classes, n)
    return arrays.source(np.zeros((n, 1, 1), np.uint8), labels, [str(k) for k in range(classes)], name=f"s{n}")


def philox4x64(key, counter):
    """Ten rounds of Philox4x64 in Python's integers, from Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"."""
    mask = 2**64 - 1
    (a, b, c, d), (k0, k1) = counter, key
    for _ in range(10):
        low, high = a * 0xD2E7470EE14C6C93, c * 0xCA5A826395121157
        a, b, c, d = (high >> 64) ^ b ^ k0, high & mask, (low >> 64) ^ d ^ k1, low & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return a, b, c, d


def test_random_words_are_philox_with_seed_and_number_as_key_and_the_purpose_on_top_of_the_counter():
    words = philox(7, Purpose.INTERLEAVE, 11).random_raw(8)
    expected = [w for block in (1, 2) for w in philox4x64((7, 11), (block, 0, 0, 2))]
    assert words.tolist() == expected


def test_a_permutation_sorts_the_words():
    words = [w for block in (1, 2, 3) for w in philox4x64((3, 5), (block, 0, 0, 0))][:10]
    assert permutation(3, Purpose.SHUFFLE, 5, 10).tolist() == sorted(range(10), key=words.__getitem__)


def test_sequential_is_the_remainder():
    indices = order.sequential()(make(5))
    np.testing.assert_array_equal(indices(np.arange(12)), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1])


ORDERS = {
    "sequential": lambda n: order.sequential(),
    "shuffled": lambda n: order.shuffled(3),
    "repeated": lambda n: order.repeated(3, 3, 2),
    "weighted": lambda n: order.weighted(np.arange(1, n + 1), 3),
    "balanced": lambda n: order.balanced(3),
    "square root": lambda n: order.balanced(3, power=0.5),
}


@pytest.mark.parametrize("name", ORDERS)
@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 40), start=st.integers(0, 200), length=st.integers(0, 90))
def test_any_window_of_positions_is_a_window_of_the_whole(name, n, start, length):
    make_order = ORDERS[name](n)
    whole = make_order(make(n))(np.arange(start + length))
    fresh = make_order(make(n))
    np.testing.assert_array_equal(fresh(np.arange(start, start + length)), whole[start:])
    assert whole.dtype == np.int64


def test_positions_may_come_in_any_order_and_shape():
    indices = order.shuffled(1)(make(10))
    positions = np.random.RandomState(0).permutation(70).reshape(7, 10)
    np.testing.assert_array_equal(indices(positions), indices(np.arange(70))[positions])


def test_shuffled_has_every_index_once_an_epoch_and_other_orders_in_other_epochs_and_seeds():
    indices = order.shuffled(1)(make(50))
    epochs = indices(np.arange(500)).reshape(10, 50)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(50), (10, 1)))
    assert len(np.unique(epochs, axis=0)) == 10
    assert (order.shuffled(2)(make(50))(np.arange(500)) != epochs.ravel()).mean() > 0.9


def test_shuffled_puts_every_example_at_every_place_equally_often():
    n, epochs = 8, 4000
    drawn = order.shuffled(5)(make(n))(np.arange(n * epochs)).reshape(epochs, n)
    counts = np.stack([np.bincount(drawn[:, place], minlength=n) for place in range(n)])
    chi2 = ((counts - epochs / n) ** 2 / (epochs / n)).sum()
    assert 20 < chi2 < 85  # 49 degrees of freedom: outside with a probability of about 1e-3


def test_repeated_shows_the_first_of_each_epoch_block_by_block():
    each_epoch = order.shuffled(7)(make(24))(np.arange(48)).reshape(2, 24)
    expected = [[[*block] * 3 for block in epoch[:8].reshape(4, 2)] for epoch in each_epoch]
    np.testing.assert_array_equal(order.repeated(7, 3, 2)(make(24))(np.arange(48)), np.ravel(expected))
    with pytest.raises(ValueError, match="times=0, apart=2"):
        order.repeated(7, 0, 2)


def test_a_batch_of_deit_holds_each_of_its_images_three_times_and_none_beside_itself():
    n, batch = 9001, 96
    drawn = order.repeated(1, 3, batch // 3)(make(n))(np.arange(n))
    for rows in drawn[: n // batch * batch].reshape(-1, batch):
        assert np.all(np.unique(rows, return_counts=True)[1] == 3)
        assert np.all(rows != np.roll(rows, 1))
    assert n / 3 <= len(np.unique(drawn)) < n / 3 + batch


def test_an_epoch_of_imagenet_is_quick():
    indices = order.shuffled(0)(make(1_281_167))
    start = time.perf_counter()
    first = indices(np.arange(1_281_167 - 100, 1_281_167 + 100))
    assert time.perf_counter() - start < 5
    assert len(np.unique(first[:100])) == 100
    start = time.perf_counter()
    for step in range(100):
        indices(np.arange(256) + 256 * step)
    assert time.perf_counter() - start < 1  # the epoch is kept


@settings(max_examples=60, deadline=None)
@given(weights=st.lists(st.integers(0, 9), min_size=1, max_size=30).filter(any), seed=st.integers(0, 99))
def test_weighted_draws_each_example_its_share_rounded_down_or_up(weights, seed):
    n = len(weights)
    counts = np.bincount(order.weighted(weights, seed)(make(n))(np.arange(n)), minlength=n)
    whole, rest = np.divmod(n * np.asarray(weights), sum(weights))  # exact, in integers
    assert counts.sum() == n
    assert ((counts == whole) | (counts == whole + (rest > 0))).all()


def test_weighted_draws_shares_on_average():
    weights = np.array([0.5, 1.25, 0.0, 2.0, 1.25])
    counts = np.bincount(order.weighted(weights, 0)(make(5))(np.arange(5 * 4000)), minlength=5)
    np.testing.assert_allclose(counts / 4000, weights, atol=0.03)


def test_weighted_draws_come_in_another_order_every_epoch():
    drawn = order.weighted(np.ones(40), 0)(make(40))(np.arange(120)).reshape(3, 40)
    assert len(np.unique(drawn, axis=0)) == 3


def test_balanced_draws_classes_equally():
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    source = arrays.source(np.zeros((1000, 1, 1), np.uint8), labels)
    drawn = labels[order.balanced(0)(source)(np.arange(1000))]
    assert np.abs(np.bincount(drawn) - 1000 / 3).max() <= 1


@pytest.mark.parametrize(("power", "expected"), [(0.0, [900, 90, 10]), (0.5, [703, 222, 74]), (1.0, [333, 333, 333])])
def test_a_power_lies_between_the_shares_of_the_source_and_equal_ones(power, expected):
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    drawn = labels[order.balanced(0, power)(arrays.source(np.zeros((1000, 1, 1), np.uint8), labels))(np.arange(1000))]
    shares = np.array([900, 90, 10]) ** (1 - power)  # arXiv:1910.09217
    assert np.abs(np.bincount(drawn) - 1000 * shares / shares.sum()).max() <= 1
    np.testing.assert_allclose(np.bincount(drawn), expected, atol=1)


@pytest.mark.parametrize("power", [-0.1, 1.1])
def test_a_power_beyond_the_two_is_refused(power):
    with pytest.raises(ValueError, match=f"power={power}"):
        order.balanced(0, power)


@pytest.mark.parametrize("weights", [[1, -1], [0, 0], [np.nan, 1], [np.inf, 1], [[1, 2]]])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weights must be"):
        order.weighted(weights, 0)


def test_weights_must_match_the_source():
    with pytest.raises(ValueError, match="3 weights for 5 examples"):
        order.weighted([1, 2, 3], 0)(make(5))


@pytest.mark.parametrize("make_order", [order.shuffled, order.balanced, lambda seed: order.weighted([1], seed)])
@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_that_do_not_fit_are_refused(make_order, seed):
    with pytest.raises(ValueError, match=f"got {seed}"):
        make_order(seed)


@pytest.mark.parametrize(
    "make_order", [order.sequential(), order.shuffled(0), order.balanced(0), order.weighted([1], 0)]
)
def test_an_empty_source_is_refused(make_order):
    with pytest.raises(ValueError, match=r"at least one example|1 weights for 0"):
        make_order(make(0))


def test_mixture_has_exact_quotas_every_epoch_and_each_part_runs_in_its_own_order():
    parts = make(30, seed=1), make(50, seed=2), make(20, seed=3)
    orders = order.shuffled(10), order.sequential(), order.balanced(12)
    indices = order.mixture([0.5, 0.2, 0.3], orders, seed=4)(concatenate(*parts))
    drawn = indices(np.arange(100 * 7))
    for epoch in drawn.reshape(7, 100):
        assert [(epoch < 30).sum(), ((epoch >= 30) & (epoch < 80)).sum(), (epoch >= 80).sum()] == [50, 20, 30]
    for start, part, inner, count in zip((0, 30, 80), parts, orders, (350, 140, 210), strict=True):
        mine = drawn[(drawn >= start) & (drawn < start + part.length)] - start
        np.testing.assert_array_equal(mine, inner(part)(np.arange(count)))


def test_mixture_interleaves_and_resumes_anywhere():
    both = concatenate(make(40), make(60))
    mixed = order.mixture([1, 1], [order.shuffled(0), order.shuffled(0)], seed=9)
    drawn = mixed(both)(np.arange(500))
    for start in (0, 1, 99, 100, 263):
        np.testing.assert_array_equal(mixed(both)(np.arange(start, 500)), drawn[start:])
    first = drawn[:100] < 40
    assert 35 < (first[1:] != first[:-1]).sum() < 65  # 49.5 expected of a random order
    assert (first != (drawn[100:200] < 40)).any()


def test_mixture_shares_out_the_remainder():
    indices = order.mixture([1, 1, 1], [order.sequential()] * 3, seed=0)(concatenate(make(4), make(3), make(3)))
    drawn = indices(np.arange(10))
    assert sorted([(drawn < 4).sum(), ((drawn >= 4) & (drawn < 7)).sum(), (drawn >= 7).sum()]) == [3, 3, 4]


@pytest.mark.parametrize("source", [make(4), concatenate(make(4), make(4), make(4))])
def test_mixture_needs_an_order_and_a_weight_for_each_part(source):
    with pytest.raises(ValueError, match="2 weights and 2 orders for a source of"):
        order.mixture([1, 1], [order.sequential()] * 2, seed=0)(source)
