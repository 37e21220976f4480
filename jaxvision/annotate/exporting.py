"""Exports: the records of a store, or those of them that are wanted, as a dataset of a format."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, get_args

from jaxvision.annotate import order
from jaxvision.annotate.exchange import exchange
from jaxvision.annotate.records import Annotation, ImageRecord, State
from jaxvision.annotate.store import Store, file_of
from jaxvision.errors import amount
from jaxvision.formats import converting
from jaxvision.formats.converting import Format, Masks
from jaxvision.formats.labelled import Dataset, Loss
from jaxvision.formats.losses import told

STATES: tuple[State, ...] = get_args(State)
COMPLETE = "complete"
"""Counts the images of `Exported.complete` beside what is left out."""


class Wanted(NamedTuple):
    """Which records and objects are exported."""

    states: tuple[State, ...] = STATES
    """Images in one of these."""
    least_score: float = 0.0
    """Guesses with at least this score, those that a person touched or saw in a reviewed image whatever their score."""
    least_probability: float = 0.0
    """Guesses with at least this calibrated probability; above 0, those without one are left out."""

    def has(self, each: Annotation, state: State) -> bool:
        """Whether the object of an image in this state is wanted: in a reviewed one a person let it stand, so it is right."""
        if each.decided or state == "reviewed":
            return True
        return (each.score is None or each.score >= self.least_score) and (
            each.probability or 0.0
        ) >= self.least_probability


class Exported(NamedTuple):
    """What was exported, and what was not."""

    dataset: Dataset
    losses: list[Loss]
    """What the format has no place for."""
    left_out: list[Loss]
    """What of the store was not wanted, or can't be."""
    complete: int = 0
    """Images that were left out since nobody marked them as reviewed, though all their objects are decided."""


def export(
    store: Path,
    output: Path,
    format: Format,
    wanted: Wanted | None = None,
    *,
    replace: bool = False,
    masks: Masks | None = None,
) -> Exported:
    """Writes the dataset of a store.

    Args:
      store: its file, or the folder with `annotations.sqlite`.
      output: a file of COCO or CVAT, a folder of the other formats; one that is not empty is refused.
      format: the format.
      wanted: which records and objects; None for all.
      replace: whether what is there is replaced, if it is of the format.
      masks: masks all as run lengths, or as polygons where they have no hole; None leaves them as they are.

    Raises:
      DataError: for no store, for what is there already, and for what the format can't hold at all.
    """
    with Store(file_of(store), readonly=True) as opened:
        found, left_out, complete = chosen(opened, wanted or Wanted())
        images = _folder(opened)
    losses = converting.write(found, output, format, replace=replace, images=images, masks=masks)
    return Exported(found, losses, left_out, complete)


def chosen(store: Store, wanted: Wanted) -> tuple[Dataset, list[Loss], int]:
    """The dataset of the records that are wanted, what is left out of it, and `Exported.complete`."""
    counts: dict[str, int] = {}
    classes = json.loads(store.settings.get("classes", "[]"))
    found = exchange(_wanted(store.records(), wanted, counts), classes)
    counts["image that can't be read"] = len(found.failures)
    counts["rejected object"] = found.rejected
    complete = counts.pop(COMPLETE, 0)
    return found.dataset, [Loss(what, count) for what, count in counts.items() if count], complete


def _wanted(records: Iterable[ImageRecord], wanted: Wanted, counts: dict[str, int]) -> Iterator[ImageRecord]:
    """The records in their states with the objects that are wanted; counts the others."""
    for record in records:
        if record.state not in wanted.states:
            what = f"image of state {record.state}"
            counts[what] = counts.get(what, 0) + 1
            counts[COMPLETE] = counts.get(COMPLETE, 0) + ("reviewed" in wanted.states and order.complete(record))
            continue
        kept = tuple(each for each in record.objects if each.verdict == "rejected" or wanted.has(each, record.state))
        what = "guess below the least score or probability"
        counts[what] = counts.get(what, 0) + len(record.objects) - len(kept)
        yield record._replace(objects=kept)


def _folder(store: Store) -> Path | None:
    """The folder of the images, if it is known and there."""
    said = json.loads(store.settings.get("images", "null"))
    return Path(said) if isinstance(said, str) and Path(said).is_dir() else None


def lines(store: Path, output: Path, format: Format, exported: Exported) -> list[str]:
    """What to tell of an export."""
    left_out = [f"left out of {store}: {told(exported.left_out)}"] if exported.left_out else []
    if exported.complete:
        left_out.append(
            f"of {amount(exported.complete, 'image')} left out all objects are decided: if none is missing, mark as "
            f"reviewed in `annotate review` (Enter, or V for all of them), and export again"
        )
    return [*converting.lines(output, format, exported.dataset, exported.losses), *left_out]
