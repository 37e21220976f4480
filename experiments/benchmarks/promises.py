"""How often a promised precision is broken: ours by images, MAPIE's by objects, and the empirical precision taken as it is.

    python experiments/benchmarks/promises.py --workdir=runs/shapes

Six simulated worlds, 400 calibrations of 120 images each: objects that err alone; images that err together (a common term
in the logits of all of an image); images of which every guess is wrong, one in 25; both; and images with 100 guesses of which
half are wrong, one in 50, or with 60, three in 100, among others with about two that are nearly all right. A promise of
precision 0.9 with probability 0.9 is broken if of all guesses above the threshold, in a world of 60,000 images, fewer are
right. How many guesses the images have that nobody has checked, ours knows from 2,000 of them. With
`--workdir`, the run of a detector of `experiments/shapes.py`, the same over 200 random splits of 600 further images: 120 to
calibrate, the other 480 to see whether the promise holds. MAPIE (`pip install 'mapie>=1.6'`) is left out where it is
missing. `--calibrations=N`, `--images=N` for other sizes. Half a minute of processor time, and a minute more for shapes.
Prints tables; results are in RESULTS.md beside this file.
"""

import argparse
import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvision.annotate import order, promises, verdicts
from jaxvision.annotate.checked import Checked, checked
from jaxvision.annotate.promises import Guesses, Promise
from jaxvision.annotate.records import Annotation, ImageRecord, Source
from jaxvision.data import synthetic
from jaxvision.formats.annotation import AnnotatedImage, AnnotatedObject
from jaxvision.metrics import calibration

PROMISE = Promise(precision=0.9, confidence=0.9)
POPULATION, STORE, REST = 60_000, 2_000, 600
SPLITS, SEED = 200, 2000
"""Splits of shapes, and the seed of their images: neither that of training nor that of the test."""
LEAST_SCORE = 0.3
"""Guesses of the detector below this are left out, as `run.load(...).predict` does."""


class World(NamedTuple):
    """Where images come from."""

    guesses: float = 4
    """Mean of the guesses of an image; one at least."""
    together: float = 0.0
    """Standard deviation of what all objects of an image have in common, in logits."""
    lost: float = 0.0
    """Fraction of the images with only wrong guesses."""
    sure: float = 1.6
    """Mean of the logits of what a model says."""
    crowds: float = 0.0
    """Fraction of the images with `crowd` guesses, of which half are wrong, however sure."""
    crowd: int = 0


WORLDS = {
    "alone": World(),
    "together": World(guesses=8, together=2.5),
    "lost images": World(lost=0.04),
    "both": World(guesses=8, together=1.5, lost=0.02),
    "crowds of 100": World(guesses=2, sure=5, crowds=0.02, crowd=100),
    "crowds of 60": World(guesses=2, sure=5, crowds=0.03, crowd=60),
}


def sample(world: World, images: int, rng: np.random.Generator) -> Checked:
    """Checked images of a world, whose scores are too sure."""
    count = 1 + rng.poisson(world.guesses - 1, images)
    crowd = rng.random(images) < world.crowds if world.crowds else np.zeros(images, bool)
    count[crowd] = world.crowd
    image = np.repeat(np.arange(images), count)
    odds = rng.normal(world.sure, 1.6, len(image))
    common = rng.normal(0, world.together, images) if world.together else np.zeros(images)
    true_odds = odds * np.sqrt(1 + 0.35 * world.together**2) + common[image]
    right = rng.random(len(image)) < 1 / (1 + np.exp(-true_odds))
    right &= ~(rng.random(images) < world.lost)[image]
    if world.crowds:
        right &= ~crowd[image] | (rng.random(len(image)) < 0.5)
    score = 1 / (1 + np.exp(-1.5 * odds))
    zero = np.zeros(len(image), int)
    return Checked(images, ("object",), ("",), image, zero, zero, score, right, image[right], zero[right])


Method = Callable[[Checked, Checked], float | None]
"""From checked images, and what is in a store, to the least score that is accepted; None if none is."""


def ours(of: Checked, store: Checked) -> float | None:
    """Fixed sequence testing, with the bound over images; of the store only the guesses are looked at."""
    everywhere = store.image, store.score
    found, _ = promises.accepting(of.image, of.score, of.right, of.images, PROMISE, everywhere)
    return found


def empirical(of: Checked, store: Checked) -> float | None:
    """The least score above which the precision is at least as promised, in the checked images."""
    del store
    order = np.argsort(-of.score)
    hits = np.cumsum(of.right[order])
    good = np.flatnonzero(hits >= PROMISE.precision * np.arange(1, len(hits) + 1))
    return float(of.score[order][good[-1]]) if len(good) else None


def as_given(probability: Any) -> np.ndarray:
    """Both columns of MAPIE's examples, that of wrong and that of right."""
    return np.asarray(probability)


def mapie(method: str) -> Method:
    """MAPIE's precision control, every guess an example of its own; of the thresholds that it allows the lowest."""

    def threshold(of: Checked, store: Checked) -> float | None:
        from mapie.risk_control import BinaryClassificationController

        del store
        control = BinaryClassificationController(
            as_given,
            "precision",
            PROMISE.precision,
            PROMISE.confidence,
            fwer_method=method,  # pyright: ignore[reportArgumentType]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            control.calibrate(np.stack([1 - of.score, of.score], 1), of.right.astype(int))
        return float(np.min(control.valid_predict_params)) if len(control.valid_predict_params) else None

    return threshold


def methods() -> dict[str, Method]:
    """Ways to a threshold, by their names in the tables."""
    found: dict[str, Method] = {"ours, by images": ours, "empirical precision": empirical}
    if importlib.util.find_spec("mapie"):
        name = f"MAPIE {version('mapie')}"
        found |= {
            f"{name}, Bonferroni-Holm": mapie("bonferroni_holm"),
            f"{name}, fixed sequence": mapie("fixed_sequence"),
        }
    return found


class Tally(NamedTuple):
    """What came of calibrations with one method."""

    broken: float
    """Fraction in which the precision of what is accepted is less than promised."""
    accepted: float
    """Mean fraction of the right guesses that is accepted."""
    none: float
    """Fraction in which nothing is accepted."""


class Trial(NamedTuple):
    """A calibration."""

    known: Checked
    store: Checked
    """What the store has."""
    other: Checked
    """What the promise is held against."""


def tally(trials: Iterator[Trial], ways: Mapping[str, Method]) -> dict[str, Tally]:
    """The methods on what is known, judged by the rest."""
    rows: dict[str, list[tuple[bool, float, bool]]] = {name: [] for name in ways}
    for known, store, other in trials:
        for name, method in ways.items():
            rows[name].append(judged(method(known, store), other))
    return {name: Tally(*np.mean(each, axis=0).tolist()) for name, each in rows.items()}


def judged(threshold: float | None, other: Checked) -> tuple[bool, float, bool]:
    """Whether the promise is broken, the fraction of right guesses accepted, whether nothing is."""
    if threshold is None:
        return False, 0.0, True
    above = other.score >= threshold
    hits = np.count_nonzero(other.right & above)
    return bool(hits < PROMISE.precision * np.count_nonzero(above)), hits / np.count_nonzero(other.right), False


def simulated(world: World, calibrations: int, images: int, seed: int = 0) -> Iterator[Trial]:
    """Checked images of a world, each time others, and its population."""
    rng = np.random.default_rng(seed)
    population = sample(world, POPULATION, rng)
    store = population.of_images(np.arange(STORE))
    for _ in range(calibrations):
        yield Trial(sample(world, images, rng), store, population)


def splits(of: Checked, count: int, images: int, seed: int = 0) -> Iterator[Trial]:
    """Random splits of checked images into some to calibrate with and the rest."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        order = rng.permutation(of.images)
        yield Trial(of.of_images(order[:images]), of, of.of_images(order[images:]))


class Shapes(NamedTuple):
    """What the detector of a run finds in further shapes."""

    guesses: list[list[Annotation]]
    """Guesses of each image."""
    truth: list[AnnotatedImage]
    classes: tuple[str, ...]

    def checked(self, images: Sequence[int] | np.ndarray) -> Checked:
        """These images with their truth."""
        return checked([self.guesses[i] for i in images], [self.truth[i] for i in images], self.classes)


def shapes(workdir: str, images: int = REST) -> Shapes:
    """Finds shapes of a seed of their own with the detector of a run."""
    from jaxvision import run

    model = run.load(workdir)
    source = synthetic.shapes(images, seed=SEED, size=96, max_objects=6, classes=model.classes)
    examples = source.read(np.arange(images))
    records = model.predict([np.asarray(each.image) for each in examples], score_threshold=LEAST_SCORE)
    by = (Source("detector", ""),)
    guesses = [
        [
            Annotation(0, each["label"], tuple(each["box"]), score=each["score"], sources=by)
            for each in record["objects"]
        ]
        for record in records
    ]
    truth = [_annotated(number, each.objects) for number, each in enumerate(examples)]
    return Shapes(guesses, truth, model.classes)


def first_fifth(of: Shapes, images: int) -> str:
    """How much of what is wrong the first fifth of the guesses of the rest holds, in order of review, in words."""
    known, rest = of.checked(range(images)), range(images, len(of.truth))
    whole = of.checked(range(len(of.truth)))
    found = promises.calibrate(known, PROMISE, Guesses(*(getattr(whole, name) for name in Guesses._fields)))
    records, wrong = [], {}
    for number in rest:
        objects = [each._replace(id=place) for place, each in enumerate(of.guesses[number])]
        records.append(verdicts.judged(ImageRecord(f"{number:06}", "", (96, 96), tuple(objects)), found))
        right = of.checked([number])
        for each in objects:
            wrong[f"{number:06}", each.id] = not right.right[right.score == each.score].any()
    shown = order.objects(records)
    first = [wrong[place.name, place.id] for place in shown[: len(shown) // 5]]
    total = sum(wrong.values())
    return f"review: the first 20% of {len(shown):,} guesses hold {sum(first) / total:.1%} of the {total:,} wrong ones"


def _annotated(number: int, objects) -> AnnotatedImage:
    rows = zip(objects.labels.tolist(), objects.boxes.tolist(), strict=True)
    listed = [AnnotatedObject("", label, tuple(box)) for label, box in rows]
    return AnnotatedImage(str(number), Path(str(number)), "", number, None, listed)


def errors(of: Checked, images: int, count: int = 20) -> str:
    """Expected calibration error of the rest of random splits, before and after, in words."""
    both = []
    for known, _, other in splits(of, count, images, seed=1):
        temperature = calibration.temperature(known.score, known.right)
        probability = calibration.probability(other.score, temperature)
        both.append((calibration.error(other.score, other.right), calibration.error(probability, other.right)))
    before, after = np.mean(both, axis=0)
    return f"expected calibration error of the rest, mean over {count} splits: {before:.4f} before, {after:.4f} after"


def table(found: Mapping[str, Mapping[str, Tally]]) -> str:
    """Rows of worlds and methods, in Markdown."""
    head = ["images", "method", "broken", "right guesses accepted", "nothing accepted"]
    rows = [
        [world, name, f"{each.broken:.1%}", f"{each.accepted:.1%}", f"{each.none:.1%}"]
        for world, tallies in found.items()
        for name, each in tallies.items()
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="How often a promised precision is broken.")
    parser.add_argument("--calibrations", type=int, default=400, metavar="N", help="of each simulated world")
    parser.add_argument("--images", type=int, default=120, metavar="N", help="checked images of each")
    parser.add_argument("--workdir", metavar="DIR", help="run of experiments/shapes.py")
    flags = parser.parse_args(argv)
    ways = methods()
    found = {name: tally(simulated(world, flags.calibrations, flags.images), ways) for name, world in WORLDS.items()}
    told = ""
    if flags.workdir:
        seen = shapes(flags.workdir)
        of = seen.checked(range(REST))
        found["shapes"] = tally(splits(of, SPLITS, flags.images), ways)
        told = f"\n\nshapes: {errors(of, flags.images)}\n{first_fifth(seen, flags.images)}"
    print(table(found) + told)


if __name__ == "__main__":
    main()
