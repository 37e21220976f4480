"""Runs an ablation: a baseline and named changes of it, each with every seed; the same command goes on.

python -m launch.ablate --config=experiments/ablations/quickstart.py --workdir=sweeps/quickstart
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from jaxvision import commands
from launch import sweep


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 if all runs are done, 75 if it was stopped, else 1."""
    parser = sweep.parser_of(
        "ablate", "Run a baseline and named changes of it, with every seed; the same command goes on."
    )
    parser.epilog = "--config is a file with get_ablation(); --config.FIELD=VALUE sets a field for all variants."
    flags, overrides = commands.parsed(parser, argv)
    return commands.status_of(lambda: start(flags, overrides), flags.traceback)


def start(flags: argparse.Namespace, overrides: Mapping[str, str]) -> int:
    """Plans the ablation and runs it."""
    from launch import ablation, backends

    backends.check(flags)
    wanted = ablation.load(flags.config)
    if flags.decide is not None:
        decided = sweep.deciding(flags.decide)
        wanted = wanted._replace(deciding=decided or wanted.deciding)
    return sweep.run(ablation.make(wanted, overrides, flags.seeds), flags)


if __name__ == "__main__":
    commands.enter(main)
