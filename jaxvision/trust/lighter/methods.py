"""The methods by name, as `--method=` of `jaxvision.lighten` takes them."""

import inspect
from collections.abc import Mapping
from types import MappingProxyType

from jaxvision.errors import ConfigError, nearest
from jaxvision.trust.lighter.fold import fold
from jaxvision.trust.lighter.int8 import int8
from jaxvision.trust.lighter.method import Method
from jaxvision.trust.lighter.prune import prune
from jaxvision.trust.lighter.prune_channels import prune_channels

METHODS: Mapping[str, Method] = MappingProxyType(
    {"fold": fold, "int8": int8, "prune": prune, "prune_channels": prune_channels}
)


def check(name: str, options: Mapping[str, object]) -> None:
    """Raises ConfigError for a method that is none, and for options that it does not have."""
    if name not in METHODS:
        raise ConfigError(f"--method={name}: there is no such method{nearest(name, list(METHODS))}")
    known = options_of(METHODS[name])
    for option in options:
        if option not in known:
            listed = ", ".join(map(_flag, known)) or "none"
            raise ConfigError(f"{_flag(option)} is no option of --method={name}; it has: {listed}")


def options_of(method: Method) -> tuple[str, ...]:
    """The names of a method's options."""
    return tuple(inspect.signature(method).parameters)[1:]


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"
