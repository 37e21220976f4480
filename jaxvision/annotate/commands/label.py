"""Objects, masks and attributes for a folder of images, by one or more models, kept in a store that people review.

python -m jaxvision.annotate label --images=photos --output=labels --weights=yolov3_tiny --masks=u2netp --attributes=colour
python -m jaxvision.annotate label --images=photos --output=labels --workdir=runs/detector --workdir=runs/other --tta
python -m jaxvision.annotate label --images=photos --output=labels --workdir=runs/detector --worker=0/4

Models are runs and published weights, of any task: detectors, segmenters of objects and of classes, classifiers. What several
find of one object is fused by weighted boxes. OUTPUT holds the store, annotations.sqlite, and summary.json; a run that was
stopped goes on where it was, and a later one replaces what models found, never what a person touched. Each worker has a store
of its own; the same command without --worker= then takes them over. Exit status 1 says that a file could not be labelled; all
others are.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from jaxvision import commands
from jaxvision.annotate.labelling import STORE, file_name, label
from jaxvision.annotate.listing import ALONE, Worker, worker
from jaxvision.annotate.streaming import Progress
from jaxvision.annotate.vocabulary import read_map
from jaxvision.run import devices
from jaxvision.run.tiles import Tiling, checked

SIZE = commands.whole_number(1, 65_535)
"""Reads how many pixels a tile has a side, or how many images a batch has."""


class Flags(NamedTuple):
    """The command line."""

    images: Path
    output: Path
    models: tuple[str, ...]
    masks: str | None
    attributes: tuple[str, ...]
    tta: bool
    tiles: Tiling | None
    score: float
    renamed: Mapping[str, str] | None
    classes: tuple[str, ...] | None
    batch_size: int | None
    worker: Worker
    redo: bool
    traceback: bool


def parse(argv: Sequence[str] | None) -> Flags:
    """The flags."""
    parser = commands.new_parser(
        "annotate label",
        "Label the images of a folder by one or more models.",
        epilog="Attributes: colour, shape, text (extra text). Names are paths below the folder of the images.",
    )
    folder = {"type": commands.expanded, "metavar": "DIR"}
    parser.add_argument("--images", required=True, action="append", help="the folder of the images", **folder)
    parser.add_argument(
        "--output",
        required=True,
        type=commands.output_folder,
        metavar="DIR",
        help="a folder outside of it, for the store and the summary",
    )
    _add_model_flags(parser)
    parser.add_argument(
        "--score", type=commands.fraction, default=0.3, metavar="T", help="leave out what is found below it (0.3)"
    )
    parser.add_argument(
        "--map",
        dest="renamed",
        type=commands.read_by(read_map),
        metavar="FILE|CLASS=CLASS,...",
        help="new names of classes, a JSON object or pairs; an empty one leaves a class out",
    )
    parser.add_argument("--classes", type=commands.names, metavar="CLASS,...", help="the classes to write (all)")
    parser.add_argument("--batch-size", type=SIZE, metavar="N", help="images at once (as the run's evaluation)")
    parser.add_argument(
        "--worker",
        type=commands.read_by(worker),
        default=ALONE,
        metavar="K/N",
        help="label the K-th of N parts, from 0/N on",
    )
    parser.add_argument(
        "--redo", action="store_true", help="label all anew, what a person touched too; copies the store before"
    )
    known = vars(commands.flags_of(parser, argv))
    images = known.pop("images")
    if len(images) > 1:
        parser.error(
            "--images= is given twice; allowed is one folder: name one that holds all, links in it are followed"
        )
    if not known["models"]:
        parser.error("name a model: --workdir=RUN or --weights=NAME")
    return Flags(images=images[0], models=tuple(known.pop("models")), **known)


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the models, and of what they are shown."""
    model = {"action": "append", "dest": "models", "default": []}
    parser.add_argument("--workdir", metavar="RUN", help="the folder of a run; again for each further model", **model)
    parser.add_argument(
        "--weights", metavar="NAME", help="published weights, such as ssd_mobilenet_v2; again for further ones", **model
    )
    parser.add_argument("--masks", metavar="NAME", help="cut objects without a mask out by this network: u2netp")
    parser.add_argument(
        "--attributes",
        type=commands.names,
        default=(),
        metavar="NAME,...",
        help="colour, shape, text, or the folder of a run that learned attributes",
    )
    parser.add_argument("--tta", action="store_true", help="show each model the images mirrored, too, and fuse")
    parser.add_argument(
        "--tiles",
        type=commands.read_by(_tiles),
        metavar="SIZE",
        help="cut images into overlapping squares of SIZE pixels",
    )


def _tiles(text: str) -> Tiling:
    return checked(SIZE(text))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(argv)
    return commands.status_of(lambda: write(flags), flags.traceback)


def write(flags: Flags) -> int:
    """Labels as the command line asks; returns the exit status."""
    devices.keep_compilations()
    with shown() as started:
        told = label(
            flags.images,
            flags.output,
            flags.models,
            masks=flags.masks,
            attributes=flags.attributes,
            tta=flags.tta,
            tiling=flags.tiles,
            score=flags.score,
            renamed=flags.renamed,
            classes=flags.classes,
            batch_size=flags.batch_size,
            worker=flags.worker,
            redo=flags.redo,
            started=started,
        )
    print(f"{flags.output / file_name(STORE, '.sqlite', flags.worker)}:")
    print("\n".join(told.lines()))
    return told.status


@contextmanager
def shown() -> Iterator:
    """A bar of progress, with images a second and the time left; gone at the end."""
    bars: list[tqdm] = []

    def started(total: int) -> Progress:
        bars.append(tqdm(total=total, unit="image", dynamic_ncols=True, disable=None))
        return bars[0].update

    try:
        yield started
    finally:
        for bar in bars:
            bar.close()
