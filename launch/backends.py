"""Where the runs of a plan go: this machine, or a scheduler, whose module is imported when it is asked for."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from jaxvision.errors import ConfigError, UserError, nearest

if TYPE_CHECKING:
    from pathlib import Path

    from launch.command import Command, Resources

LOCAL = "local"
NAMES = (LOCAL, "slurm", "ray", "kubernetes", "tpu")


class Unreachable(UserError, RuntimeError):
    """A scheduler does not answer; nothing is known of its jobs, and no run has failed by it."""


class Settings(NamedTuple):
    """What a backend is told beside the runs."""

    options: Mapping[str, str]
    """`--option NAME=VALUE`, the names checked."""
    retries: int = 1
    """Times that a run that failed is started again."""
    stop_after_failures: int = 3
    """Failed runs after which none is started."""
    workers: int | None = None
    """Most runs at once; None leaves it to the scheduler."""
    say: Callable[[str], None] = print


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that choose a backend and say what each run asks of it."""
    group = parser.add_argument_group("runs elsewhere")
    group.add_argument("--backend", choices=NAMES, default=LOCAL, help="where the runs go (local)")
    group.add_argument("--nodes", type=int, metavar="N", help="machines that train a run as one (1)")
    group.add_argument("--groups", type=int, metavar="N", help="groups of such machines, of Kubernetes' JobSet (1)")
    group.add_argument("--gpus", type=int, metavar="N", help="GPUs, or TPU chips, of each machine (0)")
    group.add_argument("--cores", type=int, metavar="N", help="processor cores of each machine")
    group.add_argument("--memory", type=float, metavar="GB", help="memory of each machine")
    group.add_argument("--minutes", type=int, metavar="N", help="after which a run is saved, and queued again (60)")
    group.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the backend; a wrong NAME lists them all",
    )


def resources(flags: argparse.Namespace) -> Resources:
    """What each run asks of the backend.

    Raises:
      ConfigError: for a number that is too small, or one that the backend has no use for.
    """
    from launch.command import Resources

    given = {name: value for name in Resources._fields if (value := getattr(flags, name)) is not None}
    if flags.backend == LOCAL and (given or flags.option):
        name = next(iter(given), "option")
        raise ConfigError(f"--{name} is for a scheduler: say which by --backend={'|'.join(NAMES[1:])}")
    if flags.backend != LOCAL and (useless := [name for name in given if name not in module(flags.backend).USES]):
        uses = ", ".join(f"--{name}" for name in module(flags.backend).USES)
        raise ConfigError(f"--backend={flags.backend} has no use for --{useless[0]}; it takes {uses}")
    for name, value in given.items():
        least = 0 if name == "gpus" else 1
        if not (value > 0 if name == "memory" else value >= least):
            raise ConfigError(f"--{name}={value}: it must be {'above 0' if name == 'memory' else f'{least} or more'}")
    return Resources(**given)


def settings(flags: argparse.Namespace, say: Callable[[str], None]) -> Settings:
    """What the backend of the command line is told beside the runs.

    Raises:
      ConfigError: if the backend is not installed, has no such option, or needs one that is not given.
    """
    backend = module(flags.backend)
    options = parsed(flags.option, flags.backend, backend.OPTIONS)
    if missing := [name for name in backend.NEEDED if name not in options]:
        raise ConfigError(f"--backend={flags.backend} needs --option {missing[0]}=... ({backend.OPTIONS[missing[0]]})")
    return Settings(options, flags.retries, flags.stop_after_failures, flags.workers, say)


def check(flags: argparse.Namespace) -> None:
    """Raises ConfigError, before a plan is made, for a backend that is not installed, or flags that don't fit it."""
    resources(flags)
    if flags.backend != LOCAL:
        settings(flags, print)


def module(name: str):
    """The module of a backend.

    Raises:
      ConfigError: if a package that it needs is not installed; it says which extra has it.
    """
    backend = import_module(f"launch.{name}")
    if backend.PACKAGE is not None and importlib.util.find_spec(backend.PACKAGE) is None:
        raise ConfigError(f"--backend={name} needs the package {backend.PACKAGE}: pip install 'jaxvision[{name}]'")
    return backend


def parsed(texts: Sequence[str], name: str, known: Mapping[str, str]) -> dict[str, str]:
    """The options of a backend by name.

    Raises:
      ConfigError: for one that has no value, or that the backend does not know.
    """
    found = {}
    for text in texts:
        option, equals, value = text.partition("=")
        if option not in known:
            raise ConfigError(f"--backend={name} has no option {option!r}{nearest(option, sorted(known), len(known))}")
        if not equals or not value:
            raise ConfigError(f"--option {option} needs a value: --option {option}=... ({known[option]})")
        found[option] = value
    return found


def start(runs: Sequence[Command], folder: Path, backend: str, told: Settings) -> int:
    """Hands the runs of a plan to a backend; returns the exit status.

    Args:
      runs: those of the plan.
      folder: of the plan, absolute.
      backend: its name.
      told: what it is told beside the runs.
    """
    return module(backend).start(runs, folder, told)
