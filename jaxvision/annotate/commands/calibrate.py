"""`python -m jaxvision.annotate calibrate STORE --truth=FILE`: probabilities from scores, and what is promised of them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxvision import commands
from jaxvision.errors import DataError, printable, raised_as
from jaxvision.machine.output import result


class Flags(NamedTuple):
    """The command line."""

    store: Path
    truth: Path
    split: str | None
    precision: float
    confidence: float
    missed: float
    report: Path | None
    accept: bool
    traceback: bool


def parse(argv: Sequence[str] | None) -> Flags:
    """The flags."""
    parser = commands.new_parser(
        "annotate calibrate",
        description="Calibrate the probabilities of a store by checked images, and find which guesses need no look.",
        epilog="The checked images must be a random sample of those of the store, and all of their objects annotated.",
    )
    parser.add_argument("store", type=commands.expanded, metavar="STORE", help="the store, or the folder that has it")
    parser.add_argument(
        "--truth", required=True, type=commands.expanded, metavar="PATH", help="the checked images: COCO, VOC or YOLO"
    )
    parser.add_argument("--split", metavar="NAME", help="the split of the truth; all of them unless given")
    parser.add_argument(
        "--precision", type=_inside, default=0.9, metavar="P", help="accepted guesses are right in P (0.9)"
    )
    parser.add_argument("--confidence", type=_inside, default=0.9, metavar="C", help="with this probability (0.9)")
    parser.add_argument(
        "--missed",
        type=_inside,
        default=0.05,
        metavar="M",
        help="at most M of the objects are dropped, or not found in images that need no look (0.05)",
    )
    parser.add_argument(
        "--report", type=commands.output_folder, metavar="DIR", help="draw the reliability into this folder"
    )
    parser.add_argument(
        "--accept", action="store_true", help="accept and reject guesses, and images with nothing to review"
    )
    return Flags(**vars(commands.flags_of(parser, argv)))


def _inside(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed are numbers above 0 and below 1")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(argv)
    return commands.status_of(lambda: run(flags), flags.traceback)


def run(flags: Flags) -> int:
    """Calibrates the store, draws the report; returns the exit status: 1 if nothing could be promised."""
    from jaxvision.annotate import report, verdicts
    from jaxvision.annotate.promises import Promise
    from jaxvision.annotate.store import Store, file_of
    from jaxvision.formats import opening

    promise = Promise(flags.precision, flags.confidence, flags.missed)
    with Store(file_of(flags.store)) as store:
        with raised_as(DataError):
            truth = opening.open(flags.truth, flags.split)
        found, calibration, applied = verdicts.calibrate(store, truth, promise, accept=flags.accept)
    told = [*found.remarks, *report.lines(found.checked, calibration, applied)]
    if flags.report is not None:
        told.append(f"picture: {report.draw(flags.report, found.checked, calibration)}")
    result(printable("\n".join(told)))
    return 0 if any(zones.accept is not None for zones in calibration.zones) else 1
