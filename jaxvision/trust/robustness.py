"""Robustness of a run: its evaluation on clean images and on each corruption at each severity, every one kept at once.

A measurement is a file; one that is there and was made with the same settings is not made again. So what was interrupted
goes on, and comes to the same tables.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvision.errors import ConfigError, DataError, amount, nearest, raised_as, write_atomically
from jaxvision.experiment import Evaluation
from jaxvision.run import hashes
from jaxvision.run.evaluation import Evaluated, Opened
from jaxvision.trust import corruption_error as error_of
from jaxvision.trust.corrupted import corrupted
from jaxvision.trust.corruptions import (
    COMMON,
    DEFORMATIONS,
    EVERY,
    FROST,
    OBJECTS,
    SEVERITIES,
    Family,
    check,
    choose,
    family_of,
)
from jaxvision.trust.occluded import has_objects
from jaxvision.types import Stream

CLEAN = "clean"
SCORES = ("accuracy", "AP", "mask_AP", "miou", "pq", "PQ", "balanced_accuracy", "f1_macro")
"""Metrics by which a run is judged unless another is asked for or its best checkpoint is chosen by one; more is better."""
VERSION = 2
"""Changes when measurements of before can't stand beside those of now."""


class Settings(NamedTuple):
    """What is measured."""

    names: tuple[str, ...]
    """Corruptions, by name."""
    severities: tuple[int, ...]
    seed: int
    family: Family
    photographs: Path | None = None
    """The folder with those of frost."""

    def check(self) -> None:
        """Raises ConfigError for a name, a severity or a seed that is none, DataError for photographs that are not those."""
        if not self.names or not self.severities:
            raise ConfigError("robustness needs a corruption and a severity at least")
        if not 0 <= self.seed < 2**64:
            raise ConfigError(f"seed is {self.seed}; it must be at least 0 and below 2**64")
        for name in self.names:
            for severity in self.severities:
                check(name, severity)
                if name not in (*DEFORMATIONS, OBJECTS):
                    choose(name, severity, self.family, self.photographs)


class Measured(NamedTuple):
    """One measurement."""

    metrics: Mapping[str, float]
    predicted: np.ndarray | None
    """The class of each example, in the order of their index; None where that is not what is predicted."""
    right: np.ndarray | None = None
    """Whether that is the class of its label."""


class Robustness(NamedTuple):
    """All measurements of an evaluation."""

    clean: Measured
    corrupted: Mapping[tuple[str, int], Measured]
    """By the name of the corruption and the severity."""

    @property
    def names(self) -> tuple[str, ...]:
        """The corruptions, in the order of the published table."""
        found = {name for name, _ in self.corrupted}
        return tuple(name for name in EVERY if name in found)

    @property
    def severities(self) -> tuple[int, ...]:
        """The severities, the mildest first."""
        return tuple(sorted({severity for _, severity in self.corrupted}))

    def scores(self, metric: str) -> dict[str, list[float]]:
        """The metric by corruption, a value a severity."""
        return {
            name: [self.corrupted[name, severity].metrics[metric] for severity in self.severities]
            for name in self.names
        }


def measure(
    run: Opened, name: str, settings: Settings, folder: Path, said: Callable[[str], object] = lambda text: None
) -> Robustness:
    """The evaluation of this name on clean and on corrupted images.

    Args:
      run: as opened.
      name: of the evaluation.
      settings: what to measure.
      folder: where measurements are kept, one file each; those that are there and have the same settings are taken.
      said: called with a line before each measurement.

    Raises:
      ConfigError: for settings that are none.
      DataError: if the data can't be read, or an image is too small to corrupt.
    """
    settings.check()
    stream = run.evaluations[name].stream
    with raised_as(DataError):
        of = _settings_of(run, name, settings, stream)
    kept = _Kept(folder, of, run.measuring(name), said)
    clean = kept.take(CLEAN, lambda: stream)
    found = {}
    for corruption in settings.names:
        for severity in settings.severities:
            key = f"{corruption}_{severity}"
            found[corruption, severity] = kept.take(key, lambda: _shown(stream, corruption, severity, settings))  # noqa: B023
    return Robustness(clean, found)


def _shown(stream: Stream, name: str, severity: int, settings: Settings) -> Stream:
    return corrupted(stream, name, severity, settings.seed, family=settings.family, photographs=settings.photographs)


def _settings_of(run: Opened, name: str, settings: Settings, stream: Stream) -> dict[str, Any]:
    """What a measurement was made with, as JSON data: one with the same is the same."""
    return {
        "version": VERSION,
        "step": run.step,
        "variables": hashes.sha256(run.variables),
        "weights": run.weights,
        "evaluation": name,
        "data": stream.about().fingerprint,
        "seed": settings.seed,
        "constants": settings.family,
    }


class _Kept:
    """Measurements in a folder, each made once."""

    def __init__(
        self, folder: Path, of: Mapping[str, Any], run: Callable[[Stream], Evaluated], said: Callable[[str], object]
    ):
        self._folder, self._of, self._run, self._said = folder, of, run, said

    def take(self, key: str, stream: Callable[[], Stream]) -> Measured:
        """The measurement of this key, from its file or made now and written."""
        path = self._folder / f"{key}.json"
        found = _read(path, self._of)
        if found is not None:
            return found
        self._said(key)
        evaluated = self._run(stream())
        predicted = _classes(evaluated.rows)
        right = None if predicted is None else predicted == np.asarray(evaluated.rows["label"])
        found = Measured(evaluated.metrics, predicted, right)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _as_json(found, self._of))
        return found


def _classes(rows: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """What a classifier predicts; None for rows of another task."""
    predicted = rows.get("predicted")
    if (
        predicted is None
        or "label" not in rows
        or np.ndim(predicted) != 1
        or not np.issubdtype(predicted.dtype, np.integer)
    ):
        return None
    return np.asarray(predicted)


def _as_json(measured: Measured, of: Mapping[str, Any]) -> str:
    metrics = {key: value if math.isfinite(value) else None for key, value in measured.metrics.items()}
    answers = {"predicted": measured.predicted, "right": measured.right}
    listed = {name: None if each is None else each.astype(int).tolist() for name, each in answers.items()}
    return json.dumps({"of": of, "metrics": metrics, **listed}) + "\n"


def _read(path: Path, of: Mapping[str, Any]) -> Measured | None:
    """A measurement from its file; None where there is none, it was made with other settings, or it can't be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["of"] != of:
            return None
        metrics = {key: math.nan if value is None else float(value) for key, value in data["metrics"].items()}
        answers = ((data["predicted"], np.int64), (data["right"], bool))
        return Measured(metrics, *(None if each is None else np.asarray(each, of_type) for each, of_type in answers))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def chosen_metric(metrics: Mapping[str, float], asked: str | None, by: str | None) -> str:
    """The metric to judge by: the one asked for, or that of the best checkpoint, or the first of `SCORES`.

    Args:
      metrics: of the evaluation.
      asked: its name, or None.
      by: the metric that the best checkpoint is chosen by, without the evaluation's name, or None.

    Raises:
      ConfigError: if there is none.
    """
    if asked is not None:
        if asked not in metrics:
            raise ConfigError(f"the evaluation has no metric {asked!r}{nearest(asked, tuple(metrics))}")
        return asked
    found = next((each for each in (by, *SCORES) if each in metrics), None)
    if found is None:
        raise ConfigError(f"name the metric to judge by (--metric=NAME){nearest('', tuple(metrics))}")
    return found


def summary(found: Robustness, metric: str) -> dict[str, float]:
    """What all measurements come to, by one metric, of which more is better.

    For a classifier's accuracy: the clean error, the mean error under corruption, and where all severities were measured mCE
    and relative mCE, of the common corruptions that were. For any other: its clean value, mPC and rPC. For classifiers also
    the flip rate between neighbouring severities, the clean images being the first. All are fractions, and means over the
    common corruptions that were measured; over all where none was.
    """
    clean, pooled = found.clean.metrics[metric], [name for name in found.names if name in COMMON] or found.names
    scores = {name: each for name, each in found.scores(metric).items() if name in pooled}
    if metric != "accuracy":
        rates = {"clean": clean, "mPC": error_of.mean_performance(scores)}
        rates["rPC"] = error_of.relative_performance(scores, clean)
    else:
        errors = {name: [1 - score for score in each] for name, each in scores.items()}
        rates = {"clean_error": 1 - clean, "mean_error": error_of.mean_performance(errors)}
        if found.severities == SEVERITIES:
            rates["mCE"] = error_of.mean_corruption_error(errors)
            rates["relative_mCE"] = error_of.relative_mean_corruption_error(errors, 1 - clean)
    flips = {name: rate for name, rate in flip_rates(found).items() if name in pooled}
    return rates | ({"flip_rate": float(np.mean(list(flips.values())))} if flips else {})


def flip_rates(found: Robustness) -> dict[str, float]:
    """By corruption, how often a classifier's prediction changes from one severity to the next; empty for other tasks."""
    rates = {}
    for name in found.names:
        each = [found.clean.predicted, *(found.corrupted[name, severity].predicted for severity in found.severities)]
        if all(predicted is not None for predicted in each):
            rates[name] = error_of.flip_rate([predicted for predicted in each if predicted is not None])
    return rates


def settings_for(
    evaluation: Evaluation,
    names: Sequence[str],
    severities: Sequence[int],
    seed: int = 0,
    family: Family | None = None,
    photographs: Path | None = None,
) -> tuple[Settings, list[str]]:
    """The settings for an evaluation, and lines on what is left out, unless it is named alone.

    That is frost without photographs, and the occlusion by objects where the data have none.
    """
    spec, chosen, lines = evaluation.stream.spec, tuple(dict.fromkeys(names)), []
    reasons = {FROST: "its photographs are given with --frost=FOLDER"} if photographs is None else {}
    if not has_objects(spec):
        reasons[OBJECTS] = "the data have no objects to be cut out"
    if len(chosen) > 1:
        lines = [f"{name} is left out: {why}" for name, why in reasons.items() if name in chosen]
        chosen = tuple(name for name in chosen if name not in reasons)
    family = family or family_of(*spec.image.shape[1:3])
    return Settings(chosen, tuple(sorted(set(severities))), seed, family, photographs), lines


def table(found: Robustness, metric: str) -> Iterator[tuple[str, ...]]:
    """Lines of a table, the head first: a corruption, its score at each severity, mean, CE and flips if there are some."""
    scores, flips = found.scores(metric), flip_rates(found)
    is_error = metric == "accuracy" and found.severities == SEVERITIES
    clean = f"{found.clean.metrics[metric]:.4f}"
    heads = (
        "corruption",
        *map(str, found.severities),
        "mean",
        *(["CE"] if is_error else []),
        *(["flips"] if flips else []),
    )
    yield heads
    yield (CLEAN, *[""] * len(found.severities), clean, *[""] * (len(heads) - len(found.severities) - 2))
    for name, each in scores.items():
        line = [name, *(f"{score:.4f}" for score in each), f"{np.mean(each):.4f}"]
        if is_error:
            baseline = error_of.ALEXNET.get(name)
            errors = [1 - score for score in each]
            line.append("" if baseline is None else f"{error_of.corruption_error(errors, baseline):.4f}")
        yield (*line, *([f"{flips[name]:.4f}"] if flips else []))


def counted(settings: Settings) -> str:
    """How much there is to measure, for a person."""
    return f"{amount(len(settings.names), 'corruption')} at {amount(len(settings.severities), 'severity')}"
