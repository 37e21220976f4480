"""Shows what the augmentation of an experiment does: a sheet with an image a row, as it is and as it is augmented.

python -m jaxvision.augmented --config=experiments/cifar10_resnet18.py --output=sheet.png [my_images ...]
"""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxvision import commands
from jaxvision.data import loading, media, placement, samples
from jaxvision.data.decode import decode
from jaxvision.draw.batch import examples_of, examples_sheet
from jaxvision.draw.figure import save
from jaxvision.errors import ConfigError, DataError, amount, raised_as
from jaxvision.experiment import Experiment
from jaxvision.run import config, devices
from jaxvision.types import Augment, Batch, ClassScores, Labels


class Flags(NamedTuple):
    """The command line."""

    config: Path
    overrides: dict[str, str]
    paths: tuple[Path, ...]
    train: bool
    output: Path
    rows: int
    columns: int
    seed: int
    traceback: bool


def parse(argv: Sequence[str] | None) -> Flags:
    """The flags."""
    parser = commands.new_parser(
        "augmented",
        description="Draw what the augmentation of an experiment makes of images: one a row, the first as it is.",
        epilog="Without PATH and --train, photographs that come with the package. --config.FIELD=VALUE sets a field.",
    )
    commands.add_config_flag(parser)
    parser.add_argument("paths", nargs="*", type=commands.expanded, metavar="PATH", help="image, video or folder")
    parser.add_argument("--train", action="store_true", help="show the training data, with what they are labelled with")
    parser.add_argument(
        "--output",
        required=True,
        type=commands.output_ending(".png", any_case=True),
        metavar="FILE",
        help="to write: .png",
    )
    parser.add_argument("--rows", type=int, default=5, metavar="N", help="images, at most (5)")
    parser.add_argument("--columns", type=int, default=8, metavar="N", help="pictures of each, the first as it is (8)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="other random numbers")
    flags, overrides = commands.parsed(parser, argv, intermixed=True)
    known = vars(flags)
    if known["rows"] < 1 or known["columns"] < 2:
        parser.error(f"--rows={known['rows']}, --columns={known['columns']}: allowed are 1 or more, and 2 or more")
    if known["train"] and known["paths"]:
        parser.error("--train shows the training data; leave out the paths")
    return Flags(overrides=overrides, paths=tuple(known.pop("paths")), **known)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(argv)
    return commands.status_of(lambda: draw(flags), flags.traceback)


def draw(flags: Flags) -> int:
    """Draws the sheet; returns the exit status."""
    devices.keep_compilations()
    with raised_as(ConfigError):
        media.check_outside(flags.output, flags.paths)
    figure = sheet(flags)
    save(figure, flags.output)
    rows = len(figure.axes) // flags.columns
    print(f"{flags.output}: {amount(rows, 'image')}, each as it is and augmented {amount(flags.columns - 1, 'time')}")
    return 0


def sheet(flags: Flags) -> Figure:
    """The sheet that the command line asks for."""
    chosen = config.build(flags.config, flags.overrides).experiment
    if chosen.augment is None:
        raise ConfigError(f"{flags.config} has no augmentation")
    given = trained_on(chosen, flags.rows) if flags.train else pictured(chosen, flags.paths, flags.rows)
    rows = zip(
        examples_of(given.batch, flags.rows),
        augmented(chosen.augment, given.batch, flags.columns - 1, flags.seed),
        strict=True,
    )
    every = [each for before, after in rows for each in (before, *after)]
    title = f"{flags.config.name}: each image as it is, then augmented"
    notes = ["as it is", *(f"augmented {number}" for number in range(1, flags.columns))] * (len(every) // flags.columns)
    return examples_sheet(every, given.classes, given.name, columns=flags.columns, title=title, notes=notes)


class Given(NamedTuple):
    """Images to augment, and what is known of them."""

    batch: Batch
    classes: tuple[str, ...]
    name: Callable[[int], str]


def trained_on(chosen: Experiment, rows: int) -> Given:
    """The first images of training, with their targets."""
    with raised_as(DataError):
        about, batch = chosen.train.about(), next(chosen.train.batches(0))
    return Given(jax.tree.map(lambda x: np.asarray(x)[:rows], batch), about.classes, about.name)


def pictured(chosen: Experiment, paths: Sequence[Path], rows: int) -> Given:
    """Image files, as large as fits on the canvas of training; in a classification, of classes named after them."""
    _, height, width, channels = chosen.train.spec.image.shape
    fit = placement.letterbox((height, width))
    pictures = media.pictures(media.files(paths or [samples.photos_dir()]))
    found = list(islice(media.decoded(pictures, lambda data: decode(data, fit, channels=channels).canvas), rows))
    if not found:
        raise DataError(f"there is no image in {', '.join(map(str, paths))}")
    batch = loading.empty_rows(len(found), (height, width), channels)
    for row, each in enumerate(found):
        if each.canvas is None:
            raise DataError(f"{each.file}: {each.error}")
        batch.image[row], batch.size[row], batch.original_size[row] = each.canvas[:3]
        batch.valid[row], batch.index[row] = True, row
    count = classes_of(chosen)
    target = None if count is None else Labels(jnp.arange(len(found), dtype=jnp.int32) % count)
    names = [Path(each.file).name for each in found]
    classes = [", ".join(names[number::count]) or f"class {number}" for number in range(count or 0)]
    return Given(loading.as_batch(batch).replace(target=target), tuple(classes), names.__getitem__)


def classes_of(chosen: Experiment) -> int | None:
    """How many classes a classifier tells apart; None for other tasks."""

    def predicted(key: jax.Array, batch: Batch) -> object:
        return chosen.task.predict(chosen.task.init(key, batch), batch.replace(target=None))

    found = jax.eval_shape(predicted, jax.random.key(0), chosen.train.spec)
    return found.logits.shape[-1] if isinstance(found, ClassScores) else None


def augmented(augment: Augment, batch: Batch, times: int, seed: int) -> list[list[Batch]]:
    """Augmented copies, `times` of each row of the batch; rows that are mixed are mixed with the row before.

    Raises:
      ConfigError: if the augmentation can't do with images of this kind.
    """
    repeated = jax.tree.map(lambda x: jnp.concatenate([jnp.asarray(x)] * times), batch)
    try:
        result = jax.jit(augment)(jax.random.key(seed), jnp.int32(0), repeated)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the augmentation can't be drawn on these images: {error}") from error
    made, rows = examples_of(result, len(repeated.image)), len(batch.image)
    return [made[row::rows] for row in range(rows)]


if __name__ == "__main__":
    commands.enter(main)
