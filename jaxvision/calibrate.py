"""Calibration of a run: its scores become probabilities, fitted to held-out data, in a run of its own.

python -m jaxvision.calibrate --workdir=RUN --data=EVALUATION --method=temperature|platt|isotonic --output=NEW_RUN
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaxvision import commands
from jaxvision.errors import amount
from jaxvision.machine.output import result

if TYPE_CHECKING:
    from jaxvision.run.checkpoint import Which
    from jaxvision.train import Weights
    from jaxvision.trust.calibrated_run import Calibrated
    from jaxvision.trust.fitting import Method


class Flags(NamedTuple):
    """The command line."""

    workdir: Path
    overrides: dict[str, str]
    checkpoint: Which | None
    weights: Weights | None
    data: str
    method: Method
    per_class: bool
    fraction: float
    seed: int
    coverage: float | None
    output: Path
    fsdp: int
    traceback: bool


def parse(argv: Sequence[str] | None) -> Flags:
    """The flags."""
    parser = commands.new_parser(
        "calibrate",
        description="Fit a calibration to held-out data, and write a run with calibrated scores that evaluate, predict and "
        "all other commands read. What it was fitted on is left out where that run is evaluated.",
        epilog="--config.FIELD=VALUE sets a field of the run's config, for the data to fit on.",
    )
    commands.add_run_flags(parser)
    parser.add_argument("--data", required=True, metavar="EVALUATION", help="the evaluation whose data to fit on")
    parser.add_argument(
        "--method",
        required=True,
        choices=("temperature", "platt", "isotonic"),
        help="one number, a line of the logit, or any non-decreasing function",
    )
    parser.add_argument("--per-class", action="store_true", help="numbers for each class in place of one for all")
    parser.add_argument(
        "--fraction",
        type=commands.fraction,
        default=1.0,
        metavar="F",
        help="fit on this much of the data; all unless said",
    )
    parser.add_argument("--seed", type=commands.whole_number(0), default=0, metavar="N", help="of the choice of these")
    parser.add_argument(
        "--coverage",
        type=commands.fraction,
        metavar="C",
        help="find conformal sets of a classifier, too, which hold the true class with this probability",
    )
    parser.add_argument(
        "--output",
        required=True,
        type=commands.output_folder,
        metavar="NEW_RUN",
        help="the folder of the calibrated run",
    )
    flags, overrides = commands.parsed(parser, argv)
    return Flags(overrides=overrides, **vars(flags))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(argv)
    line = shlex.join(["python", "-m", "jaxvision.calibrate", *(sys.argv[1:] if argv is None else argv)])
    return commands.status_of(lambda: report(flags, line), flags.traceback)


def report(flags: Flags, line: str) -> int:
    """Calibrates as the command line asks; returns the exit status."""
    from jaxvision.run import devices
    from jaxvision.trust import calibrated_run, calibration_report

    devices.keep_compilations()
    commands.under_way(f"loading {flags.workdir}, then compiling: seconds to minutes")
    fitting = calibrated_run.Fitting(
        flags.data, flags.method, flags.per_class, flags.fraction, flags.seed, flags.coverage
    )
    made = calibrated_run.calibrate(
        flags.workdir,
        fitting,
        flags.output,
        flags.checkpoint,
        weights=flags.weights,
        overrides=flags.overrides,
        fsdp=flags.fsdp,
        command=shlex.split(line),
    )
    told = [*_said(made, flags), calibration_report.table(made)]
    if made.conformal is not None:
        told.append(calibration_report.coverage(made, flags.output / "report" / "conformal.json"))
    picture = calibration_report.draw(made, flags.output / "report" / "calibration.png")
    result("\n".join([*told, *([f"picture: {picture}"] if picture else [])]))
    return 0


def _said(made: Calibrated, flags: Flags) -> list[str]:
    fitted = (
        f"fitted to {amount(made.examples, 'example')} of {flags.data!r}, step {made.step:,}, {made.weights} weights"
    )
    return [f"{flags.output}: {flags.method}{', per class' if flags.per_class else ''}, {fitted}"]


if __name__ == "__main__":
    commands.enter(main)
