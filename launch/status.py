"""Prints where each run of a plan or search stands, from the workdirs alone.

python -m launch.status sweeps/quickstart
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from jaxvision import commands


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 if all runs are done or pruned, else 1."""
    parser = commands.new_parser("status", "Print where each run of a plan stands.", package="launch")
    parser.add_argument("folder", type=commands.expanded, metavar="DIR", help="the folder of the plan and its runs")
    flags = commands.flags_of(parser, argv)
    return commands.status_of(lambda: start(flags), flags.traceback)


def start(flags: argparse.Namespace) -> int:
    """Prints the table."""
    from launch import description, journal, plan, state

    planned = plan.read(flags.folder)
    of = state.states(planned, flags.folder)
    print(state.table(of, None if planned.deciding is None else planned.deciding.figure))
    if (flags.folder / description.FILE).exists() and planned.deciding is not None:
        print(journal.summary(journal.trials_of(flags.folder), planned.deciding))
    return 0 if all(at.kind in ("done", "pruned") for at in of.values()) else 1


if __name__ == "__main__":
    commands.enter(main)
