"""Bounds of `annotate.bounds` beside SciPy's distributions and plain loops."""

import numpy as np
import pytest
from scipy import stats

from jaxvision.annotate import bounds


@pytest.mark.parametrize(("objects", "wrong", "allowed"), [(50, 2, 0.1), (22, 0, 0.1), (400, 31, 0.1), (7, 7, 0.3)])
def test_the_tail_is_the_binomial_distribution(objects, wrong, allowed):
    assert bounds.tail(objects, wrong / objects, allowed) == pytest.approx(stats.binom.cdf(wrong, objects, allowed))


def effective_by_hand(total, wrong, crowded=0.0):
    images = [(t, w) for t, w in zip(total, wrong, strict=True) if t]
    further = max(sum(t * t for t, _ in images) / sum(t for t, _ in images), crowded)
    images = [*images, (further, further)]
    count = sum(t for t, _ in images)
    fraction = sum(w for _, w in images) / count
    between = sum((w - fraction * t) ** 2 for t, w in images) / count**2
    return sum(total) / max(between / (fraction * (1 - fraction) / count), 1)


def test_the_effective_number_is_that_of_a_plain_loop():
    rng = np.random.default_rng(0)
    total = rng.poisson(3, (20, 50)).astype(float)
    wrong = rng.binomial(total.astype(int), rng.beta(0.3, 2, (20, 50)))
    expected = [effective_by_hand(*each) for each in zip(total, wrong, strict=True)]
    np.testing.assert_allclose(bounds.effective(total, wrong), expected)
    crowded = rng.uniform(0, 30, 20)
    expected = [effective_by_hand(*each) for each in zip(total, wrong, crowded, strict=True)]
    np.testing.assert_allclose(bounds.effective(total, wrong, crowded), expected)


def test_without_an_error_each_image_counts_about_once():
    total = np.full(40, 5.0)
    assert bounds.effective(total, np.zeros(40)) == pytest.approx(40, rel=0.05)


def test_objects_that_err_together_are_as_one():
    rng = np.random.default_rng(1)
    lost = rng.random(4000) < 0.3
    total = np.full(4000, 5.0)
    assert bounds.effective(total, 5.0 * lost) == pytest.approx(4000, rel=0.05)
    alone = rng.binomial(5, 0.3, 4000).astype(float)
    assert bounds.effective(total, alone) == pytest.approx(20_000, rel=0.08)


def test_the_most_that_may_be_wrong_is_where_the_chance_meets_the_doubt():
    rng = np.random.default_rng(2)
    total = rng.poisson(3, 80).astype(float)
    for wrong in (np.zeros(80), rng.binomial(total.astype(int), 0.1).astype(float)):
        found = bounds.most(total, wrong, 0.1)
        assert bounds.chance(total, wrong, found, 0.1) == pytest.approx(0.1, abs=1e-6)
    factor = (stats.norm.ppf(0.9) / stats.t.ppf(0.9, 49)) ** 2  # one object an image, none wrong: Clopper and Pearson's
    assert bounds.most(np.ones(50), np.zeros(50), 0.1) == pytest.approx(1 - 0.1 ** (1 / (50 * factor)), rel=1e-3)
    assert bounds.most(np.zeros(3), np.zeros(3), 0.1) == 1


def test_the_crowd_is_that_of_the_image_of_an_object_taken_at_random():
    sizes = np.array([1, 0, 3, 60.0])
    assert bounds.crowd(sizes) == pytest.approx(np.mean(np.repeat(sizes, sizes.astype(int))))
    assert bounds.crowd(np.zeros(3)) == 0


def test_few_images_are_trusted_less_as_students_t_says():
    # of independent objects the effective number is their number: what is left is the factor of the survey literature
    total, wrong = np.ones(12), np.zeros(12)
    wrong[:1] = 1
    factor = (stats.norm.ppf(0.9) / stats.t.ppf(0.9, 11)) ** 2
    objects = factor * bounds.effective(total, wrong)
    assert bounds.effective(total, wrong) == pytest.approx(12)
    expected = stats.beta.sf(0.3, objects / 12 + 1, objects * 11 / 12)
    assert bounds.chance(total, wrong, 0.3, 0.1) == pytest.approx(expected)
    assert bounds.chance(total, wrong, 0.3, 0.1) > 1.05 * bounds.tail(12, 1 / 12, 0.3)


def test_images_without_an_object_tell_nothing():
    total, wrong = np.array([3.0, 2, 4, 1]), np.array([1.0, 0, 0, 0])
    empty = np.zeros(9)
    alike = [bounds.chance(np.append(total, more), np.append(wrong, more), 0.5, 0.1) for more in (empty, [])]
    assert alike[0] == alike[1]
    assert bounds.chance(empty, empty, 0.5, 0.1) == 1


def test_enough_is_where_the_tail_meets_the_doubt():
    for fraction, allowed, doubt in ((0.05, 0.1, 0.1), (0.0, 0.05, 0.05), (0.2, 0.3, 0.01)):
        needed = bounds.enough(fraction, allowed, doubt)
        assert bounds.tail(needed, fraction, allowed) == pytest.approx(doubt, abs=1e-6)
        assert bounds.tail(0.9 * needed, fraction, allowed) > doubt
    assert bounds.enough(0.0, 0.1, 0.1) == pytest.approx(np.log(0.1) / np.log(0.9))
    assert bounds.enough(0.1, 0.1, 0.1) == np.inf


@pytest.mark.parametrize(
    ("chances", "count"), [([0.01, 0.1, 0.05], 3), ([0.01, 0.2, 0.0], 1), ([0.5], 0), ([np.nan], 0), ([], 0)]
)
def test_a_sequence_ends_with_the_first_that_is_not_refused(chances, count):
    assert bounds.passed(np.array(chances), 0.1) == count
