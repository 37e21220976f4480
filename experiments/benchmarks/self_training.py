"""What guesses are worth as annotations: a student of a tenth of the labels and a teacher's guesses, beside the tenth alone.

    python experiments/benchmarks/self_training.py --workdir=runs/self_training --seeds=0,1,2
    python experiments/benchmarks/self_training.py --workdir=runs/self_training_trees --data=trees

The teacher, a detector of `experiments/shapes.py`, is trained on a tenth of the images; it guesses the objects of the rest.
The student, as large and trained as long from new weights, sees all images, one with labels as often as one without:
confident guesses count by their probability, unsure ones are to be ignored, so that they are neither objects nor background
(pseudo-labels: arXiv:2005.04757). Of the trees it is the detector of `experiments/trees_yolo.py` from the weights of COCO,
tested on another site. Finished runs are kept, so the same command goes on where it stopped. `--config.FIELD=VALUE` is for
every run. Prints a table; results are in RESULTS.md beside this file.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxvision import run
from jaxvision.annotate.exchange import PROBABILITY
from jaxvision.annotate.listed import predicted
from jaxvision.annotate.relabelled import labelled, relabelled
from jaxvision.commands import split_overrides
from jaxvision.data import objects, order, samples, streams, synthetic, target
from jaxvision.data.decode import pixels_of
from jaxvision.data.source import Source
from jaxvision.data.subset import subset
from jaxvision.experiment import Experiment, Record
from jaxvision.formats.labelled import LabelledObject
from jaxvision.pretrained import detectors
from jaxvision.run import devices
from jaxvision.run.config import configure, load
from jaxvision.run.prediction import Model
from jaxvision.train import Every

SHAPES = load(Path(__file__).parent.parent / "shapes.py")
TREES = load(Path(__file__).parent.parent / "trees_yolo.py")
SURE, UNSURE = 0.5, 0.15
"""Least score of a guess that is an object for the student, and of one that is to be ignored."""


class Pair(NamedTuple):
    """Average precision on the test images of one seed."""

    teacher: float
    student: float


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compare a student of guesses with its teacher.")
    parser.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="the folder of the runs")
    parser.add_argument("--seeds", default="0", help="separated by commas")
    parser.add_argument("--data", choices=DATA, default="shapes", help="what is detected (shapes)")
    parser.add_argument("--images", type=int, default=600, help="at most, of which a tenth has labels (600)")
    fields, rest = split_overrides(list(sys.argv[1:] if argv is None else argv), parser.error)
    flags = parser.parse_args(rest)
    pairs = []
    for seed in flags.seeds.split(","):
        pairs.append(compared(DATA[flags.data], flags.workdir / seed, int(seed), flags.images, fields))
        print(f"seed {seed}: {pairs[-1]}", flush=True)
    print(table(pairs))


class Data(NamedTuple):
    """Images, and how a detector of them is trained."""

    config: Callable[[], ConfigDict]
    fields: Mapping[str, str]
    images: Callable[[ConfigDict, int], Source]
    """All images, of which some are known, for a config and a number of them."""
    experiment: Callable[[ConfigDict, Callable[[], Source]], Experiment]
    """Training on a source; more objects than an image has are trained on, since some guesses are to be ignored."""


def shapes(config, count: int, seed: int) -> Source:
    return synthetic.shapes(count, seed=seed, size=config.size, max_objects=config.max_objects, classes=SHAPES.CLASSES)


def learning_shapes(config, learned: Callable[[], Source]) -> Experiment:
    tested = lambda: shapes(config, config.test_examples, 1900)
    return SHAPES.learning(config, learned, tested, target.objects(20, weights=True))


def trees(config, count: int) -> Source:
    tiles = objects.coco(samples.trees_dir() / "train.json", samples.trees_dir() / "train")
    return subset(tiles, np.random.default_rng(config.seed).permutation(tiles.length)[:count])


def learning_trees(config, learned: Callable[[], Source]) -> Experiment:
    placer = detectors.YOLOV3_TINY.preprocessing.placer(config.size)
    options = {"placer": placer, "batch_size": config.batch_size, "target": target.objects(80, weights=True)}
    order_of = order.shuffled(config.seed)
    return TREES.build(config)._replace(train=streams.training(learned, order=order_of, seed=config.seed, **options))


DATA = {
    "shapes": Data(
        SHAPES.get_config,
        {"detector": "ssd", "steps": "600"},
        lambda config, count: shapes(config, count, 900 + config.seed),
        learning_shapes,
    ),
    "trees": Data(TREES.get_config, {"weights": "coco"}, trees, learning_trees),
}


def compared(data: Data, workdir: Path, seed: int, count: int, fields: Mapping[str, str]) -> Pair:
    """The teacher and the student of a seed."""
    config = configure(data.config(), {**data.fields, "seed": str(seed), **fields})
    devices.resolve_precision(config)
    images = data.images(config, count)
    known = np.arange(images.length // 10)
    first, teacher = trained(data, config, lambda: subset(images, known), workdir / "teacher")
    return Pair(first, trained(data, config, lambda: guessed(images, known, teacher), workdir / "student")[0])


def trained(data: Data, config, learned: Callable[[], Source], workdir: Path) -> tuple[float, Model]:
    """Its average precision, and the model."""
    experiment = data.experiment(config, learned)._replace(every=Every(100, config.steps, config.steps))
    metrics = run.train(experiment, workdir, report=False).metrics
    return metrics["test/AP"], run.load(workdir, "latest", experiment=experiment)


def guessed(source: Source, known: np.ndarray, teacher: Model) -> Source:
    """All images: the known ones with their objects, as often as there are others, and the others with guesses."""
    images = labelled(source)
    others = np.setdiff1d(np.arange(source.length), known)
    repeated = np.tile(known, len(others) // len(known))
    pixels = [pixels_of(each.image) if isinstance(each.image, bytes) else each.image for each in source.read(others)]
    records = teacher.predict(pixels, score_threshold=UNSURE)
    for number, record in zip(others.tolist(), records, strict=True):
        images[number] = images[number]._replace(objects=guesses(record))
    return subset(relabelled(source, images), np.concatenate([repeated, others]))


def guesses(record: Record) -> tuple[LabelledObject, ...]:
    """The objects that were found, sure ones with their probability, others as difficult: to be ignored."""
    found = map(predicted, record["objects"])
    return tuple(
        each._replace(attributes={PROBABILITY: each.score}, difficult=each.score < SURE)
        for each in found
        if each.score is not None
    )


def table(pairs: Sequence[Pair]) -> str:
    """Both, the mean over the seeds, and by how much the student is better in each."""
    better = ", ".join(f"{100 * (each.student - each.teacher):+.1f}" for each in pairs)
    means = np.mean(pairs, axis=0) * 100
    lines = ["| AP | mean | student less teacher, by seed |", "|---|---|---|"]
    return "\n".join(
        [*lines, f"| 10 % alone | {means[0]:.1f} | |", f"| 10 % and guesses | {means[1]:.1f} | {better} |"]
    )


if __name__ == "__main__":
    main()
