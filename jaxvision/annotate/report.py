"""Report of a calibration: lines for the terminal, and a picture."""

from pathlib import Path

from jaxvision.annotate import promises
from jaxvision.annotate.checked import Checked
from jaxvision.annotate.promises import Calibration, Zones
from jaxvision.annotate.verdicts import Applied
from jaxvision.errors import amount
from jaxvision.metrics import calibration

PICTURE = "reliability.png"
FEW = 20
"""Checked images below which temperatures and promises are told to rest on too few."""


def lines(checked: Checked, found: Calibration, applied: Applied) -> list[str]:
    """What was checked, learned and done, a line each."""
    before, after = errors(checked, found)
    promise = found.promise
    told = [
        f"checked: {amount(checked.images, 'image')}, {amount(len(checked.score), 'guess')}, "
        f"{amount(len(checked.true_label), 'object')}, {amount(found_objects(checked), 'object')} found",
        *few(checked.images),
        f"calibration error: {before:.3f} before, {after:.3f} after (temperature {temperatures(found)})",
        f"promised with probability {promise.confidence:g}: accepted guesses are right in {promise.precision:g}, "
        f"at most {promise.missed:g} of the objects are dropped",
    ]
    told += [zone_line(zones, promise.precision) for zones in found.zones]
    count = applied.guesses
    told.append(
        f"store: {amount(count['accept'], 'guess')} accepted, {count['review']:,} to review, {count['drop']:,} dropped; "
        + clear_line(found, applied)
    )
    if applied.others:
        names = ", ".join(applied.other_models[:4])
        told.append(
            f"{amount(applied.others, 'guess')} of other models or settings than the checked ones, {names}: to review, "
            "since nothing is known of them"
        )
    return told


def clear_line(found: Calibration, applied: Applied) -> str:
    """How many images have nothing to review, and whether they need a look: for what no model has found."""
    fraction = applied.clear / max(applied.images, 1)
    images = f"{applied.clear:,} of {amount(applied.images, 'image')} ({fraction:.0%})"
    unseen = found.unseen
    recall = f"{unseen.objects - unseen.missed:,} of {amount(unseen.objects, 'object')} are found"
    checked = f"in the {amount(unseen.images, 'checked one')}, {recall}"
    if found.complete:
        return f"{images} need no look: {checked}, at most {unseen.bound:.1%} missed"
    missed = f"up to {unseen.bound:.0%} may be missed, more than the {found.promise.missed:g} allowed"
    return f"{images} have nothing to review, but need a look for what was not found: {checked}, {missed}"


def few(images: int) -> list[str]:
    """A warning of so few checked images that nothing can be learned of them."""
    return (
        [f"{amount(images, 'image')} {'is' if images == 1 else 'are'} few: check {FEW} or more"] if images < FEW else []
    )


def found_objects(checked: Checked) -> int:
    """Objects that a guess has found, however unsure."""
    return int(checked.right.sum())


def temperatures(found: Calibration) -> str:
    """The temperatures in words."""
    named = {name or "of all": value for name, value in found.temperatures.items()}
    if len(named) <= 2:
        return f"{found.temperatures['']:.2f}"
    return ", ".join(f"{value:.2f} {name}" for name, value in named.items())


def zone_line(zones: Zones, precision: float) -> str:
    """The zones of a group of classes."""
    name = ", ".join(zones.classes[:4]) + (f" and {len(zones.classes) - 4} more" if len(zones.classes) > 4 else "")
    accept = (
        f"accepted from {zones.accept:.3f}"
        if zones.accept is not None
        else f"none accepted: {missing(zones, precision)}"
    )
    drop = f"dropped below {zones.drop:.3f}" if zones.drop is not None else "none dropped"
    return f"  {name}: {accept}; {drop} ({amount(zones.guesses, 'guess')}, {zones.right:,} right)"


def missing(zones: Zones, precision: float) -> str:
    """What a promise needs."""
    if zones.more is not None:
        return f"check about {amount(zones.more, 'more image')}"
    if not zones.guesses:
        return "there is no guess"
    return f"not even the surest are right in {precision:g}"


def errors(checked: Checked, found: Calibration) -> tuple[float, float]:
    """Expected calibration error of the scores, and of the probabilities.

    The temperature is from the same guesses: one number from many, so that it flatters little.
    """
    probability = promises.probabilities(checked, found.temperatures)
    return calibration.error(checked.score, checked.right), calibration.error(probability, checked.right)


def draw(folder: Path, checked: Checked, found: Calibration) -> Path:
    """Draws the picture into a folder, which is made where there is none; its path."""
    from jaxvision.draw.figure import save
    from jaxvision.draw.reliability import Bar, Reliability, reliability

    probability = promises.probabilities(checked, found.temperatures)
    values = {"scores": checked.score, "calibrated": probability}
    curves = [
        Reliability(name, *calibration.bins(value, checked.right), calibration.error(value, checked.right))
        for name, value in values.items()
    ]
    bars = [Bar(*_bar(zones)) for zones in found.zones]
    text = f"{amount(checked.images, 'checked image')}  ·  {amount(len(checked.score), 'guess')}  ·  "
    text += f"precision {found.promise.precision:g} with probability {found.promise.confidence:g}"
    path = folder / PICTURE
    save(reliability(curves, bars, summary=text), path)
    return path


def _bar(zones: Zones) -> tuple[str, int, int, int, str]:
    """Name, accepted, reviewed, dropped, note."""
    ends = (f"accepted from {zones.accept:.2f}" if zones.accept is not None else "none accepted",)
    ends += (f"dropped below {zones.drop:.2f}",) if zones.drop is not None else ()
    reviewed = zones.guesses - zones.accepted - zones.dropped
    return ", ".join(zones.classes), zones.accepted, reviewed, zones.dropped, ", ".join(ends)
