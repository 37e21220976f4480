"""Names what differs between two runs; `--first-difference` finds the first step and array in which they part.

python -m launch.compare runs/a runs/b [--first-difference]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from jaxvision import commands


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 if nothing differs, else 1."""
    parser = commands.new_parser("compare", "Name what differs between two runs.", package="launch")
    parser.add_argument("one", type=commands.expanded, metavar="RUN", help="the workdir of a run")
    parser.add_argument("other", type=commands.expanded, metavar="OTHER", help="the workdir of another")
    parser.add_argument(
        "--first-difference",
        action="store_true",
        help="find the first step and array in which they part, from their checkpoints and by training again from there",
    )
    flags = commands.flags_of(parser, argv)
    return commands.status_of(lambda: start(flags), flags.traceback)


def start(flags: argparse.Namespace) -> int:
    """Prints the differences."""
    from launch import differences

    found = differences.between(flags.one, flags.other)
    for difference in found:
        print(difference.line())
    if not found:
        print("no difference")
    if flags.first_difference:
        from jaxvision.run import devices
        from launch import parting

        devices.keep_compilations()
        parted = parting.find(flags.one, flags.other)
        print("\n".join(parted.lines()))
        return 1 if found or parted.arrays else 0
    return 1 if found else 0


if __name__ == "__main__":
    commands.enter(main)
