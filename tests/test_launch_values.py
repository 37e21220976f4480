"""Values of a sweep: as text, as combinations, as random draws."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxvision.errors import ConfigError
from launch import values
from launch.values import LogUniform, Uniform


def test_texts_between_commas_are_values():
    assert values.parse("f", "0.1, 0.03") == ["0.1", "0.03"]
    assert values.parse("f", "(16, 32), [(1, 2), 'a,b']") == ["(16, 32)", "[(1, 2), 'a,b']"]
    assert values.parse("f", "uniform(0, 0.5)") == Uniform(0, 0.5)
    assert values.parse("f", "log_uniform(1e-4, 1e-1)") == LogUniform(1e-4, 1e-1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no values"),
        ("1,,2", "empty value"),
        ("(1, 2", "isn't closed"),
        ("1), 2", "don't match"),
        ("'a", "isn't closed"),
        ("uniform(3, 1)", "must ascend"),
        ("log_uniform(0, 1)", "above 0"),
        ("uniform(1)", "two numbers"),
        ("uniform(a, b)", "two numbers"),
        ("uniform(0, inf)", "must ascend"),
    ],
)
def test_what_is_no_values_is_named_with_the_field(text, says):
    with pytest.raises(ConfigError, match=says) as told:
        values.parse("learning_rate", text)
    assert "learning_rate" in str(told.value)


def test_a_grid_has_every_combination():
    assert values.grid({"a": [1, 2], "b": [3, 4]}) == [{"a": x, "b": y} for x in (1, 2) for y in (3, 4)]
    assert values.paired({"a": [1, 2], "b": [3, 4]}) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    assert values.product([{"a": 1}, {"a": 2}], [{"b": 3}]) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]
    with pytest.raises(ConfigError, match="'a': 2, 'b': 1"):
        values.paired({"a": [1, 2], "b": [3]})
    with pytest.raises(ConfigError, match="no values"):
        values.grid({"a": []})


def test_random_draws_have_their_distributions_and_keep_those_before():
    of = {"rate": LogUniform(1e-4, 1e-1), "width": Uniform(1, 4), "drop": Uniform(0.0, 0.5), "name": ["a", "b"]}
    drawn = values.random(of, 1000)
    assert values.random(of, 10) == drawn[:10]
    logs = [(math.log(each["rate"]) - math.log(1e-4)) / math.log(1e3) for each in drawn]
    assert stats.kstest(logs, "uniform").pvalue > 0.01
    assert stats.kstest([each["drop"] * 2 for each in drawn], "uniform").pvalue > 0.01
    assert np.bincount([each["width"] for each in drawn]).tolist()[1:] == pytest.approx([250] * 4, abs=50)
    assert {each["name"] for each in drawn} == {"a", "b"}
    with pytest.raises(ConfigError, match="0 of them"):
        values.random(of, 0)
