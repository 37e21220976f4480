"""What a store holds as a dataset: COCO, VOC, YOLO, labelme, CVAT or Label Studio, and what the format has no place for.

python -m jaxvision.annotate export labels --output=reviewed.json --format=coco --state=reviewed
python -m jaxvision.annotate export labels/annotations.sqlite --output=yolo --format=yolo --least-probability=0.8

Rejected objects are left out, and images that can't be read; images without objects are not. What a person touched, and what
stands in a reviewed image, is written whatever its score. The same records make the same files, byte for byte.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxvision import commands
from jaxvision.annotate import exporting
from jaxvision.annotate.commands.convert import add_output_flags
from jaxvision.annotate.exporting import STATES, Wanted
from jaxvision.annotate.records import State
from jaxvision.errors import DataError, nearest, printable, raised_as
from jaxvision.formats.converting import Format, Masks
from jaxvision.machine.output import result


class Flags(NamedTuple):
    """The command line."""

    store: Path
    output: Path
    format: Format
    state: tuple[State, ...]
    least_score: float
    least_probability: float
    masks: Masks | None
    replace: bool
    traceback: bool


def parse(argv: Sequence[str] | None) -> Flags:
    """The flags."""
    parser = commands.new_parser(
        "annotate export",
        "Write what a store holds as a dataset, and tell what is lost.",
        epilog="Exit status: 0 if it was written, whatever was lost; 2 if not.",
    )
    parser.add_argument("store", type=commands.expanded, metavar="STORE", help="the store, or the folder it is in")
    add_output_flags(parser)
    parser.add_argument(
        "--state",
        type=_states,
        default=STATES,
        metavar="A,B",
        help=f"images in these states: {', '.join(STATES)} (all)",
    )
    parser.add_argument(
        "--least-score",
        type=commands.fraction,
        default=0.0,
        metavar="T",
        help="leave out guesses with a lower score (0)",
    )
    parser.add_argument(
        "--least-probability",
        type=commands.fraction,
        default=0.0,
        metavar="P",
        help="leave out guesses with a lower calibrated probability, above 0 also those without one (0)",
    )
    known = vars(commands.flags_of(parser, argv, intermixed=True))
    return Flags(format=Format(known.pop("format")), **known)


def _states(text: str) -> tuple[State, ...]:
    names = [each.strip() for each in text.split(",")]
    for name in names:
        if name not in STATES:
            raise argparse.ArgumentTypeError(f"{name!r} is no state{nearest(name, STATES)}")
    return tuple(state for state in STATES if state in names)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(argv)
    return commands.status_of(lambda: run(flags), flags.traceback)


def run(flags: Flags) -> int:
    """Exports, and tells what is lost; returns the exit status."""
    wanted = Wanted(flags.state, flags.least_score, flags.least_probability)
    with raised_as(DataError):
        found = exporting.export(
            flags.store, flags.output, flags.format, wanted, replace=flags.replace, masks=flags.masks
        )
    result(printable("\n".join(exporting.lines(flags.store, flags.output, flags.format, found))))
    return 0
