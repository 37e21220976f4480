"""Annotations from one format into another, and what is lost on the way.

python -m jaxvision.annotate convert instances_val2017.json --output=labels --format=yolo
python -m jaxvision.annotate convert VOC2007 --output=voc.json --format=coco
python -m jaxvision.annotate convert labels --images=photos --output=tasks --format=label_studio --masks=polygons

The format of the source is recognised: COCO, VOC, YOLO, labelme, CVAT for images 1.1, or tasks of Label Studio. Images are
not copied. What is there already is refused, unless --replace says otherwise, and then, too, where it is of something else.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxvision import commands
from jaxvision.errors import DataError, printable, raised_as
from jaxvision.formats import converting
from jaxvision.formats.converting import Format, Masks
from jaxvision.formats.losses import told
from jaxvision.machine.output import result


class Flags(NamedTuple):
    """The command line."""

    source: Path
    output: Path
    format: Format
    images: Path | None
    masks: Masks | None
    replace: bool
    traceback: bool


def parse(argv: Sequence[str] | None) -> Flags:
    """The flags."""
    parser = commands.new_parser(
        "annotate convert",
        "Convert annotations from one format into another, and tell what is lost.",
        epilog="Exit status: 0 if it was written, whatever was lost; 2 if not.",
    )
    parser.add_argument(
        "source", type=commands.expanded, metavar="SOURCE", help="the dataset, its format is recognised"
    )
    add_output_flags(parser)
    parser.add_argument(
        "--images", type=commands.expanded, metavar="DIR", help="the folder of the images, where it is not found"
    )
    known = vars(commands.flags_of(parser, argv, intermixed=True))
    return Flags(format=Format(known.pop("format")), **known)


def add_output_flags(parser) -> None:
    """`--output`, `--format`, `--masks` and `--replace`, of a command that writes a dataset."""
    parser.add_argument(
        "--output",
        required=True,
        type=commands.expanded,
        metavar="PATH",
        help="to write: a file of COCO or CVAT, a folder of the others",
    )
    parser.add_argument("--format", required=True, choices=[str(each) for each in Format], help="the format to write")
    parser.add_argument(
        "--masks",
        choices=("rle", "polygons"),
        help="masks all as run lengths (rle), or as polygons where they have no hole; as they are unless given",
    )
    parser.add_argument("--replace", action="store_true", help="replace what is there, if it is of the format")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(argv)
    return commands.status_of(lambda: run(flags), flags.traceback)


def run(flags: Flags) -> int:
    """Converts, and tells what is lost; returns the exit status."""
    with raised_as(DataError):
        format, opened = converting.read(flags.source, flags.images)
        losses = converting.write(
            opened.dataset,
            flags.output,
            flags.format,
            replace=flags.replace,
            images=flags.images,
            masks=flags.masks,
        )
    source = f"{flags.source}: {converting.NAMES[format]}"
    not_read = [f"{source}, not read: {told(opened.left_out)}"] if opened.left_out else []
    result(printable("\n".join([*not_read, *converting.lines(flags.output, flags.format, opened.dataset, losses)])))
    return 0
