"""What guesses are worth as annotations: a student of a tenth of the labels and a teacher's guesses, beside the tenth alone.

    python experiments/benchmarks/self_training.py --workdir=runs/self_training --seeds=0,1,2

The teacher, a detector of `experiments/shapes.py`, is trained on a tenth of the images; it guesses the objects of the rest.
The student, as large and trained as long from new weights, sees all images, one with labels as often as one without:
confident guesses count by their probability, unsure ones are to be ignored, so that they are neither objects nor background
(pseudo-labels: arXiv:2005.04757). Finished
runs are kept, so the same command goes on where it stopped. `--config.FIELD=VALUE` is for every run. Prints a table; results
are in RESULTS.md beside this file.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvision import run
from jaxvision.annotate.exchange import PROBABILITY
from jaxvision.annotate.listed import predicted
from jaxvision.annotate.relabelled import labelled, relabelled
from jaxvision.commands import split_overrides
from jaxvision.data import synthetic, target
from jaxvision.data.source import Source
from jaxvision.data.subset import subset
from jaxvision.experiment import Record
from jaxvision.formats.labelled import LabelledObject
from jaxvision.run import devices
from jaxvision.run.config import configure, load
from jaxvision.run.prediction import Model
from jaxvision.train import Every

SHAPES = load(Path(__file__).parent.parent / "shapes.py")
SMALL = {"detector": "ssd", "steps": "600"}
ROWS = 20
"""Objects and guesses of an image that are trained on; those to be ignored make room for others."""
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
    parser.add_argument("--images", type=int, default=600, help="of which a tenth has labels (600)")
    fields, rest = split_overrides(list(sys.argv[1:] if argv is None else argv), parser.error)
    flags = parser.parse_args(rest)
    pairs = []
    for seed in flags.seeds.split(","):
        pairs.append(compared(flags.workdir / seed, int(seed), flags.images, fields))
        print(f"seed {seed}: {pairs[-1]}", flush=True)
    print(table(pairs))


def compared(workdir: Path, seed: int, count: int, fields: Mapping[str, str]) -> Pair:
    """The teacher and the student of a seed."""
    config = configure(SHAPES.get_config(), {**SMALL, "seed": str(seed), **fields})
    devices.resolve_precision(config)
    more = {"size": config.size, "max_objects": config.max_objects, "classes": SHAPES.CLASSES}
    shapes = synthetic.shapes(count, seed=900 + seed, **more)
    known = np.arange(count // 10)
    first, teacher = trained(config, lambda: subset(shapes, known), workdir / "teacher")
    return Pair(first, trained(config, lambda: guessed(shapes, known, teacher), workdir / "student")[0])


def trained(config, learned: Callable[[], Source], workdir: Path) -> tuple[float, Model]:
    """Its average precision, and the model."""
    more = {"size": config.size, "max_objects": config.max_objects, "classes": SHAPES.CLASSES}
    tested = lambda: synthetic.shapes(config.test_examples, seed=1900, **more)
    experiment = SHAPES.learning(config, learned, tested, target.objects(ROWS, weights=True))
    experiment = experiment._replace(every=Every(100, config.steps, config.steps))
    metrics = run.train(experiment, workdir, report=False).metrics
    return metrics["test/AP"], run.load(workdir, "latest", experiment=experiment)


def guessed(shapes: Source, known: np.ndarray, teacher: Model) -> Source:
    """All images: the known ones with their objects, as often as there are others, and the others with guesses."""
    images = labelled(shapes)
    others = np.setdiff1d(np.arange(shapes.length), known)
    repeated = np.tile(known, len(others) // len(known))
    records = teacher.predict([each.image for each in shapes.read(others)], score_threshold=UNSURE)
    for number, record in zip(others.tolist(), records, strict=True):
        images[number] = images[number]._replace(objects=guesses(record))
    return subset(relabelled(shapes, images), np.concatenate([repeated, others]))


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
