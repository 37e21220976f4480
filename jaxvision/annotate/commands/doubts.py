"""Objects of an annotated dataset that are probably wrong, ranked one by one.

python -m jaxvision.annotate doubts my_dataset --workdir=runs/fold0 --workdir=runs/fold1 --output=doubts.csv --draw=doubts
python -m jaxvision.annotate doubts train.json --predictions=fold0.jsonl --predictions=fold1.jsonl --output=doubts.jsonl

Missing, misplaced, misnamed, spurious: by predictions of models that were not trained on the images, or they would repeat
the mistakes. Of several `--workdir` the first predicts the images of fold 0, and was trained on the others
(`annotate.folds.rest(source, 0, 2)` in its experiment), and so on; a single one predicts all images. `--predictions` are
files of `python -m jaxvision.predict --output=FILE --score=0.05`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxvision import commands


class Flags(NamedTuple):
    """The command line."""

    dataset: Path
    split: str | None
    images: Path | None
    workdir: tuple[str, ...]
    predictions: tuple[Path, ...]
    output: Path
    draw: Path | None
    first: int
    score: float
    traceback: bool


def parse(argv: Sequence[str] | None) -> Flags:
    """The flags."""
    parser = commands.new_parser("annotate doubts", "Rank the objects of a dataset by how likely they are wrong.")
    parser.add_argument("dataset", type=commands.expanded, metavar="DATASET", help="COCO, VOC or YOLO, file or folder")
    parser.add_argument("--split", metavar="NAME", help="the split of the dataset (all of it)")
    parser.add_argument("--images", type=commands.expanded, metavar="DIR", help="folder of a COCO file's images")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", action="append", default=[], metavar="RUN", help="run, the k-th one for fold k")
    source.add_argument(
        "--predictions", action="append", default=[], type=commands.expanded, metavar="FILE", help=".jsonl or .json"
    )
    parser.add_argument(
        "--output",
        required=True,
        type=commands.output_ending(".csv", ".jsonl"),
        metavar="FILE",
        help="table to write: .csv or .jsonl",
    )
    parser.add_argument("--draw", type=commands.output_folder, metavar="DIR", help="draw the first doubts into it")
    parser.add_argument("--first", type=commands.positive, default=50, metavar="N", help="how many to draw (50)")
    parser.add_argument(
        "--score", type=commands.fraction, default=0.05, metavar="T", help="lowest score of a prediction (0.05)"
    )
    known = vars(commands.flags_of(parser, argv, intermixed=True))
    known |= {name: tuple(known[name]) for name in ("workdir", "predictions")}
    return Flags(**known)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(argv)
    return commands.status_of(lambda: run(flags), flags.traceback)


def run(flags: Flags) -> int:
    """Writes the table and the pictures; returns the exit status, 1 where an image could not be used."""
    from jaxvision.annotate import doubt_report

    report = doubt_report.write(
        flags.dataset,
        flags.output,
        split=flags.split,
        images=flags.images,
        workdirs=flags.workdir,
        predictions=flags.predictions,
        score=flags.score,
        folder=flags.draw,
        first=flags.first,
        complain=lambda text: print(commands.one_line(f"jaxvision: {text}"), file=sys.stderr),
    )
    print(f"{flags.output}: {report.text}")
    return 1 if report.faulty else 0
