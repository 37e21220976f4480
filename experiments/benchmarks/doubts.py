"""How well wrong annotations are found: ours, cleanlab's object detection, and a plain rule, from the same predictions.

    pip install cleanlab scikit-learn
    python experiments/benchmarks/doubts.py --workdir=runs/doubts --seeds=0,1,2

Shapes with 5 % of their objects removed, misplaced or renamed. Each of two folds is predicted by a detector of
`experiments/shapes.py` that was trained on the other one, mistakes and all. Finished runs are kept, so the same command goes
on where it stopped. `--config.FIELD=VALUE` is for every run. Prints a table; results are in RESULTS.md beside this file.
"""

import argparse
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxvision import run
from jaxvision.annotate import doubts, folds, listed, relabelled, simulated
from jaxvision.annotate.agreement import boxes_of, pairs
from jaxvision.annotate.simulated import Mistake, Spoilt
from jaxvision.commands import split_overrides
from jaxvision.data import synthetic
from jaxvision.formats.labelled import LabelledImage, LabelledObject
from jaxvision.run import devices
from jaxvision.run.config import configure, load
from jaxvision.train import Every

SHAPES = load(Path(__file__).parent.parent / "shapes.py")
FOLDS = 2
SMALL = {"detector": "ssd", "steps": "1000", "batch_size": "16"}
FIRST = 0.2
Predictions = Mapping[str, Sequence[LabelledObject]]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compare rankings of images by how likely an annotation is wrong.")
    parser.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="the folder of the runs")
    parser.add_argument("--seeds", default="0", help="separated by commas")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--spoilt", type=float, default=0.05, help="fraction of the objects (0.05)")
    fields, rest = split_overrides(list(sys.argv[1:] if argv is None else argv), parser.error)
    flags = parser.parse_args(rest)
    for seed in flags.seeds.split(","):
        spoilt, predictions = predicted(flags.workdir / seed, int(seed), flags.images, flags.spoilt, fields)
        print(f"seed {seed}:\n{table(spoilt, predictions)}", flush=True)


def predicted(
    workdir: Path, seed: int, count: int, fraction: float, fields: Mapping[str, str]
) -> tuple[list[Spoilt], Predictions]:
    """Shapes with mistakes, and for each image what a detector finds that was trained on the other folds."""
    config = configure(SHAPES.get_config(), {**SMALL, "seed": str(seed), **fields})
    devices.resolve_precision(config)
    classes = SHAPES.CLASSES
    shapes = synthetic.shapes(count, seed=500 + seed, size=config.size, classes=classes)
    spoilt = simulated.spoilt(relabelled.labelled(shapes), classes, fraction, seed)
    given = relabelled.relabelled(shapes, [each.image for each in spoilt])
    found = {}
    for fold in range(FOLDS):
        unseen = folds.part(given, fold, FOLDS)
        experiment = SHAPES.learning(
            config, lambda fold=fold: folds.rest(given, fold, FOLDS), lambda unseen=unseen: unseen
        )
        experiment = experiment._replace(every=Every(100, config.steps, config.steps))
        run.train(experiment, workdir / f"fold{fold}", report=False)
        model = run.load(workdir / f"fold{fold}", "latest", experiment=experiment)
        pixels = [example.image for example in unseen.read(np.arange(unseen.length))]
        for number, record in enumerate(model.predict(pixels, score_threshold=0.05)):
            found[unseen.name(number)] = tuple(map(listed.predicted, record["objects"]))
    return spoilt, found


def table(spoilt: Sequence[Spoilt], predictions: Predictions) -> str:
    """Each ranking of the images: AUROC, for each kind of mistake too, and the faulty images in the first 20 %."""
    faulty = np.array([bool(each.mistakes) for each in spoilt])
    heading = " | ".join(("AUROC", "in the first 20 %", *Mistake))
    lines = [f"| {len(spoilt):,} images, {faulty.sum()} faulty | {heading} |", "|" + "---|" * 7]
    for name, scores in rankings(spoilt, predictions).items():
        values = [f"{auroc(scores, faulty):.3f}", f"{100 * among_first(scores, faulty):.0f} %"]
        for kind in Mistake:
            of_kind = np.array([any(way is kind for way, _ in each.mistakes) for each in spoilt])
            values.append(f"{auroc(scores[of_kind | ~faulty], of_kind[of_kind | ~faulty]):.3f}")
        lines.append(f"| {name} | {' | '.join(values)} |")
    return "\n".join(lines)


def rankings(spoilt: Sequence[Spoilt], predictions: Predictions) -> dict[str, np.ndarray]:
    """How suspicious each image is, by each method."""
    images = [each.image for each in spoilt]
    found = [predictions[each.name] for each in images]
    ours = [doubts.suspicion(doubts.doubts_of(*each)) for each in zip(images, found, strict=True)]
    plain = [disagreements(*each) for each in zip(images, found, strict=True)]
    scores = {"ours": np.array(ours), "plain rule": np.array(plain, np.float64)}
    if importlib.util.find_spec("cleanlab"):
        scores["cleanlab"] = cleanlab(images, found)
    return scores


def disagreements(image: LabelledImage, found: Sequence[LabelledObject]) -> int:
    """Annotations and predictions (score 0.5 or more) without a partner of their class at IoU 0.5."""
    sure = [each for each in found if doubts.confidence(each) >= 0.5]
    matched = [pair for pair in pairs(image.objects, sure, 0.5) if image.objects[pair[0]].label == sure[pair[1]].label]
    return len(image.objects) + len(sure) - 2 * len(matched)


def cleanlab(images: Sequence[LabelledImage], found: Sequence[Sequence[LabelledObject]]) -> np.ndarray:
    """1 less cleanlab's quality of each image (ObjectLab, arXiv:2309.00832)."""
    from cleanlab.object_detection.rank import get_label_quality_scores

    numbers = {name: number for number, name in enumerate(SHAPES.CLASSES)}
    labels = [
        {"bboxes": boxes_of(each.objects), "labels": np.array([numbers[one.label] for one in each.objects], int)}
        for each in images
    ]
    predictions = [_by_class(each, list(numbers)) for each in found]
    return 1 - get_label_quality_scores(labels, predictions, verbose=False)


def _by_class(found: Sequence[LabelledObject], classes: Sequence[str]) -> np.ndarray:
    """Boxes with scores, an array `n 5` a class."""
    rows = np.empty(len(classes), object)
    for number, name in enumerate(classes):
        boxes = [[*each.box, doubts.confidence(each)] for each in found if each.label == name]
        rows[number] = np.asarray(boxes, np.float64).reshape(-1, 5)
    return rows


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive one has a higher score than a negative one, ties counting half."""
    above = scores[positive][:, None] - scores[~positive][None]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def among_first(scores: np.ndarray, faulty: np.ndarray) -> float:
    """The part of the faulty images in the first 20 % of the ranking."""
    first = np.argsort(-scores, kind="stable")[: round(FIRST * len(scores))]
    return faulty[first].sum() / faulty.sum()


if __name__ == "__main__":
    main()
