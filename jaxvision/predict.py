"""Predictions for image files, folders and videos, by the best or another checkpoint of a run.

python -m jaxvision.predict --workdir=runs/quickstart my_images clip.mp4 --output=predictions.csv
python -m jaxvision.predict --workdir=runs/detector my_images --output=objects.jsonl --score=0.5 --draw=drawn
"""

import argparse
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from jaxvision import commands
from jaxvision.data import loading, media
from jaxvision.errors import ConfigError, DataError, raised_as
from jaxvision.run import devices, drawn, records, restore
from jaxvision.run.checkpoint import Which
from jaxvision.run.devices import task_on
from jaxvision.run.records import Form, Record, Shown, Wanted, Where
from jaxvision.types import Batch, Canvas, Prediction


class Flags(NamedTuple):
    """The command line."""

    workdir: Path
    overrides: dict[str, str]
    paths: tuple[Path, ...]
    output: Path
    top: int
    score: float
    draw: Path | None
    checkpoint: Which | None
    evaluation: str | None
    batch_size: int | None
    every: int
    strict: bool
    fsdp: int
    traceback: bool


def parse(argv: list[str]) -> Flags:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxvision.predict",
        description="Predict the classes of images and of the frames of videos, or the objects in them, in the order given.",
        epilog="--config.FIELD=VALUE sets a field of the run's config.",
        allow_abbrev=False,
    )
    commands.add_run_flags(parser)
    parser.add_argument("paths", nargs="+", type=commands.expanded, metavar="PATH", help="image, video or folder")
    parser.add_argument("--output", required=True, type=_output, metavar="FILE", help="to write: .csv, .jsonl, .json")
    parser.add_argument("--top", type=_positive, default=5, metavar="K", help="how many classes to tell (5)")
    parser.add_argument(
        "--score", type=_share, default=0.3, metavar="T", help="leave out objects with a lower score (0.3)"
    )
    parser.add_argument("--draw", type=_folder, metavar="FOLDER", help="write images with the objects drawn there")
    parser.add_argument("--eval", metavar="NAME", help="see images as this evaluation does (the first that can)")
    parser.add_argument("--batch-size", type=_positive, metavar="N", help="images at once (as that evaluation)")
    parser.add_argument("--every", type=_positive, default=1, metavar="N", help="of a video, every Nth frame")
    parser.add_argument("--strict", action="store_true", help="end at the first file that can't be read")
    fields, rest = commands.split_overrides(argv, parser.error)
    known = vars(parser.parse_intermixed_args(rest))
    return Flags(overrides=fields, paths=tuple(known.pop("paths")), evaluation=known.pop("eval"), **known)


def _output(text: str) -> Path:
    path = commands.output(text)
    if path.suffix not in records.SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text!r} must end in {' or '.join(records.SUFFIXES)}")
    return path


def _folder(text: str) -> Path:
    path = commands.expanded(text)
    if not path.is_dir() and (path.exists() or not path.parent.is_dir()):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a folder nor one that can be made")
    return path


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no score; allowed is 0 to 1")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(list(sys.argv[1:] if argv is None else argv))
    return commands.status_of(lambda: run(flags), flags.traceback)


def run(flags: Flags) -> int:
    """Predicts as the command line asks; returns the exit status."""
    devices.keep_compilations()
    images, videos = count(flags.paths)
    with raised_as(ConfigError):
        mesh = devices.device_mesh(flags.fsdp)
    predictor = open_predictor(flags, mesh)
    originals = drawn.Originals(predictor.decode)
    total = None if videos else images
    faults: list[str] = []

    def complain(file: str, error: str) -> None:
        if flags.strict:
            raise DataError(f"{file}: {error}")
        faults.append(file)
        tqdm.write(f"jaxvision: skipped {file}: {error}", file=sys.stderr)

    decode = originals.decode if flags.draw else predictor.decode
    decoded = media.decoded(media.pictures(media.files(flags.paths), flags.every), decode)
    shown = tqdm(decoded, total=total, unit="image", dynamic_ncols=True, disable=None)
    rows = 0
    with records.written(flags.output) as file:
        with records.writer(flags.output.suffix, file, predictor.form, predictor.wanted) as write:
            for where, canvas, record in predictions(predictor, readable(shown, complain)):
                write(where, record)
                if flags.draw:
                    drawn.save(flags.draw, rows, where, originals.of(canvas), record)
                rows += 1
        if not rows:
            raise DataError(f"none of the {images + videos:,} files could be read")
    if faults:
        print(f"jaxvision: {len(faults):,} of {images + videos:,} files could not be read", file=sys.stderr)
    print(f"{flags.output}: {rows:,} predictions, by step {predictor.step:,} of {flags.workdir}")
    return 0


def count(paths: Sequence[Path]) -> tuple[int, int]:
    """How many images and how many videos there are.

    Raises:
      FileNotFoundError: if a path is not there.
      DataError: if there are none at all, or videos and nothing to read them.
    """
    images = videos = 0
    for path in media.files(paths):
        videos += media.is_video(path)
        images += not media.is_video(path)
    if not images + videos:
        known = ", ".join((*media.IMAGES, *media.VIDEOS))
        raise DataError(f"there is no image or video in {', '.join(map(str, paths))} (known are {known})")
    if videos:
        with raised_as(DataError):
            media.check_reader()
    return images, videos


class Predictor(NamedTuple):
    """A model, ready to predict."""

    predict: Callable[[Batch], Prediction]
    """From a batch on the host to predictions on the devices."""
    spec: Batch
    decode: Callable[[bytes | np.ndarray], Canvas]
    form: Form
    wanted: Wanted
    step: int
    """Of the checkpoint."""


def open_predictor(flags: Flags, mesh: Mesh) -> Predictor:
    """The model that the command line asks for, checked; opens no data where the workdir knows its classes."""
    found = restore.restore(flags.workdir, flags.overrides)
    task, name = task_on(mesh, found.experiment), chosen_evaluation(found, flags.evaluation)
    stream = found.experiment.evaluations[name].stream
    assert stream.decode is not None
    spec = stream.spec.replace(target=None)
    if flags.batch_size:
        spec = jax.tree.map(lambda x: jax.ShapeDtypeStruct((flags.batch_size, *x.shape[1:]), x.dtype), spec)
    with raised_as(DataError):
        devices.check_divisible(spec, mesh)
    classes = restore.class_names(found, f"evaluation {name}")
    saved = restore.load_checkpoint(found, flags.checkpoint, mesh)
    variables, place, jitted = saved.state.averaged, devices.placer(mesh), jax.jit(task.predict)
    form = records.form_of(jax.eval_shape(task.predict, variables, spec), classes)
    if not form.objects and (flags.draw or flags.output.suffix == ".json"):
        raise ConfigError("--draw and .json are for a model that finds objects; this one tells classes of whole images")
    wanted = Wanted(classes, min(flags.top, len(classes)), flags.score)
    return Predictor(lambda batch: jitted(variables, place(batch)), spec, stream.decode, form, wanted, saved.step)


def chosen_evaluation(run: restore.Restored, name: str | None) -> str:
    """The evaluation as which to see images: the one asked for, or the first that can.

    Raises:
      ConfigError: if there is none, or it can't.
    """
    restore.check_evaluations(run, [] if name is None else [name])
    able = [key for key, each in run.experiment.evaluations.items() if each.stream.decode is not None]
    if not able:
        raise ConfigError(f"{run.workdir.path} has no evaluation that can take other images")
    if name is not None and name not in able:
        raise ConfigError(f"evaluation {name!r} can't take other images; these can: {', '.join(able)}")
    return name or able[0]


def readable(decoded: Iterable[media.Decoded], complain: Callable[[str, str], None]) -> Iterator[tuple[Where, Canvas]]:
    """File and frame, and the canvas; of a file that can't be read `complain` is told, once."""
    last = None
    for file, frame, canvas, error in decoded:
        if canvas is not None:
            yield (file, frame), canvas
        elif file != last:
            last = file
            complain(file, error if frame is None else f"frame {frame}: {error}")


class Predicted(NamedTuple):
    """An image, and the record of its prediction."""

    where: Where
    canvas: Canvas
    record: Record


def predictions(predictor: Predictor, images: Iterable[tuple[Where, Canvas]]) -> Iterator[Predicted]:
    """Each image with its record, in order; two batches are under way, each of images whose canvas has one shape."""
    size, images = predictor.spec.image.shape[0], iter(images)
    waiting: deque[tuple[list[tuple[Where, Canvas]], Prediction]] = deque()

    def finished() -> Iterator[Predicted]:
        group, prediction = waiting.popleft()
        fetched = jax.device_get(prediction)
        for row, (where, canvas) in enumerate(group):
            yield Predicted(
                where,
                canvas,
                predictor.form.record(fetched, row, Shown(canvas.size, canvas.original_size), predictor.wanted),
            )

    first = 0
    for group in alike(images, size):
        batch = batch_of([canvas for _, canvas in group], predictor.spec, first)
        waiting.append((group, predictor.predict(batch)))
        first += len(group)
        if len(waiting) > 1:
            yield from finished()
    while waiting:
        yield from finished()


def alike(images: Iterable[tuple[Where, Canvas]], size: int) -> Iterator[list[tuple[Where, Canvas]]]:
    """The images in order, up to `size` together, as long as their canvases have one shape."""
    group: list[tuple[Where, Canvas]] = []
    for each in images:
        if len(group) == size or (group and group[0][1].image.shape != each[1].image.shape):
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def batch_of(canvases: Sequence[Canvas], spec: Batch, first: int) -> Batch:
    """The images as a batch, numbered from `first` on and padded; all canvases have the shape of the first."""
    height, width, channels = canvases[0].image.shape
    rows = loading.empty_rows(spec.image.shape[0], (height, width), channels)
    rows = rows._replace(given=jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), spec.given))
    for row, canvas in enumerate(canvases):
        rows.image[row], rows.size[row], rows.original_size[row] = canvas[:3]
        rows.valid[row], rows.index[row] = True, first + row
        for whole, one in zip(jax.tree.leaves(rows.given), jax.tree.leaves(canvas.given), strict=True):
            whole[row] = one[0]
    return loading.as_batch(rows).replace(target=None)


if __name__ == "__main__":
    commands.tell_errors_once()
    sys.exit(main())
