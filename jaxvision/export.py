"""Export of a run's model, with its preprocessing, into files that other programs run without this package.

python -m jaxvision.export --workdir=runs/quickstart --output=exported
python -m jaxvision.export --workdir=runs/quickstart --format=stablehlo,onnx,savedmodel,tflite --output=exported

The folder holds a file a format, a loader beside each that needs the format's runtime and NumPy, `example.npz`, images with
what the model finds in them, and `manifest.json`: classes, canvas, where images come to lie on it, inputs and outputs, the
checkpoint's hash, versions. A model takes uint8 canvases and the size of what they show, and gives decoded predictions.
Every file is run again in a fresh process and compared before the folder takes its name; an earlier export there is
replaced. `python exported/load_stablehlo.py` runs the example anywhere. Nothing in the workdir is changed.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxvision import commands
from jaxvision.errors import amount, nearest
from jaxvision.run import devices, prediction
from jaxvision.run.checkpoint import Which
from jaxvision.train import Weights
from jaxvision.trust.export import writing
from jaxvision.trust.export.formats import FORMATS


class Flags(NamedTuple):
    """The command line."""

    workdir: Path
    overrides: dict[str, str]
    output: Path
    format: tuple[str, ...]
    checkpoint: Which | None
    weights: Weights | None
    evaluation: str | None
    fsdp: int
    traceback: bool
    command: str


def formats(text: str) -> tuple[str, ...]:
    """The formats that a flag gives, each once.

    Raises:
      argparse.ArgumentTypeError: for one that is not known.
    """
    found = tuple(dict.fromkeys(commands.names(text)))
    for name in found:
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"{name!r} is no format{nearest(name, list(FORMATS))}")
    return found


def parse(argv: Sequence[str] | None) -> Flags:
    """The flags."""
    parser = commands.new_parser(
        "export",
        description="Write the model of a run, with its preprocessing, as files that run without this package.",
        epilog="--config.FIELD=VALUE sets a field of the run's config.",
    )
    commands.add_run_flags(parser)
    parser.add_argument(
        "--output", required=True, type=commands.output_folder, metavar="DIR", help="the folder to write, or replace"
    )
    parser.add_argument(
        "--format",
        type=formats,
        default=("stablehlo",),
        metavar="NAME,...",
        help=f"formats, with commas between: {', '.join(FORMATS)} (stablehlo)",
    )
    parser.add_argument("--eval", metavar="NAME", help="see images as this evaluation does (the first that can)")
    flags, overrides = commands.parsed(parser, argv)
    known = vars(flags)
    given = sys.argv[1:] if argv is None else argv
    command = shlex.join(["python", "-m", "jaxvision.export", *given])
    return Flags(overrides=overrides, evaluation=known.pop("eval"), command=command, **known)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(argv)
    return commands.status_of(lambda: run(flags), flags.traceback)


def run(flags: Flags) -> int:
    """Exports as the command line asks; returns the exit status."""
    devices.keep_compilations()
    writing.check_free(flags.output)
    model = prediction.load(
        flags.workdir,
        flags.checkpoint,
        weights=flags.weights,
        evaluation=flags.evaluation,
        overrides=flags.overrides,
        batch_size=None,
        fsdp=flags.fsdp,
    )
    commands.under_way(f"exporting as {', '.join(flags.format)}; each file is then run in a fresh process")
    manifest = writing.export(model, flags.output, flags.format, flags.command)
    for each in manifest["formats"].values():
        most = max(each["differences"].values())
        size = sum(path.stat().st_size for path in flags.output.rglob("*") if each["file"] in path.parts)
        apart = "equal to the model's" if not most else f"within {most:.1e} of the model's"
        print(f"{flags.output / each['file']}: {amount(size, 'byte')}; run in a fresh process, its answers are {apart}")
    return 0


if __name__ == "__main__":
    commands.enter(main)
