"""Report of the doubts about a dataset on disk: table, pictures, and what was left out."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxvision.annotate import doubt_table, doubts, folds, listed
from jaxvision.annotate.doubts import Doubt, DoubtKind
from jaxvision.errors import ConfigError, DataError, amount, nearest, raised_as
from jaxvision.formats import opening
from jaxvision.formats.annotation import Listing
from jaxvision.formats.labelled import LabelledObject

Predictions = Mapping[str, Sequence[LabelledObject]]


class DoubtReport(NamedTuple):
    """What was found."""

    text: str
    """One line."""
    faulty: int
    """Images that have no prediction or could not be read or drawn."""


def write(
    dataset: str | Path,
    output: Path,
    *,
    split: str | None = None,
    images: str | Path | None = None,
    workdirs: Sequence[str | Path] = (),
    predictions: Sequence[Path] = (),
    score: float = 0.05,
    folder: Path | None = None,
    first: int = 50,
    complain: Callable[[str], None] = lambda text: None,
) -> DoubtReport:
    """Writes the doubts about the objects of a dataset as a table, the most likely first, and draws the first of them.

    Args:
      dataset: what `formats.open` reads.
      output: the table, `.csv` or `.jsonl`.
      split: of the dataset; None for all of it.
      images: folder of the images of a COCO file; None looks for it.
      workdirs: runs that predict, each its fold (`folds.predictions_by`).
      predictions: files of predictions, where there are no runs.
      score: the lowest score of a prediction that is used.
      folder: to draw into; None for no pictures.
      first: how many doubts are drawn.
      complain: called with a line for what can't be used.

    Raises:
      DataError: for a dataset or predictions that can't be read.
      ConfigError: for a model that does not find objects of these classes.
    """
    listing = _opened(dataset, split, images)
    if workdirs:
        found = folds.predictions_by(
            workdirs, listing.images, score, lambda file, error: complain(f"skipped {file}: {error}")
        )
    else:
        found = listed.by_name(listing.images, predictions)
    found = _of_classes(found, listing, score, complain)
    ranked = doubts.ranked(listed.images_of(listing), found)
    doubt_table.write(output, ranked)
    faulty = len(listing.images) - len(found)
    if faulty:
        complain(f"{amount(faulty, 'image')} of {len(listing.images):,} without predictions")
    if folder is not None:
        files = {image.name: image.file for image in listing.images}
        faulty += doubt_table.draw(folder, ranked, files, first)
    return DoubtReport(_line(ranked), faulty)


def _opened(dataset: str | Path, split: str | None, images: str | Path | None) -> Listing:
    with raised_as(DataError):
        listing = opening.open(dataset, split, images=images)
    if not listing.images:
        raise DataError(f"{dataset} has no image")
    return opening.without_root_category(listing)


def _line(ranked: Sequence[Doubt]) -> str:
    """How many doubts there are, and how many likely ones of each kind."""
    counts = Counter(each.kind for each in ranked if each.score >= 0.5)
    told = ", ".join(f"{counts[kind]:,} {kind}" for kind in DoubtKind)
    return f"{amount(len(ranked), 'doubt')}, of which likely (0.5 or more): {told}"


def _of_classes(found: Predictions, listing: Listing, score: float, complain: Callable[[str], None]) -> Predictions:
    """The predictions of the dataset's classes; of others a word is said."""
    names = {each.label for objects in found.values() for each in objects}
    others = sorted(names - set(listing.classes))
    if names and len(others) == len(names):
        raise ConfigError(f"the predictions are of class {others[0]!r}{nearest(others[0], listing.classes)}")
    if others:
        complain(
            f"left out predictions of {amount(len(others), 'class')} that the dataset does not have: {others[0]}, ..."
        )
    kept = set(listing.classes)
    return {
        name: tuple(each for each in objects if each.label in kept and doubts.confidence(each) >= score)
        for name, objects in found.items()
    }
