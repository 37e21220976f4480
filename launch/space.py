"""The space of a search: what each field may be, as Optuna's distributions, and suggestions from it as texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxvision.errors import ConfigError, nearest
from jaxvision.run import config as configs
from launch import values
from launch.values import LogUniform, Uniform

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Values = Uniform | LogUniform | list[str]


class Space(NamedTuple):
    """Fields of a config and what they may be."""

    fields: dict[str, Values]
    """In the order of their names."""
    whole: frozenset[str]
    """Fields that hold whole numbers."""

    def texts(self) -> dict[str, str]:
        """What each field may be, as on the command line."""
        return {field: _text(of) for field, of in self.fields.items()}


def make(experiment: Path, texts: Mapping[str, str], overrides: Mapping[str, str]) -> Space:
    """The space that the command line asks for.

    Args:
      experiment: the experiment file.
      texts: field to what it may be, such as `log_uniform(1e-4, 1e-1)` or `1,2,3`.
      overrides: dotted field names to texts, for all trials.

    Raises:
      ConfigError: no field, an unknown one, one that is also set for all trials, bounds for what is no number.
    """
    if not texts:
        raise ConfigError("the search has no field: --search.FIELD=VALUES names one, such as --search.depth=1,2,3")
    known = configs.fields(configs.configure(configs.load(experiment).get_config(), overrides))
    for field in texts:
        if field not in known:
            raise ConfigError(f"config has no field {field!r}{nearest(field, sorted(known))}")
        if field in overrides:
            raise ConfigError(f"--search.{field} and --config.{field} are both given; the field is searched or set")
    fields = {field: values.parse(field, texts[field]) for field in sorted(texts)}
    for field, of in fields.items():
        _check(field, of, known[field])
    return Space(fields, frozenset(field for field in fields if type(known[field]) is int))


def _check(field: str, of: Values, default: Any) -> None:
    """Raises ConfigError where there is nothing to choose, or where numbers are drawn for what is none."""
    if isinstance(of, list):
        if len(set(of)) < len(of):
            raise ConfigError(f"the search of {field} has a value twice: {', '.join(of)}")
        if len(of) == 1:
            raise ConfigError(f"the search of {field} has one value; --config.{field}={of[0]} sets it for all trials")
    elif isinstance(default, bool) or not isinstance(default, int | float | None):
        kind = type(default).__name__
        raise ConfigError(f"config.{field} is of type {kind}, which has no bounds; --search.{field}=VALUE,VALUE")
    elif type(default) is int and not (isinstance(of.low, int) and isinstance(of.high, int)):
        raise ConfigError(f"config.{field} is a whole number; the bounds of {_text(of)} must be whole numbers too")


def _text(of: Values) -> str:
    if isinstance(of, list):
        return ",".join(of)
    return f"{'uniform' if isinstance(of, Uniform) else 'log_uniform'}({of.low!r}, {of.high!r})"


def check_sampler(space: Space, sampler: str) -> None:
    """Raises ConfigError for a space that a sampler can't search: CMA-ES needs two fields or more, all with bounds."""
    if sampler != "cmaes":
        return
    lists = [field for field, of in space.fields.items() if isinstance(of, list)]
    if lists:
        raise ConfigError(
            f"--sampler=cmaes searches numbers between bounds; {lists[0]} has a list of values: give it bounds, such as "
            "uniform(1, 3), or --sampler=tpe"
        )
    if len(space.fields) < 2:
        raise ConfigError("--sampler=cmaes needs two fields or more; --sampler=tpe searches a single one")


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Optuna's distribution of each field."""
    return {field: _distribution(of, field in space.whole) for field, of in space.fields.items()}


def _distribution(of: Values, whole: bool) -> BaseDistribution:
    from optuna import distributions

    if isinstance(of, list):
        return distributions.CategoricalDistribution(of)
    log = isinstance(of, LogUniform)
    ints = isinstance(of.low, int) and isinstance(of.high, int)
    if ints and (whole or not log):
        return distributions.IntDistribution(int(of.low), int(of.high), log=log)
    return distributions.FloatDistribution(of.low, of.high, log=log)


def rounded(space: Space, suggested: Mapping[str, Any]) -> dict[str, Any]:
    """The suggestion with numbers of six digits, within their bounds, so that their texts are short and exact."""
    return {field: _rounded(space.fields[field], value) for field, value in suggested.items()}


def _rounded(of: Values, value: Any) -> Any:
    if isinstance(of, list) or not isinstance(value, float):
        return value
    return min(max(float(f"{value:.6g}"), float(of.low)), float(of.high))


def change(suggested: Mapping[str, Any]) -> dict[str, str]:
    """The suggestion as texts for the command line."""
    return {field: value if isinstance(value, str) else repr(value) for field, value in suggested.items()}
