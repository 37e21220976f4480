"""Lighter models: a run with BatchNorm folded away, in 8-bit numbers, or pruned, as a run of its own.

python -m jaxvision.lighten --workdir=RUN --method=fold|int8|prune|prune_channels --output=NEW_RUN

Evaluate, predict and export read the new run as any other. Nothing in the workdir of the first is changed.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaxvision import commands
from jaxvision.errors import ConfigError
from jaxvision.machine.output import result

if TYPE_CHECKING:
    from jaxvision.run.checkpoint import Which
    from jaxvision.train import Weights
    from jaxvision.trust.lighter.lighter_run import Lightened


class Flags(NamedTuple):
    """The command line."""

    workdir: Path
    checkpoint: Which | None
    weights: Weights | None
    method: str
    options: dict[str, object]
    """Those of the method that were given."""
    evaluations: tuple[str, ...]
    output: Path
    fsdp: int
    traceback: bool


def parse(argv: Sequence[str] | None) -> Flags:
    """The flags."""
    parser = commands.new_parser(
        "lighten",
        description="Make a run lighter, and write it as a run of its own that evaluate, predict and export read. The "
        "metrics of both are printed.",
    )
    commands.add_run_flags(parser)
    parser.add_argument(
        "--method",
        required=True,
        metavar="NAME",
        help="fold: BatchNorm becomes a part of the convolution before it, for the same predictions; int8: an ONNX file in "
        "8-bit numbers, quantised after training; prune: the smallest weights become 0; prune_channels: the weakest channels "
        "of convolutions leave",
    )
    parser.add_argument(
        "--eval",
        type=commands.names,
        default=(),
        metavar="NAME,...",
        help="the evaluations whose metrics to compare; all unless said",
    )
    parser.add_argument(
        "--output", required=True, type=commands.output_folder, metavar="NEW_RUN", help="the folder of the lighter run"
    )
    options = parser.add_argument_group("options of a method")
    options.add_argument(
        "--images",
        type=commands.positive,
        metavar="N",
        help="int8: training images that the ranges of activations are taken from (256)",
    )
    options.add_argument("--sparsity", type=float, metavar="S", help="prune: fraction of zeros (0.8)")
    options.add_argument(
        "--globally",
        action="store_true",
        default=None,
        help="prune: the smallest weights of all arrays together (global pruning), in place of each array's",
    )
    options.add_argument("--keep", type=float, metavar="F", help="prune_channels: fraction of the channels (0.5)")
    options.add_argument(
        "--only",
        type=commands.names,
        metavar="PATTERN,...",
        help="prune, prune_channels: names of arrays, or paths of convolutions; all unless said",
    )
    options.add_argument(
        "--steps",
        type=commands.positive,
        metavar="N",
        help="prune, prune_channels: steps that the new run trains on (none)",
    )
    added = [each.dest for each in options._group_actions]
    known = vars(commands.flags_of(parser, argv))
    given = {name: value for name in added if (value := known.pop(name)) is not None}
    return Flags(options=given, evaluations=known.pop("eval"), **known)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(argv)
    line = shlex.join(["python", "-m", "jaxvision.lighten", *(sys.argv[1:] if argv is None else argv)])
    return commands.status_of(lambda: report(flags, line), flags.traceback)


def report(flags: Flags, line: str) -> int:
    """Makes the run lighter as the command line asks; returns the exit status."""
    from jaxvision.run import devices
    from jaxvision.trust.lighter import lighter_run

    if flags.fsdp != 1:
        raise ConfigError(f"--fsdp={flags.fsdp}: lighten takes parameters whole; allowed is 1")
    devices.keep_compilations()
    commands.under_way(f"loading {flags.workdir}, then compiling: seconds to minutes")
    done = lighter_run.lighten(
        flags.workdir,
        flags.method,
        flags.output,
        flags.options,
        flags.checkpoint,
        weights=flags.weights,
        evaluations=flags.evaluations,
        command=shlex.split(line),
    )
    said = f"{flags.output}: {flags.method}, of step {done.step:,}, {done.weights} weights"
    result("\n".join([said, *done.made.notes, *table(done)]))
    return 0


def table(done: Lightened) -> list[str]:
    """The metrics before and after, a line each, but for those of a class; `report/lighter.json` has all."""
    rows = [
        (f"{name}/{metric}", value, done.after[name][metric])
        for name, metrics in done.before.items()
        for metric, value in metrics.items()
        if "/" not in metric
    ]
    if not rows:
        return []
    wide = max(len(name) for name, *_ in rows)
    lines = [f"{name:<{wide}}  {before:>10.4f}  {after:>10.4f}" for name, before, after in rows]
    return [f"{'':<{wide}}  {'before':>10}  {'after':>10}", *lines]


if __name__ == "__main__":
    commands.enter(main)
