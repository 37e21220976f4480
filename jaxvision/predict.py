"""Predictions for image files, folders and videos, by the best or another checkpoint of a run.

python -m jaxvision.predict --workdir=runs/quickstart my_images clip.mp4 --output=predictions.csv
python -m jaxvision.predict --workdir=runs/detector my_images --output=objects.jsonl --score=0.5 --draw=pictures
python -m jaxvision.predict --workdir=runs/detector large_images --output=objects.jsonl --tiles=512 --tile-overlap=128
python -m jaxvision.predict --workdir=runs/segmenter my_images --output=classes.jsonl --maps=maps

A file or frame is a row, in the order of the input, in bounded memory: of a classifier the best classes with their
probabilities, of a detector the label, score and box (x0 y0 x1 y1 in pixels of the file) of every object and, but in `.csv`,
its mask where there is one, as COCO's run lengths or polygons; of a semantic segmenter the pixels of each class. `--maps`
writes the class of each pixel as PNG with a palette, labels counted from 0, or the segments as COCO's panoptic PNG. In
`.csv` an object is a row, and a name that a spreadsheet would run as a formula has an apostrophe before it; `.json` is laid
out as COCO's annotations, with scores; its image ids are numbers of its own: match them by `file_name`, classes by `name`.
`--draw` draws what is predicted, on images and, of a video, on its frames, as a video. A classifier that
was calibrated with a coverage writes the `set` of classes, too.
Images are prepared as the evaluation does it; a detector on given regions searches each file first. With `--tiles=` a large
file, up to 178 million pixels, is cut into overlapping squares of so many of its pixels, each prepared as an image of its
own, and objects that a seam cuts are put together: choose a size at which objects look as large as in training. What can't
be read is named, and left out. Nothing in the workdir is changed.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from tqdm import tqdm

from jaxvision import commands
from jaxvision.data import media
from jaxvision.errors import ConfigError, DataError, amount, raised_as, replacing
from jaxvision.experiment import Selection
from jaxvision.run import devices, films, pictures, prediction, records
from jaxvision.run.checkpoint import Which
from jaxvision.run.prediction import Model
from jaxvision.run.tiles import Tiling, checked
from jaxvision.train import Weights


class Flags(NamedTuple):
    """The command line."""

    workdir: Path
    overrides: dict[str, str]
    paths: tuple[Path, ...]
    output: Path
    top: int
    score: float
    draw: Path | None
    maps: Path | None
    masks: Literal["rle", "polygons"]
    checkpoint: Which | None
    weights: Weights | None
    evaluation: str | None
    batch_size: int | None
    every: int
    animated: bool
    tiling: Tiling | None
    strict: bool
    fsdp: int
    traceback: bool


def parse(argv: Sequence[str] | None) -> Flags:
    """The flags."""
    parser = commands.new_parser(
        "predict",
        description="Predict the classes of images and of the frames of videos, or the objects in them, in the order given.",
        epilog="--config.FIELD=VALUE sets a field of the run's config. Videos need the extra video.",
    )
    commands.add_run_flags(parser)
    parser.add_argument("paths", nargs="+", type=commands.expanded, metavar="PATH", help="image, video or folder")
    parser.add_argument(
        "--output",
        required=True,
        type=commands.output_ending(*records.SUFFIXES),
        metavar="FILE",
        help="to write, or replace: .csv, .jsonl, .json (COCO's)",
    )
    parser.add_argument(
        "--top", type=commands.positive, default=5, metavar="K", help="classes of a classifier, best first (5)"
    )
    parser.add_argument(
        "--score", type=commands.fraction, default=0.3, metavar="T", help="leave out objects with a lower score (0.3)"
    )
    parser.add_argument(
        "--draw",
        type=commands.output_folder,
        metavar="FOLDER",
        help="write the images with what is predicted drawn on them into this folder, and videos as videos",
    )
    parser.add_argument(
        "--maps",
        type=commands.output_folder,
        metavar="FOLDER",
        help="write the class or the segment of each pixel into this folder, a PNG an image",
    )
    parser.add_argument(
        "--masks",
        choices=("rle", "polygons"),
        default="rle",
        help="masks of objects as run lengths (rle), or as polygons where they have no hole",
    )
    parser.add_argument("--eval", metavar="NAME", help="see images as this evaluation does (the first that can)")
    parser.add_argument("--batch-size", type=commands.positive, metavar="N", help="images at once (as that evaluation)")
    parser.add_argument("--every", type=commands.positive, default=1, metavar="N", help="of a video, every Nth frame")
    parser.add_argument(
        "--animated", action="store_true", help="take the frames of animated GIF and WebP files, not only the first"
    )
    parser.add_argument(
        "--tiles", type=commands.positive, metavar="SIZE", help="cut images into squares of SIZE pixels"
    )
    parser.add_argument(
        "--tile-overlap",
        type=commands.whole_number(0),
        metavar="N",
        help="pixels that neighbouring tiles share (a quarter of SIZE)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="end at the first unreadable file, instead of leaving it out"
    )
    flags, overrides = commands.parsed(parser, argv, intermixed=True)
    known = vars(flags)
    tiling = _tiling(parser, known.pop("tiles"), known.pop("tile_overlap"))
    paths, evaluation = tuple(known.pop("paths")), known.pop("eval")
    return Flags(overrides=overrides, paths=paths, evaluation=evaluation, tiling=tiling, **known)


def _tiling(parser: argparse.ArgumentParser, size: int | None, overlap: int | None) -> Tiling | None:
    if size is None and overlap is not None:
        parser.error("--tile-overlap= needs --tiles=")
    try:
        return None if size is None else checked(size, overlap)
    except ConfigError as error:
        parser.error(f"--tiles= --tile-overlap=: {error}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(argv)
    return commands.status_of(lambda: write(flags), flags.traceback)


def write(flags: Flags) -> int:
    """Predicts as the command line asks; returns the exit status."""
    devices.keep_compilations()
    if flags.masks == "polygons" and flags.output.suffix == ".csv":
        raise ConfigError("--masks=polygons is for .jsonl and .json; a table has no masks")
    for folder in filter(None, (flags.draw, flags.maps)):
        with raised_as(ConfigError):
            media.check_outside(folder, flags.paths)
    found = survey(flags.paths)
    commands.under_way(f"loading {flags.workdir}; the first images wait for compiling, seconds to minutes")
    model = prediction.load(
        flags.workdir,
        flags.checkpoint,
        weights=flags.weights,
        evaluation=flags.evaluation,
        overrides=flags.overrides,
        batch_size=flags.batch_size,
        fsdp=flags.fsdp,
    )
    records.check_suffix(flags.output.suffix, model.output)
    if flags.draw and model.output.draw is None:
        raise ConfigError("--draw is for a model whose predictions can be drawn on an image, such as objects")
    if flags.maps and model.output.map is None:
        raise ConfigError("--maps is for a model that finds the class or the segment of each pixel")
    complain = Complaints(flags.strict)
    rows = written(flags, model, complain, None if found.videos or flags.animated else found.images)
    if complain.files:
        count = found.images + found.videos
        print(f"jaxvision: {len(complain.files):,} of {amount(count, 'file')} could not be read", file=sys.stderr)
    of = (
        str(flags.workdir) if model.step is None else f"step {model.step:,} of {flags.workdir}, {model.weights} weights"
    )
    print(f"{flags.output}: {amount(rows, 'prediction')}, by {of}")
    return 0


class Complaints:
    """Notes the files that can't be read and says why; ends at the first where `strict`."""

    def __init__(self, strict: bool):
        self.strict, self.files = strict, []

    def __call__(self, file: str, error: str) -> None:
        """Hears of a file. Raises DataError where `strict`."""
        if self.strict:
            raise DataError(f"{file}: {error}")
        self.files.append(file)
        tqdm.write(commands.one_line(f"jaxvision: skipped {file}: {error}"), file=sys.stderr)

    @contextmanager
    def of_picture(self, file: str) -> Iterator[None]:
        """Hears where a picture can't be drawn or written; its prediction stays. Raises DataError where `strict`."""
        try:
            yield
        except (OSError, ValueError, MemoryError) as error:
            text = str(error) or type(error).__name__
            if self.strict:
                raise DataError(f"{file}: it could not be drawn: {text}") from error
            tqdm.write(commands.one_line(f"jaxvision: not drawn {file}: {text}"), file=sys.stderr)


def written(flags: Flags, model: Model, complain: Complaints, total: int | None) -> int:
    """How many predictions were written into the file and, where that is asked for, pictures.

    Raises:
      DataError: if there were none; the file is then as it was.
    """
    selection = Selection(model.classes, flags.top, flags.score, flags.masks == "polygons")
    decode = model.decoder(flags.tiling)
    originals, draw = pictures.Originals(decode), model.output.draw if flags.draw else None
    found = media.pictures(media.files(flags.paths), flags.every, flags.animated)
    threads = 1 if flags.tiling else None
    decoded = media.decoded(found, decode if draw is None else originals.decode, threads)
    shown = tqdm(decoded, total=total, unit="image", dynamic_ncols=True, disable=None)
    rows = 0
    with (
        replacing(flags.output) as partial,
        partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        records.writer(flags.output.suffix, file, model.output, selection) as write,
        films.Album(flags.draw or Path(), flags.every) as album,
    ):
        images = prediction.readable(shown, complain)
        for where, canvas, record in model.stream(images, selection, tiling=flags.tiling):
            if flags.maps and model.output.map is not None:
                with complain.of_picture(where[0]):
                    map = model.output.map(record, selection)
                    record["map"] = pictures.save_map(flags.maps, rows, where, map)
            write(where, canvas.original_size, record)
            if flags.draw and draw is not None:
                data = originals.of(canvas)
                with complain.of_picture(where[0]):
                    album.add(rows, where, pictures.picture(data, canvas, record, draw))
            rows += 1
        if not rows:
            raise DataError(f"none of the files could be read ({len(list(media.files(flags.paths))):,})")
    return rows


def survey(paths: Sequence[Path]) -> media.Survey:
    """What there is to predict; says what is left out.

    Raises:
      FileNotFoundError: if a path is not there.
      DataError: if there is nothing at all, or there are videos and nothing to read them.
    """
    found = media.survey(paths)
    if not found.images + found.videos:
        others = f"; {found.left_out}" if found.left_out else ""
        raise DataError(
            f"there is no image or video in {', '.join(map(str, paths))} (known are {', '.join(media.KNOWN)}){others}"
        )
    if found.left_out:
        print(commands.one_line(f"jaxvision: {found.left_out}"), file=sys.stderr)
    if found.videos:
        with raised_as(DataError):
            media.check_reader()
    return found


if __name__ == "__main__":
    commands.enter(main)
