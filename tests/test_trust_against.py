"""Two runs' robustness beside each other: differences and paired intervals of a plain loop."""

import csv
import math

import numpy as np
import pytest

from jaxvision.errors import ConfigError
from jaxvision.trust import against
from jaxvision.trust.robustness import Measured, Robustness
from jaxvision.types import About

RNG = np.random.default_rng(0)
NAMES, SEVERITIES, COUNT = ("fog", "snow", "rotation"), (1, 3), 200


def measured(rate):
    right = RNG.random(COUNT) < rate
    return Measured({"accuracy": float(right.mean()), "AP": rate}, right.astype(int), right)


def run(rate):
    table = {(name, severity): measured(rate - 0.1 * severity) for name in NAMES for severity in SEVERITIES}
    return Robustness(measured(rate), table)


OURS, OTHER = run(0.9), run(0.7)


def by_loop(pairs):
    """The mean difference and its interval, image by image."""
    gained = []
    for image in range(COUNT):
        each = [float(a.right[image]) - float(b.right[image]) for a, b in pairs]
        gained.append(sum(each) / len(each))
    mean = sum(gained) / COUNT
    deviation = math.sqrt(sum((each - mean) ** 2 for each in gained) / (COUNT - 1))
    half = 1.959963984540054 * deviation / math.sqrt(COUNT)
    return mean, mean - half, mean + half


def pairs(*names):
    return [(OURS.corrupted[name, s], OTHER.corrupted[name, s]) for name in names for s in SEVERITIES]


def test_differences_and_their_intervals_are_those_of_a_loop():
    found = {each.name: each for each in against.differences(OURS, OTHER, "accuracy")}
    assert list(found) == ["clean", "snow", "fog", "rotation", "mean"]
    wanted = {
        "clean": [(OURS.clean, OTHER.clean)],
        **{name: pairs(name) for name in NAMES},
        "mean": pairs("snow", "fog"),
    }
    for name, each in wanted.items():
        assert (found[name].difference, *found[name].interval) == pytest.approx(by_loop(each))
    assert found["mean"].verdict == "better"
    back = {each.name: each for each in against.differences(OTHER, OURS, "accuracy")}
    assert back["mean"].verdict == "worse"
    assert {each.verdict for each in against.differences(OURS, OURS, "accuracy")} == {"undecided"}


def test_a_metric_that_is_no_mean_over_images_has_no_interval():
    found = against.differences(OURS, OTHER, "AP")
    assert all(math.isnan(each.interval.low) and each.verdict == "" for each in found)
    assert found[-1].difference == pytest.approx(0.2)
    with pytest.raises(ConfigError, match="the other run has no metric 'miou'"):
        against.differences(OURS, OTHER, "miou")


def test_tables_say_what_was_found():
    found = against.differences(OURS, OTHER, "accuracy")
    lines = list(csv.DictReader(against.as_csv(found).splitlines()))
    assert [float(line["difference"]) for line in lines] == [each.difference for each in found]
    assert [float(line["low"]) for line in lines] == [each.interval.low for each in found]
    text = against.as_markdown(found, "accuracy", ("a", "b"))
    last = found[-1]
    low, high = last.interval
    line = (
        f"| mean | {last.ours:.4f} | {last.other:.4f} | {last.difference:+.4f} | {low:+.4f} to {high:+.4f} | better |"
    )
    assert line in text
    assert [
        line["low"] for line in csv.DictReader(against.as_csv(against.differences(OURS, OTHER, "AP")).splitlines())
    ] == [""] * 5


def test_other_data_are_refused():
    about = About(5, ("a", "b"), str, "one")
    against.check_same_data(about, about)
    for other in (about._replace(fingerprint="two"), about._replace(classes=("b", "a"))):
        with pytest.raises(ConfigError, match="not evaluated on the same data"):
            against.check_same_data(about, other)
