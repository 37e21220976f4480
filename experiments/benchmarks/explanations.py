"""How far maps of `jaxvision.explain` can be believed, measured on the test images of a run.

    python experiments/benchmarks/explanations.py --workdir=runs/shortcut --region=0,0,16,16 --count=100
    python experiments/benchmarks/explanations.py --workdir=runs/shapes --methods=odam --count=100
    python experiments/benchmarks/explanations.py --workdir=runs/shapes --methods=d_rise,odam --count=50 --check

Of a classifier's run, each of the first test images is explained by its best class; of a detector's, right detections: each
object's best one of its class with an IoU of 0.5 or more, image after image. What is counted, for each method:

- energy: the part of the map in the object's box, or in `--region`; mean, standard deviation, and of how many maps most is.
- peak: how often the highest value lies in it.
- correlation, with `--check`: Spearman's with the map of randomised parameters, drawn anew for each image (arXiv:1810.03292);
  a map that is then constant, or of zeros from the beginning, has none, and is counted apart.

Prints a table; results are in README.md, "How far to trust it".
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from jaxvision import run
from jaxvision.errors import ConfigError
from jaxvision.run.prediction import Model
from jaxvision.trust.explain import explaining, judging
from jaxvision.trust.explain.detections import Chosen
from jaxvision.trust.explain.explaining import Asked, Subject
from jaxvision.types import Batch, ClassScores, Detections

CLASSIFIERS = ("saliency", "smooth_grad", "integrated_gradients", "grad_cam", "grad_cam_plus_plus", "occlusion", "rise")
LEAST_IOU = 0.5


class Case(NamedTuple):
    """What is explained, and where it should be seen."""

    batch: Batch
    """One image."""
    subject: Subject
    inside: Bool[np.ndarray, "h w"] | None


class Measured(NamedTuple):
    """A method's map of a case."""

    energy: float
    peak: bool
    correlation: float


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure explanations on the test images of a run.")
    parser.add_argument("--workdir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="latest")
    parser.add_argument("--eval", metavar="NAME", help="evaluation whose images are explained (the first)")
    parser.add_argument("--methods", default=",".join(CLASSIFIERS), help="separated by commas")
    parser.add_argument(
        "--region", metavar="X0,Y0,X1,Y1", help="where a classifier should look, in pixels of the canvas"
    )
    parser.add_argument("--layer", metavar="PATH", help="layer of grad_cam, grad_cam_plus_plus and odam")
    parser.add_argument("--count", type=int, default=100, help="images, or right detections (100)")
    parser.add_argument("--masks", type=int, default=500, help="masks of rise and d_rise (500)")
    parser.add_argument("--check", action="store_true", help="compare with maps of randomised parameters")
    flags = parser.parse_args(argv)
    model = run.load(flags.workdir, flags.checkpoint, evaluation=flags.eval)
    region = None if flags.region is None else np.array([float(each) for each in flags.region.split(",")])
    found = list(cases(model, flags.eval, region, flags.count))
    print(f"{flags.workdir}: {len(found)} explanations\n{HEADING}", flush=True)
    for method in flags.methods.split(","):
        started = time.perf_counter()
        asked = Asked(layer=flags.layer, masks=flags.masks)
        measured = [measure(model, case, method, asked._replace(seed=n), flags.check) for n, case in enumerate(found)]
        print(line(method, measured, time.perf_counter() - started), flush=True)


def cases(model: Model, name: str | None, region: Float[np.ndarray, "4"] | None, count: int) -> Iterator[Case]:
    """The first cases of an evaluation."""
    stream = model.evaluations[name or next(iter(model.evaluations))].stream
    left = count
    for batch in stream.batches(0):
        predicted = jax.device_get(jax.jit(model.task.predict)(model.variables, batch.replace(target=None)))
        for row in np.flatnonzero(batch.valid):
            pick = lambda tree, row=row: jax.tree.map(lambda x: np.asarray(x)[row : row + 1], tree)
            one, prediction = pick(batch.replace(target=None)), pick(predicted)
            target = pick(batch.target)
            for case in _of_image(model, one, prediction, target, region):
                yield case
                left -= 1
                if not left:
                    return


def _of_image(model: Model, batch: Batch, prediction, target, region: Float[np.ndarray, "4"] | None) -> Iterator[Case]:
    height, width = batch.size[0].tolist()
    task = model.task, model.variables, batch, model.classes
    if isinstance(prediction, Detections):
        for chosen, box in right(prediction, target):
            yield Case(batch, explaining.of_detector(*task, Asked(), chosen), judging.inside(box, (height, width)))
        return
    assert isinstance(prediction, ClassScores)
    inside = None if region is None else judging.inside(region, (height, width))
    yield Case(batch, explaining.of_label(*task, int(prediction.logits[0].argmax()), prediction), inside)


def right(found: Detections, target) -> Iterator[tuple[Chosen, Float[np.ndarray, "4"]]]:
    """The best right detection of each object of an image, and the object's box."""
    boxes, labels, scores, valid = (np.asarray(x)[0] for x in (found.boxes, found.labels, found.scores, found.valid))
    order = [row for row in np.argsort(-scores, kind="stable") if valid[row]]
    taken: set[int] = set()
    for place in np.flatnonzero(target.valid[0] & ~target.ignore[0]):
        box = target.boxes[0, place]
        for row in order:
            if row not in taken and labels[row] == target.labels[0, place] and iou(boxes[row], box) >= LEAST_IOU:
                taken.add(row)
                assert found.index is not None
                yield (
                    Chosen(int(np.asarray(found.index)[0, row]), int(labels[row]), boxes[row], float(scores[row])),
                    box,
                )
                break


def iou(a: Float[np.ndarray, "4"], b: Float[np.ndarray, "4"]) -> float:
    """The intersection over union of two boxes."""
    area = lambda box: np.prod(np.maximum(box[2:] - box[:2], 0))
    met = area(np.concatenate([np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])]))
    return float(met / (area(a) + area(b) - met))


def measure(model: Model, case: Case, method: str, asked: Asked, check: bool) -> Measured:
    """The map of a case, by a method, and what it is worth; NaN for what is not asked for, and of a map of zeros."""
    map = explaining.mapped(case.subject, case.batch, method, asked)
    correlation = energy = float("nan")
    peak = False
    if not map.any():
        return Measured(energy, peak, correlation)
    if case.inside is not None:
        energy, peak = judging.energy_inside(map, case.inside), judging.points_inside(map, case.inside)
    if check:
        task = model.task, model.variables, case.batch, model.classes
        correlation = explaining.correlation_when_random(*task, method, asked, case.subject, map)
    return Measured(energy, peak, correlation)


HEADING = """| method | energy, %: mean (deviation), most of it | peak, % | correlation: mean (deviation), none | seconds |
|---|---|---|---|---|"""


def line(method: str, measured: Sequence[Measured], seconds: float) -> str:
    """A line of the table."""
    energy, peak, correlation = (np.array(column, float) for column in zip(*measured, strict=True))
    cells = ["", "", ""]
    if not np.isnan(energy).all():
        most = f"{100 * (energy > 0.5).mean():.0f} %"
        cells[:2] = (
            f"{100 * np.nanmean(energy):.1f} ({100 * np.nanstd(energy):.1f}), {most}",
            f"{100 * peak.mean():.1f}",
        )
    known = correlation[~np.isnan(correlation)]
    if len(known):
        cells[2] = f"{known.mean():.3f} ({known.std():.3f}), {len(correlation) - len(known)}"
    return f"| {' | '.join([method, *cells, f'{seconds:.0f}'])} |"


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        raise SystemExit(str(error)) from None
