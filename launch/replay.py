"""Runs a finished run again, from its workdir alone; says whether parameters and figures are the same, and what differs.

python -m launch.replay runs/quickstart [--workdir=runs/quickstart-again] [--config.seed=1]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxvision import commands
from jaxvision.errors import WorkdirError
from jaxvision.machine.signals import INTERRUPTED


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 if the same came out, 1 if not, 75 if it was stopped."""
    parser = commands.new_parser("replay", "Run a finished run again and compare.", package="launch")
    parser.add_argument("run", type=commands.expanded, metavar="RUN", help="the workdir of the run")
    parser.add_argument(
        "--workdir",
        type=commands.expanded,
        metavar="DIR",
        help="of the replay; RUN-replay. The same command goes on in it",
    )
    commands.add_devices_flag(parser)
    flags, overrides = commands.parsed(parser, argv)
    return commands.status_of(lambda: start(flags, overrides), flags.traceback, terminated=INTERRUPTED)


def start(flags: argparse.Namespace, overrides: Mapping[str, str]) -> int:
    """Trains again and prints the verdict."""
    from jaxvision import run
    from jaxvision.run import devices, restore
    from launch import differences

    again = flags.workdir or flags.run.with_name(f"{flags.run.name}-replay")
    if again.resolve() == flags.run.resolve():
        raise WorkdirError(f"--workdir={again} is the run itself; a replay has a folder of its own")
    last = ended(flags.run)
    devices.keep_compilations()
    found = restore.restore(flags.run, overrides)
    recipe = restore.recipe(flags.run, overrides, ["python", "-m", "launch.replay", str(flags.run)])
    trained = run.train(found.experiment, again, recipe, fsdp=flags.fsdp, report=False)
    if trained.interrupted is not None:
        print(f"stopped by {trained.interrupted} at step {trained.step:,} of {last:,}; the same command goes on")
        return INTERRUPTED
    different = differences.between(flags.run, again)
    print("\n".join(verdict(different, last)))
    return 0 if same(different) else 1


def ended(folder: Path) -> int:
    """The last step of a run that has ended.

    Raises:
      WorkdirError: if it has not, or was forked from another run, which no replay begins with.
    """
    from jaxvision.run import hashes

    if not folder.is_dir():
        raise WorkdirError(f"there is no workdir {folder}")
    known = hashes.read(folder)
    if "last" not in known:
        raise WorkdirError(f"{folder} has not ended: its parameters.json has no hash of the last parameters")
    if list(folder.glob("config.*.json")) or "first" not in known:
        raise WorkdirError(f"{folder} went on from another run (--fork), with which a replay does not begin")
    return known["last"].step


def same(found: Sequence) -> bool:
    """Whether nothing that was computed differs."""
    return all(difference.is_cause for difference in found)


def verdict(found: Sequence, last: int) -> list[str]:
    """What to say of the replay."""
    computed = [difference for difference in found if not difference.is_cause]
    made_with = [difference for difference in found if difference.is_cause]
    head = "not the same" if computed else f"the same: parameters after step {last:,}, log and figures, bit for bit"
    lines = [head, *(f"  {difference.line()}" for difference in computed)]
    if made_with:
        lines += ["made with:", *(f"  {difference.line()}" for difference in made_with)]
    elif computed:
        lines += ["made with the same settings, code, data, packages and machine, as far as the workdirs say"]
    return lines


if __name__ == "__main__":
    commands.enter(main)
