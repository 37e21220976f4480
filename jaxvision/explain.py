"""Explanations: which pixels a prediction of a run comes from, by which method, and how far it can be believed.

python -m jaxvision.explain --workdir=runs/quickstart my_images --method=grad_cam --output=maps --check
python -m jaxvision.explain --workdir=runs/detector a.jpg --method=odam --detection=2 --output=maps
python -m jaxvision.explain --workdir=runs/detector a.jpg --method=odam --class=cat --box=20,30,90,110 --output=maps

Each image gets a picture of its map, the arrays (`.npz`), and its place on the page `index.html`. Of a classifier the best
class is explained, or `--class=`; of a semantic segmenter the pixels of a class; of a detector `--detection=`, counted from
1, the best first, or an object that it missed, by its box in pixels of the file and its class. `--check` makes the map once
more with randomised parameters, and says so when the method explains an untrained network as well as the trained one.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxvision import commands
from jaxvision.data import media
from jaxvision.errors import ConfigError, DataError, amount, raised_as
from jaxvision.run import devices, prediction
from jaxvision.run.checkpoint import Which
from jaxvision.train import Weights
from jaxvision.trust.explain import writing
from jaxvision.trust.explain.detections import SIDES
from jaxvision.trust.explain.explaining import METHODS, Asked


class Flags(NamedTuple):
    """The command line."""

    workdir: Path
    overrides: dict[str, str]
    paths: tuple[Path, ...]
    output: Path
    method: str
    asked: Asked
    check: bool
    checkpoint: Which | None
    weights: Weights | None
    evaluation: str | None
    fsdp: int
    traceback: bool


def parse(argv: Sequence[str] | None) -> Flags:
    """The flags."""
    parser = commands.new_parser(
        "explain",
        description="Explain predictions: which pixels each comes from, as pictures, arrays and a page.",
        epilog="--config.FIELD=VALUE sets a field of the run's config.",
    )
    commands.add_run_flags(parser)
    parser.add_argument("paths", nargs="+", type=commands.expanded, metavar="IMAGE", help="image or folder")
    parser.add_argument("--method", required=True, choices=tuple(METHODS), metavar="NAME", help=", ".join(METHODS))
    parser.add_argument(
        "--output", required=True, type=commands.output_folder, metavar="DIR", help="folder to write into"
    )
    parser.add_argument(
        "--detection", type=commands.positive, metavar="K", help="of a detector, this detection (1, the best)"
    )
    parser.add_argument("--class", dest="label", metavar="NAME", help="class (the best of a classifier)")
    parser.add_argument(
        "--box", type=_box, metavar="X0,Y0,X1,Y1", help="an object that the detector missed, with --class="
    )
    parser.add_argument("--side", choices=SIDES, help="a side of the box, in place of the score")
    parser.add_argument("--layer", metavar="PATH", help="layer of grad_cam, grad_cam_plus_plus and odam (the last map)")
    parser.add_argument(
        "--masks", type=commands.positive, default=500, metavar="N", help="masks of rise and d_rise (500)"
    )
    parser.add_argument("--seed", type=commands.whole_number(0), default=0, metavar="N", help="of masks and noise (0)")
    parser.add_argument("--check", action="store_true", help="compare with the map of randomised parameters")
    parser.add_argument("--eval", metavar="NAME", help="see images as this evaluation does (the first that can)")
    flags, overrides = commands.parsed(parser, argv, intermixed=True)
    known: dict[str, Any] = vars(flags)
    if known["detection"] and (known["box"] or known["label"]):
        parser.error("--detection= names an object of itself: --class= and --box= are for another")
    asked = Asked(known.pop("detection") or 1, *(known.pop(name) for name in Asked._fields[1:]))
    return Flags(
        overrides=overrides, asked=asked, evaluation=known.pop("eval"), paths=tuple(known.pop("paths")), **known
    )


def _box(text: str) -> tuple[float, ...]:
    """The box that a flag gives. Raises argparse.ArgumentTypeError for anything else."""
    try:
        x0, y0, x1, y1 = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no box X0,Y0,X1,Y1: four numbers") from None
    if not (x0 < x1 and y0 < y1):
        raise argparse.ArgumentTypeError(f"{text!r} is an empty box: X0 < X1 and Y0 < Y1 are needed")
    return x0, y0, x1, y1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(argv)
    return commands.status_of(lambda: write(flags), flags.traceback)


def write(flags: Flags) -> int:
    """Explains as the command line asks; returns the exit status."""
    devices.keep_compilations()
    with raised_as(ConfigError):
        media.check_outside(flags.output, flags.paths)
    found = media.survey(flags.paths)
    if not found.images:
        raise DataError(f"there is no image in {', '.join(map(str, flags.paths))}")
    model = prediction.load(
        flags.workdir,
        flags.checkpoint,
        weights=flags.weights,
        evaluation=flags.evaluation,
        overrides=flags.overrides,
        fsdp=flags.fsdp,
    )
    written, without = [], []
    for where, canvas, each in writing.explanations(model, flags.paths, flags.method, flags.asked, check=flags.check):
        if isinstance(each, ConfigError):
            without.append(f"{where[0]}: {each}")
            continue
        written.append(writing.write(flags.output, len(written), where, canvas, each, flags.method))
        print(commands.one_line(f"{where[0]}: {'; '.join(written[-1].lines)}"), flush=True)
    if written:
        for line in writing.summary(written):
            print(commands.one_line(line))
        page = writing.write_page(flags.output, written, flags.method, str(flags.workdir))
        print(f"{page}: {amount(len(written), 'image')}")
    if without:
        of = f"{len(without)} of {amount(len(written) + len(without), 'image')}"
        raise ConfigError(f"{of} without an explanation, the first is {without[0]}")
    return 0


if __name__ == "__main__":
    commands.enter(main)
