"""An ablation: a baseline, named changes of it, and the figure that decides, all before the first run."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from jaxvision.errors import ConfigError
from jaxvision.run import own_modules
from launch import plan
from launch.plan import BASELINE, Deciding, Plan, Variant

JOINT = " + "


class Ablation(NamedTuple):
    """What `get_ablation()` of a file in `experiments/ablations` returns."""

    experiment: Path
    """The experiment file of the baseline."""
    changes: Mapping[str, Variant]
    """By name: values of fields, or a function that changes the config."""
    deciding: Deciding
    seeds: tuple[int, ...] = (0, 1, 2)
    """Values of `config.seed`; the variants of one seed see the same data in the same order."""
    baseline: Mapping[str, str] = MappingProxyType({})
    """Fields that the baseline has otherwise than the file, as texts."""
    together: int = 1
    """Most changes at once: 2 tries every pair too."""


def load(file: Path) -> Ablation:
    """The ablation of a file.

    Raises:
      ConfigError: if there is no such file, or it has no `get_ablation()` that returns one.
    """
    if not file.is_file():
        raise ConfigError(f"no ablation file {file}")
    found = getattr(own_modules.load(f"ablation_{file.stem}", file), "get_ablation", None)
    ablation = found() if callable(found) else None
    if not isinstance(ablation, Ablation):
        raise ConfigError(f"{file} has no get_ablation() that returns an Ablation (launch.ablation)")
    return ablation


def make(ablation: Ablation, overrides: Mapping[str, str], seeds: tuple[int, ...] = ()) -> Plan:
    """The plan of an ablation.

    Args:
      ablation: the baseline and its changes.
      overrides: fields set for all variants on the command line.
      seeds: in place of those of the ablation.

    Raises:
      ConfigError: a change that changes nothing, or more than it names; and as `plan.make`.
      DataError: as `plan.make`.
    """
    variants = {BASELINE: {}, **combined(ablation.changes, ablation.together)}
    base = {**ablation.baseline, **overrides}
    made = plan.make(ablation.experiment, variants, seeds or ablation.seeds, base, ablation.deciding, BASELINE)
    check_exact(made, variants)
    return made


def combined(changes: Mapping[str, Variant], together: int) -> dict[str, Variant]:
    """Every choice of up to `together` changes, by their names.

    Raises:
      ConfigError: no changes, one named like the baseline, `together` out of range.
    """
    if not changes or BASELINE in changes:
        raise ConfigError(
            f"an ablation needs changes, and none named {BASELINE!r}; it has: {', '.join(changes) or 'none'}"
        )
    if not 1 <= together <= len(changes):
        raise ConfigError(f"together={together}: with {len(changes)} changes, allowed are 1 to {len(changes)}")
    found = {}
    for count in range(1, together + 1):
        for names in itertools.combinations(changes, count):
            found[JOINT.join(names)] = changes[names[0]] if count == 1 else _joined([changes[name] for name in names])
    return found


def _joined(variants: list[Variant]) -> Variant:
    """Changes one after another, as one function."""

    def change(config) -> None:
        for variant in variants:
            if callable(variant):
                variant(config)
            else:
                for field, value in variant.items():
                    config[field] = value

    return change


def check_exact(made: Plan, variants: Mapping[str, Variant]) -> None:
    """Raises ConfigError if a variant differs from the baseline of its seed in other fields than those it names."""
    baselines = {member.seed: plan.flat(member.config) for member in made.members if member.variant == BASELINE}
    for member in made.members:
        base, ours = baselines[member.seed], plan.flat(member.config)
        differ = {name for name in {*base, *ours} if base.get(name) != ours.get(name)}
        variant = variants[member.variant]
        if not callable(variant) and differ != set(variant):
            more, less = sorted(differ - set(variant)), sorted(set(variant) - differ)
            what = (
                f"also changes {more[0]}" if more else f"does not change {less[0]}, which is {base[less[0]]} without it"
            )
            raise ConfigError(f"variant {member.variant!r} {what}")
