"""What choosing is worth: label, review, train again, with images chosen or at random; corrections per 100 objects.

    python experiments/benchmarks/annotate_loop.py --workdir=runs/annotate_loop --seeds=0,1,2,3,4

Shapes in a folder and a store, as a person has them. Twenty images are labelled by hand; then, three times, a detector of
`experiments/shapes.py` is trained on what was reviewed, guesses the objects of the others, and forty images are reviewed by
an annotator who knows the truth: chosen as `annotate next` does, or at random. Each detector, the one after the last round
too, is also measured on images that nobody reviews: the corrections that its guesses would take there are comparable, while
chosen images are harder than others. Finished runs are kept, so the same command goes on where it stopped.
`--config.FIELD=VALUE` is for every run. Prints tables; results are in RESULTS.md beside this file.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.stats import t as student

from jaxvision import run
from jaxvision.annotate import choosing, simulated, source
from jaxvision.annotate.listed import predicted
from jaxvision.annotate.records import Annotation, ImageRecord, Source
from jaxvision.annotate.relabelled import labelled
from jaxvision.annotate.simulated import Effort
from jaxvision.annotate.store import Store
from jaxvision.commands import split_overrides
from jaxvision.data import synthetic, target
from jaxvision.experiment import Experiment
from jaxvision.formats.labelled import LabelledImage
from jaxvision.run import devices
from jaxvision.run.config import configure, load
from jaxvision.run.prediction import Model
from jaxvision.train import Every

SHAPES = load(Path(__file__).parent.parent / "shapes.py")
SMALL = {"detector": "yolox", "steps": "700", "test_examples": "100"}
FIRST, ROUND, ROUNDS = 20, 40, 3
WAYS = ("chosen", "random")
SHOWN = 0.5
"""Least score of a guess that the annotator is shown."""
LEAST = 0.1
"""Least score of a guess that counts for the errors expected of an image."""
PERSON = "human:simulated"


class Pool(NamedTuple):
    """The images of a seed: files in a folder, and their hidden truth by name."""

    folder: Path
    truth: Mapping[str, LabelledImage]


class Course(NamedTuple):
    """What reviewing took."""

    reviewed: list[Effort]
    """Effort for the images of each round."""
    held_out: list[Effort]
    """Effort for images that nobody reviews, by the detector before each round, and the one after the last."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Count the corrections of a simulated annotator, round by round.")
    parser.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="the folder of the runs")
    parser.add_argument("--seeds", default="0", help="separated by commas")
    parser.add_argument("--images", type=int, default=400, help="in the pool (400)")
    fields, rest = split_overrides(list(sys.argv[1:] if argv is None else argv), parser.error)
    flags = parser.parse_args(rest)
    efforts: dict[str, list[Course]] = {way: [] for way in WAYS}
    for seed in map(int, flags.seeds.split(",")):
        for way in WAYS:
            efforts[way].append(rounds(flags.workdir / str(seed), seed, way, flags.images, fields))
            course = efforts[way][-1]
            print(f"seed {seed}, {way}, reviewed: {', '.join(map(text, course.reviewed))}", flush=True)
            print(f"seed {seed}, {way}, held out: {', '.join(map(text, course.held_out))}", flush=True)
    print(report(efforts))


def text(effort: Effort) -> str:
    return f"{effort.per_hundred:.1f} ({dict(sorted(effort.actions.items()))})"


def rounds(workdir: Path, seed: int, way: str, count: int, fields: Mapping[str, str]) -> Course:
    """What reviewing took in each round."""
    config = configure(SHAPES.get_config(), {**SMALL, "seed": str(seed), **fields})
    devices.resolve_precision(config)
    pool = written(workdir / "images", seed, count, config)
    names = np.random.default_rng(seed).permutation(sorted(pool.truth)).tolist()
    path = workdir / f"{way}.sqlite"
    path.unlink(missing_ok=True)  # what is reviewed follows from the seed and the runs, which are kept
    course = Course([], [])
    with Store(path, create=True) as store:
        with store.together():
            for name in names:
                store.put(record(pool, name), who="listing")
        review(store, pool, names[:FIRST])
        for number in range(ROUNDS + 1):
            # Both ways begin with the same images, so they share the first run.
            model = trained(store, pool, config, workdir / ("first" if number == 0 else f"{way}{number}"))
            course.held_out.append(measured(model, held_out(config)))
            if number == ROUNDS:
                break
            guess(store, pool, model)
            if way == "chosen":
                chosen = [each.name for each in choosing.next_images(store.records(), pool.folder, ROUND)]
            else:
                chosen = names[FIRST + number * ROUND : FIRST + (number + 1) * ROUND]
            course.reviewed.append(review(store, pool, chosen))
    return course


def held_out(config):
    return synthetic.shapes(
        config.test_examples, seed=1700, size=config.size, max_objects=config.max_objects, classes=SHAPES.CLASSES
    )


def measured(model: Model, shapes) -> Effort:
    """What it would take to correct a model's guesses for images that nobody reviews."""
    truth = labelled(shapes)
    pixels = [example.image for example in shapes.read(np.arange(shapes.length))]
    found = model.predict(pixels, score_threshold=SHOWN)
    guesses = [tuple(map(predicted, each["objects"])) for each in found]
    return simulated.effort(
        (simulated.review(guess, each.objects), each.objects) for guess, each in zip(guesses, truth, strict=True)
    )


def written(folder: Path, seed: int, count: int, config) -> Pool:
    """The shapes as files."""
    shapes = synthetic.shapes(
        count, seed=700 + seed, size=config.size, max_objects=config.max_objects, classes=SHAPES.CLASSES
    )
    folder.mkdir(parents=True, exist_ok=True)
    truth = {}
    for number, image in enumerate(labelled(shapes)):
        name = f"{number:04d}.png"
        truth[name] = image._replace(name=name)
        if not (folder / name).exists():
            Image.fromarray(np.asarray(shapes.read(np.array([number]))[0].image)).save(folder / name)
    return Pool(folder, truth)


def record(pool: Pool, name: str, objects: Sequence[Annotation] = ()) -> ImageRecord:
    digest = sha256((pool.folder / name).read_bytes()).hexdigest()
    return ImageRecord(name, digest, pool.truth[name].size, tuple(objects))


def review(store: Store, pool: Pool, names: Sequence[str]) -> Effort:
    """The annotator reviews these images, of whose guesses the unlikely ones are not shown."""
    reviews = []
    for name in names:
        before = store.get(name)
        assert before is not None
        store.put(record(pool, name, [each for each in before.objects if (each.score or 0) >= SHOWN]), who="shown")
        shown = store.get(name)
        assert shown is not None
        made = simulated.changes(shown, pool.truth[name].objects)
        store.apply_all([(name, change, shown.version) for change in made], PERSON)
        reviews.append((made, pool.truth[name].objects))
    return simulated.effort(reviews)


def trained(store: Store, pool: Pool, config, workdir: Path) -> Model:
    """The model of the images that are reviewed."""
    records = list(store.records())
    learned = lambda: source.source(records, pool.folder, SHAPES.CLASSES)
    rows = target.objects(config.max_objects, weights=True)
    experiment: Experiment = SHAPES.learning(config, learned, lambda: held_out(config), rows)
    experiment = experiment._replace(every=Every(100, config.steps, config.steps))
    run.train(experiment, workdir, report=False)
    return run.load(workdir, "latest", experiment=experiment)


def guess(store: Store, pool: Pool, model: Model) -> None:
    """Stores what the model finds in the images that are not reviewed."""
    names = [each.name for each in store.records() if each.state != "reviewed"]
    by = Source("detector", "")
    found = model.predict([pool.folder / name for name in names], score_threshold=LEAST)
    with store.together():
        for name, told in zip(names, found, strict=True):
            guesses = map(predicted, told["objects"])
            objects = [Annotation(0, each.label, each.box, score=each.score, sources=(by,)) for each in guesses]
            store.put(record(pool, name, objects), who="detector")


def report(efforts: Mapping[str, Sequence[Course]]) -> str:
    """Corrections per 100 objects, by way; and how many fewer where images are chosen, paired by seed."""
    lines = []
    for what, told in (("reviewed", "of the images of the round"), ("held_out", "of images that nobody reviews")):
        figures = {
            way: np.array([[each.per_hundred for each in getattr(course, what)] for course in efforts[way]])
            for way in WAYS
        }
        columns = figures[WAYS[0]].shape[1]
        heads = [f"{FIRST + n * ROUND} labelled" for n in range(columns)]
        lines += [f"| corrections per 100 objects {told} | {' | '.join(heads)} | last by first |"]
        lines += ["|" + "---|" * (columns + 2)]
        for way in WAYS:
            mean, ratio = figures[way].mean(0), (figures[way][:, -1] / figures[way][:, 0]).mean()
            lines.append(f"| {way} | {' | '.join(f'{each:.1f}' for each in mean)} | {ratio:.2f} |")
        less = (figures["chosen"] - figures["random"])[:, 1:].mean(1)
        lines += ["", f"chosen less random, mean after the first round: {interval(less)}", ""]
    return "\n".join(lines)


def interval(differences: np.ndarray) -> str:
    """The mean of paired differences with its 95 % interval by Student's t."""
    mean, count = differences.mean(), len(differences)
    if count < 2:
        return f"{mean:+.1f} (one seed)"
    half = student.ppf(0.975, count - 1) * differences.std(ddof=1) / np.sqrt(count)
    return f"{mean:+.1f} ± {half:.1f} (95 %, {count} seeds)"


if __name__ == "__main__":
    main()
