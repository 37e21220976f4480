"""Promises: three zones of probabilities, with what is promised of each, from a small set of checked images.

Guesses at or above `accept` are right in at least the fraction `precision`; below `drop` lie at most the fraction `missed` of
the objects; a person reviews what is between. Each promise of each group of classes is kept with at least the probability
`confidence` over the checked images, as long as these are a random sample of the images that it is made for, all labelled by
the same models. What no model has found is in no zone: how much that is in images of which nothing is left to review, the
checked ones tell (`Unseen`).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvision.annotate import bounds
from jaxvision.annotate.checked import Checked
from jaxvision.errors import DataError
from jaxvision.metrics import calibration

Where = Literal["accept", "review", "drop"]
VERSION = 2
"""Version of the JSON text."""
THRESHOLDS = 60
"""Most thresholds that are tested."""
LIKELY = 10
"""Guesses, half as often wrong as is allowed, that stand for what is known before few have been checked."""


class Guesses(NamedTuple):
    """The guesses of all images that a promise is made for, checked or not: how many lie in one image is known of them."""

    models: tuple[str, ...]
    image: Int[np.ndarray, "n"]
    """Number of each guess's image, of those here."""
    label: Int[np.ndarray, "n"]
    """Number of its class, of those of the checked images."""
    model: Int[np.ndarray, "n"]
    score: Float[np.ndarray, "n"]


class Promise(NamedTuple):
    """What is to hold."""

    precision: float = 0.9
    """Least fraction of the accepted guesses that is right."""
    confidence: float = 0.9
    """Least probability that it holds."""
    missed: float = 0.05
    """Largest fraction of the objects that is dropped."""


USUAL = Promise()


class Zones(NamedTuple):
    """Zones of the guesses of a group of classes."""

    classes: tuple[str, ...]
    accept: float | None
    """Least probability that is accepted; None: none is."""
    drop: float | None
    """Least probability that is not dropped; None: none is dropped."""
    images: int
    """Checked images."""
    guesses: int
    """Their guesses of these classes."""
    right: int
    """Right ones among them."""
    objects: int
    """True objects of these classes."""
    accepted: int = 0
    """Checked guesses that are accepted."""
    dropped: int = 0
    """Checked guesses that are dropped."""
    more: int | None = 0
    """About how many more images must be checked until guesses are accepted; None where no number seems to do."""


class Unseen(NamedTuple):
    """Objects of the checked images with nothing left to review: each guess is accepted or dropped, one accepted at least."""

    images: int = 0
    objects: int = 0
    missed: int = 0
    """Objects that no accepted guess has found."""
    bound: float = 1.0
    """Largest fraction that is missed in such images, with the probability of the promise; 1 where nothing is known.

    A little too small, since the zones come from the same images.
    """


class Calibration(NamedTuple):
    """All that is known from the checked images; `as_json` and `of_json` keep it as a setting of a store."""

    promise: Promise
    temperatures: Mapping[str, float]
    """By the name of the model; that of "" for every other."""
    zones: tuple[Zones, ...]
    unseen: Unseen = Unseen()
    made_by: str = ""
    """Digest of the models and settings whose guesses it is of (`makers`); it says nothing of others."""

    @property
    def complete(self) -> bool:
        """Whether in images with nothing left to review no more objects are missed than was promised."""
        return self.unseen.bound <= self.promise.missed

    def zone(self, label: str, probability: float) -> Where:
        """Zone of a guess; a class that the checked images have not is reviewed."""
        zones = next((each for each in self.zones if label in each.classes), None)
        if zones is None:
            return "review"
        if zones.accept is not None and probability >= zones.accept:
            return "accept"
        return "drop" if zones.drop is not None and probability < zones.drop else "review"

    def as_json(self) -> str:
        """The JSON text."""
        zones = [each._asdict() for each in self.zones]
        content = {"promise": self.promise._asdict(), "temperatures": dict(self.temperatures), "zones": zones}
        content |= {"unseen": self.unseen._asdict(), "made_by": self.made_by}
        return json.dumps({"version": VERSION, **content}, ensure_ascii=False, sort_keys=True)


def of_json(text: str) -> Calibration:
    """The calibration of a JSON text; raises DataError for one that is none, or of a newer version.

    Version 1 did not know of which models it was: it says nothing of any.
    """
    try:
        found = json.loads(text)
        if found["version"] > VERSION:
            raise DataError(f"the calibration has version {found['version']}, this program reads up to {VERSION}")
        zones = tuple(Zones(**{**each, "classes": tuple(each["classes"])}) for each in found["zones"])
        unseen = Unseen(**found.get("unseen", {}))
        return Calibration(Promise(**found["promise"]), found["temperatures"], zones, unseen, found.get("made_by", ""))
    except (ValueError, TypeError, LookupError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"it is no calibration: {error!r}") from error


def calibrated(calibrated_by: Calibration, label: str, score: float, model: str = "") -> float:
    """Probability that a guess is right.

    Args:
      calibrated_by: from the checked images.
      label: its class; the temperature is one for all.
      score: as the model gave it.
      model: its name (`checked.model_of`); of one that is not known the temperature is that of all guesses.
    """
    temperatures = calibrated_by.temperatures
    return float(calibration.probability(np.array([score]), temperatures.get(model, temperatures[""]))[0])


def calibrate(checked: Checked, promise: Promise = USUAL, guesses: Guesses | None = None) -> Calibration:
    """Temperatures and zones from the checked images.

    Args:
      checked: a random sample of the images that the promise is for.
      promise: what is to hold.
      guesses: those of all of these images; None: of the checked ones, whose crowds may be too few to tell.
    """
    temperatures = temperatures_of(checked)
    everywhere = _of_checked(checked) if guesses is None else guesses
    found = (zones(checked, everywhere, temperatures, each, promise) for each in groups(checked, promise))
    calibration = Calibration(promise, temperatures, tuple(found))
    return calibration._replace(unseen=unseen(checked, calibration, more_crowded(everywhere.image, checked.image)))


def _of_checked(checked: Checked) -> Guesses:
    return Guesses(checked.models, checked.image, checked.label, checked.model, checked.score)


def temperatures_of(checked: Checked) -> dict[str, float]:
    """Temperature of all guesses, as "", and of each model with enough of them, right and wrong."""
    found = {"": calibration.temperature(checked.score, checked.right)}
    for number, name in enumerate(checked.models):
        of = checked.model == number
        right = np.count_nonzero(checked.right[of])
        if name and min(right, np.count_nonzero(of) - right) >= LIKELY:
            found[name] = calibration.temperature(checked.score[of], checked.right[of])
    return found


def probabilities(checked: Checked | Guesses, temperatures: Mapping[str, float]) -> Float[np.ndarray, "n"]:
    """Probability of each guess."""
    each = np.array([temperatures.get(name, temperatures[""]) for name in checked.models] or [1.0])
    return calibration.probability(checked.score, each[checked.model])


def groups(checked: Checked, promise: Promise) -> list[tuple[int, ...]]:
    """Classes with enough guesses alone, the others together; with the next larger ones if they are too few even so.

    Guesses count that their model holds for more likely right than wrong. Which were right is not looked at, so that every
    group keeps its promise.
    """
    counts = np.bincount(checked.label[checked.score >= 0.5], minlength=len(checked.classes))
    needed = least(promise)
    order = [int(label) for label in np.argsort(counts, kind="stable")]
    few = [label for label in order if counts[label] < needed]
    alone = order[len(few) :]
    while few and alone and counts[few].sum() < needed:
        few.append(alone.pop(0))
    return sorted([(label,) for label in alone] + ([tuple(sorted(few))] if few else []))


def least(promise: Promise) -> int:
    """Guesses with which the sequence of thresholds begins: they do if half as many are wrong as are allowed."""
    wrong = 1 - promise.precision
    return int(np.ceil(bounds.enough(wrong / 2, wrong, 1 - promise.confidence)))


def zones(
    checked: Checked,
    guesses: Guesses,
    temperatures: Mapping[str, float],
    labels: Sequence[int],
    promise: Promise,
) -> Zones:
    """Zones of the guesses of these classes."""
    image, probability, of = _of_classes(checked, temperatures, labels)
    everywhere = _of_classes(guesses, temperatures, labels)[:2]
    right = checked.right[of]
    objects = np.bincount(checked.true_image[np.isin(checked.true_label, labels)], minlength=checked.images)
    accept, more = accepting(image, probability, right, checked.images, promise, everywhere)
    times = more_crowded(everywhere[0], image)
    drop = dropping(image[right], probability[right], objects, probability, promise, times)
    if accept is not None and drop is not None:
        drop = min(accept, drop)
    return Zones(
        tuple(checked.classes[label] for label in labels),
        accept,
        drop,
        checked.images,
        len(right),
        int(right.sum()),
        int(objects.sum()),
        accepted=0 if accept is None else int(np.count_nonzero(probability >= accept)),
        dropped=0 if drop is None else int(np.count_nonzero(probability < drop)),
        more=more,
    )


def _of_classes(
    found: Checked | Guesses, temperatures: Mapping[str, float], labels: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image and probability of each guess of these classes, and which guesses these are."""
    of = np.isin(found.label, labels)
    return found.image[of], probabilities(found, temperatures)[of], of


def more_crowded(everywhere: Int[np.ndarray, "n"], checked: Int[np.ndarray, "k"]) -> float:
    """How many times as many guesses as in the checked images a guess has in its image, over all images; 1 at least.

    Args:
      everywhere: image of each guess.
      checked: image of each guess of the checked images.
    """
    one, other = (float(bounds.crowd(np.bincount(each).astype(float))) for each in (everywhere, checked))
    return max(one / other, 1.0) if other else 1.0


def unseen(checked: Checked, found: Calibration, times: float = 1.0) -> Unseen:
    """What is missed in the checked images of which nothing is left to review.

    Args:
      checked: the images.
      found: from them.
      times: how much more crowded other images are (`more_crowded`).
    """
    listed = zip(checked.label, probabilities(checked, found.temperatures), strict=True)
    zone = np.array([found.zone(checked.classes[label], float(each)) for label, each in listed], object)
    accepted, review = (zone == where for where in ("accept", "review"))
    count = [
        np.bincount(each, minlength=checked.images).astype(float)
        for each in (
            checked.true_image,
            checked.image[accepted & checked.right],
            checked.image[accepted],
            checked.image[review],
        )
    ]
    clear = (count[2] > 0) & (count[3] == 0)
    objects = count[0][clear]
    missed = objects - count[1][clear]
    bound = bounds.most(objects, missed, 1 - found.promise.confidence, times * float(bounds.crowd(objects)))
    return Unseen(int(clear.sum()), int(objects.sum()), int(missed.sum()), bound)


def accepting(
    image: Int[np.ndarray, "n"],
    probability: Float[np.ndarray, "n"],
    right: Bool[np.ndarray, "n"],
    images: int,
    promise: Promise,
    everywhere: tuple[Int[np.ndarray, "m"], Float[np.ndarray, "m"]] | None = None,
) -> tuple[float | None, int | None]:
    """Least probability to accept, None if none is, and about how many more images would be needed for one.

    Thresholds are tested from above. The first leaves enough guesses for a promise; where the others lie depends on the
    probabilities alone.

    Args:
      image: of each checked guess.
      probability: of each.
      right: whether it is.
      images: how many are checked.
      promise: what is to hold.
      everywhere: image and probability of all guesses that it is to hold for; None: the checked ones.
    """
    if not len(image):
        return None, None
    allowed, doubt = 1 - promise.precision, 1 - promise.confidence
    tested = thresholds(-probability, least(promise))
    total, wrong = _found(image, probability, right, tested, images)
    everywhere = (image, probability) if everywhere is None else everywhere
    found = bounds.passed(bounds.chance(total, wrong, allowed, doubt, _crowded(everywhere, tested)), doubt)
    if found:
        return float(-tested[found - 1]), 0
    tested = thresholds(-probability, LIKELY)
    total, wrong = _found(image, probability, right, tested, images)
    return None, _more(total, wrong, images, promise, _crowded(everywhere, tested))


def _crowded(everywhere: tuple[np.ndarray, np.ndarray], tested: np.ndarray) -> Float[np.ndarray, "t"]:
    """The crowd (`bounds.crowd`) of the guesses at or above each threshold, which `tested` has negative."""
    image, probability = everywhere
    counted = (np.bincount(image[probability >= -limit]).astype(float) for limit in tested)
    return np.array([bounds.crowd(each) for each in counted])


def _found(
    image: np.ndarray, probability: np.ndarray, right: np.ndarray, tested: np.ndarray, images: int
) -> tuple[np.ndarray, np.ndarray]:
    """Guesses of each image at or above each threshold, which `tested` has negative, and the wrong ones among them."""
    total = counts(image, -probability, tested, images)
    return total, total - counts(image[right], -probability[right], tested, images)


def dropping(
    image: Int[np.ndarray, "k"],
    probability: Float[np.ndarray, "k"],
    objects: Int[np.ndarray, "images"],
    guesses: Float[np.ndarray, "n"],
    promise: Promise,
    times: float = 1.0,
) -> float | None:
    """Least probability that is not dropped, None where nothing may be.

    Args:
      image: of the right guesses, whose objects are missed if they are dropped.
      probability: of the right guesses.
      objects: true objects of each image.
      guesses: probabilities of all guesses, by which thresholds lie.
      promise: what is to hold.
      times: how much more crowded than the checked images those are that it is to hold for (`more_crowded`).
    """
    if not len(guesses) or not objects.sum():
        return None
    doubt = 1 - promise.confidence
    tested = np.append(thresholds(guesses, 1), guesses.max() + 10.0**-calibration.DIGITS)
    lost = counts(image, probability, tested, len(objects), below=True)
    total, crowded = np.broadcast_to(objects, lost.shape), times * bounds.crowd(objects.astype(float))
    found = bounds.passed(bounds.chance(total, lost, promise.missed, doubt, crowded), doubt)
    return float(np.round(tested[found - 1], calibration.DIGITS)) if found else None


def thresholds(value: Float[np.ndarray, "n"], first: int) -> Float[np.ndarray, "t"]:
    """At most `THRESHOLDS` of the values, ascending; at or below the first lie `first` values, at or below the last all."""
    places = np.linspace(min(first, len(value)) - 1, len(value) - 1, THRESHOLDS).round().astype(int)
    return np.unique(np.sort(value)[places])


def counts(
    image: Int[np.ndarray, "n"], value: Float[np.ndarray, "n"], tested: np.ndarray, images: int, below: bool = False
) -> Float[np.ndarray, "t images"]:
    """How many values of each image lie at or below each threshold; with `below` not at it."""
    place = np.searchsorted(tested, value, side="right" if below else "left")
    table = np.zeros((len(tested) + 1, images))
    np.add.at(table, (place, image), 1)
    return table[:-1].cumsum(0)


def _more(total: np.ndarray, wrong: np.ndarray, images: int, promise: Promise, crowded: np.ndarray) -> int | None:
    """About how many more images are needed, if the next ones are like these; None if too many guesses are wrong."""
    allowed, doubt = 1 - promise.precision, 1 - promise.confidence
    objects, count = bounds.effective(total, wrong, crowded), total.sum(1)
    likely = (wrong.sum(1) + LIKELY * allowed / 2) / (count + LIKELY)
    needed = np.array([bounds.enough(float(each), allowed, doubt) for each in likely])
    times = float(np.min(np.maximum(needed / np.maximum(objects, 1e-9), least(promise) / count)))
    return max(1, int(np.ceil(images * (times - 1)))) if np.isfinite(times) else None
