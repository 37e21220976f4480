"""Temperatures, zones and their promises."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize

from jaxvision.annotate import bounds, promises
from jaxvision.annotate.checked import Checked
from jaxvision.annotate.promises import Promise
from jaxvision.errors import DataError
from jaxvision.metrics import calibration

PROMISE = Promise()


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parent.parent / "experiments" / "benchmarks" / "promises.py"
    spec = importlib.util.spec_from_file_location("promises_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def guesses(images=200, each=4, sure=2.0, seed=0, classes=("a",), spread=1.5, temperature=1.0):
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), each)
    odds = rng.normal(sure, spread, len(image))
    right = rng.random(len(image)) < 1 / (1 + np.exp(-odds))
    label = rng.integers(0, len(classes), len(image))
    score = 1 / (1 + np.exp(-odds * temperature))
    model = np.zeros(len(image), int)
    return Checked(images, classes, ("m",), image, label, model, score, right, image[right], label[right])


def test_the_temperature_is_found_again():
    for temperature in (0.5, 1.0, 2.5):
        known = guesses(5000, temperature=temperature)
        assert calibration.temperature(known.score, known.right) == pytest.approx(temperature, rel=0.05)


def test_the_temperature_has_the_least_loss():
    known = guesses(60, temperature=1.7)
    hits = known.right.sum()
    target = np.where(known.right, (hits + 1) / (hits + 2), 1 / (len(known.right) - hits + 2))

    def loss(log):
        p = 1 / (1 + np.exp(-calibration.logit(known.score) / np.exp(log)))
        return -np.mean(target * np.log(p) + (1 - target) * np.log1p(-p))

    best = np.exp(optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x)
    assert calibration.temperature(known.score, known.right) == pytest.approx(best, rel=1e-4)


def test_nothing_and_extremes_have_a_temperature():
    assert calibration.temperature(np.array([]), np.array([], bool)) == 1
    for right in (True, False):
        found = calibration.temperature(np.array([0.0, 0.5, 1.0]), np.full(3, right))
        assert calibration.COLDEST <= found <= calibration.HOTTEST
        assert np.isfinite(calibration.probability(np.array([0.0, 1.0]), found)).all()


def test_the_calibration_error_is_that_of_a_plain_loop():
    known = guesses(50, temperature=2.0)
    expected = 0.0
    for number in range(15):
        inside = [(s, r) for s, r in zip(known.score, known.right, strict=True) if number / 15 < s <= (number + 1) / 15]
        if inside:
            expected += abs(sum(s for s, _ in inside) - sum(r for _, r in inside)) / len(known.score)
    assert calibration.error(known.score, known.right) == pytest.approx(expected)
    assert calibration.bins(np.array([0.0, 1.0]), np.array([False, True])).count.tolist() == [1, 1]
    assert calibration.error(np.array([]), np.array([], bool)) == 0


def test_the_threshold_is_that_of_a_plain_loop():
    known = guesses(150, sure=1.8)
    found, more = promises.accepting(known.image, known.score, known.right, known.images, PROMISE)
    accepted, ranked = None, np.sort(known.score)[::-1]
    first = promises.least(PROMISE)
    for place in np.linspace(first - 1, len(ranked) - 1, promises.THRESHOLDS).round().astype(int):
        total, wrong = np.zeros(known.images), np.zeros(known.images)
        for image, score, right in zip(known.image, known.score, known.right, strict=True):
            total[image] += score >= ranked[place]
            wrong[image] += score >= ranked[place] and not right
        if bounds.chance(total, wrong, 0.1, 0.1) > 0.1:
            break
        accepted = ranked[place]
    assert accepted is not None
    assert (found, more) == (accepted, 0)


def test_the_dropped_are_those_of_a_plain_loop():
    known = guesses(150, sure=0.0, spread=3)
    zones = promises.calibrate(known, PROMISE).zones[0]
    probability = promises.probabilities(known, promises.temperatures_of(known))
    objects = np.bincount(known.true_image, minlength=known.images)
    lost = np.bincount(known.image[known.right & (probability < zones.drop)], minlength=known.images)
    assert bounds.chance(objects, lost, 0.05, 0.1) <= 0.1
    assert zones.dropped == np.count_nonzero(probability < zones.drop) > 30
    assert lost.sum() <= 0.05 * objects.sum()
    assert zones.accepted == np.count_nonzero(probability >= zones.accept)
    assert zones.drop <= zones.accept


def test_zones_part_the_probabilities():
    found = promises.calibrate(guesses(150, sure=0.0, spread=3))
    zones = found.zones[0]
    assert found.zone("a", zones.accept) == found.zone("a", 1.0) == "accept"
    assert found.zone("a", zones.accept - 1e-6) == found.zone("a", zones.drop) == "review"
    assert found.zone("a", zones.drop - 1e-6) == found.zone("a", 0.0) == "drop"
    assert found.zone("unknown", 1.0) == found.zone("unknown", 0.0) == "review"


def test_guesses_of_one_probability_have_one_zone():
    known = guesses(150)._replace(score=np.full(600, 0.7), right=np.arange(600) % 20 > 0)
    zones = promises.calibrate(known).zones[0]
    assert zones.accepted == 600


def test_a_calibration_survives_as_json():
    found = promises.calibrate(guesses(100, classes=("a", "ä b")))
    again = promises.of_json(found.as_json())
    assert again == found
    score = guesses(20).score
    probability = [promises.calibrated(again, "a", float(each), "m") for each in score]
    np.testing.assert_array_equal(probability, calibration.probability(score, found.temperatures["m"]))
    first = json.loads(found.as_json())
    old = {key: first[key] for key in ("promise", "temperatures", "zones")}
    assert promises.of_json(json.dumps({"version": 1, **old})).made_by == ""
    for text in ("", "{}", "[]", '{"version": 3}'):
        with pytest.raises(DataError, match="calibration"):
            promises.of_json(text)


def test_classes_with_few_guesses_are_one_group_whatever_was_right():
    known = guesses(200, sure=3, classes=tuple("abcdef"))
    label = np.where(np.arange(800) < 300, 0, np.where(np.arange(800) < 600, 1, 2 + np.arange(800) % 4))
    parts = promises.groups(known._replace(label=label), PROMISE)
    assert parts == [(0,), (1,), (2, 3, 4, 5)]
    assert parts == promises.groups(known._replace(label=label, right=~known.right), PROMISE)
    few = np.where(np.arange(800) < 500, 0, np.where(np.arange(800) < 790, 1, 2 + np.arange(800) % 4))
    assert promises.groups(known._replace(label=few), PROMISE) == [(0,), (1, 2, 3, 4, 5)]
    assert promises.groups(guesses(5, classes=("a", "b")), PROMISE) == [(0, 1)]


def test_it_says_about_how_many_more_images_it_takes():
    known = guesses(20, sure=2.2)
    zones = promises.calibrate(known).zones[0]
    assert zones.accept is None
    assert 20 < zones.more < 400
    times = 2 * (20 + zones.more) // 20
    more = [promises.calibrate(guesses(20 * times, sure=2.2, seed=seed)).zones[0].accept for seed in range(5)]
    assert None not in more
    hopeless = promises.calibrate(guesses(400, sure=0, spread=0.1)).zones[0]
    assert (hopeless.accept, hopeless.more) == (None, None)


def test_no_guess_and_no_object_promise_nothing():
    nothing = np.array([], int)
    empty = Checked(3, ("a",), (), nothing, nothing, nothing, np.array([]), nothing.astype(bool), nothing, nothing)
    zones = promises.calibrate(empty).zones[0]
    assert (zones.accept, zones.drop, zones.more) == (None, None, None)
    alone = guesses(50)._replace(true_image=nothing, true_label=nothing)
    assert promises.calibrate(alone).zones[0].drop is None


def test_a_model_with_enough_guesses_has_a_temperature_of_its_own():
    known = guesses(400)
    model = np.arange(len(known.score)) % 2
    score = np.where(model, known.score, 1 / (1 + np.exp(-3 * calibration.logit(known.score))))
    few = np.where(np.arange(len(score)) < 5, 2, model)
    found = promises.temperatures_of(known._replace(models=("x", "y", "z"), model=few, score=score))
    assert found["x"] == pytest.approx(3, rel=0.2)
    assert found["y"] == pytest.approx(1, rel=0.2)
    assert set(found) == {"", "x", "y"}


def test_a_promise_holds_in_a_few_simulations(benchmark):
    ways = {"ours": benchmark.ours, "empirical": benchmark.empirical}
    found = benchmark.tally(benchmark.simulated(benchmark.World(together=2.5), 40, 60), ways)
    assert found["ours"].broken <= 0.12
    assert found["ours"].accepted > 0.1
    assert found["empirical"].broken > 0.3


def test_rare_crowds_are_feared_though_no_checked_image_has_one():
    rng = np.random.default_rng(0)
    image, store = np.repeat(np.arange(40), 2), np.repeat(np.arange(2000), np.where(np.arange(2000) < 40, 100, 2))
    probability, everywhere = (np.round(rng.uniform(0.5, 0.99, len(each)), 6) for each in (image, store))
    right = np.ones(80, bool)
    found, more = promises.accepting(image, probability, right, 40, PROMISE, (store, everywhere))
    assert found is None
    assert 100 < more < 1000
    alike = np.repeat(np.arange(2000), 2)
    found, _ = promises.accepting(image, probability, right, 40, PROMISE, (alike, everywhere[:4000]))
    assert found == probability.min()
    assert promises.more_crowded(store, image) == pytest.approx((40 * 100**2 + 1960 * 4) / (40 * 100 + 1960 * 2) / 2)
    assert promises.more_crowded(image, store) == 1


def test_nothing_that_is_accepted_is_dropped():
    # every guess is right and sure, and a third of the objects may be missed
    zones = promises.calibrate(guesses(150, sure=4, spread=0.5), Promise(missed=0.4)).zones[0]
    assert zones.accepted == 600
    assert (zones.drop, zones.dropped) == (zones.accept, 0)


@pytest.mark.slow
@pytest.mark.parametrize("world", ["crowds of 100", "crowds of 60"])
@pytest.mark.parametrize("images", [40, 120])
def test_promises_hold_in_spite_of_rare_crowds(benchmark, world, images):
    found = benchmark.tally(benchmark.simulated(benchmark.WORLDS[world], 120, images), {"ours": benchmark.ours})
    assert found["ours"].broken <= 0.12


@pytest.mark.slow
@pytest.mark.parametrize("world", ["alone", "together", "lost images", "both"])
def test_promises_hold_where_the_empirical_precision_breaks_them(benchmark, world):
    ways = {"ours": benchmark.ours, "empirical": benchmark.empirical}
    found = benchmark.tally(benchmark.simulated(benchmark.WORLDS[world], 120, 120), ways)
    assert found["ours"].broken <= 0.12
    assert found["empirical"].broken > 0.35
    assert found["ours"].accepted > 0.1


@pytest.mark.slow
def test_dropping_keeps_its_promise(benchmark):
    rng = np.random.default_rng(0)
    world = benchmark.World(guesses=6, together=1.5)
    population = benchmark.sample(world, 30_000, rng)
    broken, dropped = [], []
    for _ in range(120):
        known = benchmark.sample(world, 120, rng)
        objects = np.bincount(known.true_image, minlength=known.images)
        drop = promises.dropping(known.image[known.right], known.score[known.right], objects, known.score, PROMISE)
        below = population.score < (drop or 0)
        broken.append(np.count_nonzero(below & population.right) > 0.05 * len(population.true_image))
        dropped.append(np.mean(below[~population.right]))
    assert np.mean(broken) <= 0.12
    assert np.mean(dropped) > 0.1
