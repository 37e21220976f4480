"""Summary of a store: images, objects of each class, what is left out, and what went wrong with which file.

It says how things are, not what a run did, so that a second run that changes nothing writes the same.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxvision.annotate.listing import Listing
from jaxvision.annotate.records import ImageRecord
from jaxvision.errors import amount, printable, write_atomically
from jaxvision.formats.files import left_out

SHOWN = 20
"""Problems that are printed; all are in the file."""


class Summary(NamedTuple):
    """Summary of a folder that was labelled."""

    images: int
    """Images that are labelled."""
    without_objects: int
    reviewed: int
    """Images that a person has looked at all of."""
    objects: dict[str, int]
    """Objects of each class, the most frequent first, without those that were rejected."""
    left_out: dict[str, int]
    """Files that are no images, by suffix or by what they are."""
    problems: dict[str, str]
    """Files that could not be read or labelled, and why; by name."""
    remarks: dict[str, str]
    """Files that were labelled, and what a person should know of them; by name."""
    notes: tuple[str, ...] = ()
    """What a person should know of the whole."""
    labelled: int = 0
    """Images that this run labelled; not in the file, nor what follows."""
    passed: int = 0
    """Images that had nothing to do."""
    backups: tuple[Path, ...] = ()
    """Copies of the store that were made before a person's work was taken back."""

    @property
    def status(self) -> int:
        """Exit status: 1 if there are problems."""
        return 1 if self.problems else 0

    def write(self, path: Path) -> None:
        """Writes it as JSON; a file that says the same is left as it is."""
        text = self.json()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_atomically(path, text)

    def json(self) -> str:
        """JSON text."""
        known = {key: value for key, value in self._asdict().items() if key not in ("labelled", "passed", "backups")}
        for key in ("problems", "remarks"):
            known[key] = [{"file": file, "reason": reason} for file, reason in known[key].items()]
        return json.dumps(known, indent=1, ensure_ascii=False) + "\n"

    def lines(self) -> Iterator[str]:
        """What to print."""
        count = sum(self.objects.values())
        yield f"{amount(self.images, 'image')} with {amount(count, 'object')}, {self.without_objects:,} without any"
        why = "labelled before by the same models and settings, or reviewed"
        yield f"{self.labelled:,} labelled now, {self.passed:,} passed over: {why}"
        for name, number in self.objects.items():
            yield f"  {printable(name)}: {number:,}"
        if self.left_out:
            yield left_out(self.images + len(self.problems), self.left_out)
        yield from (f"the store as it was before: {path}" for path in self.backups)
        yield from self.notes
        yield from _shown(self.remarks)
        if self.problems:
            yield f"not labelled: {amount(len(self.problems), 'file')}"
            yield from _shown(self.problems)


def _shown(texts: Mapping[str, str]) -> Iterator[str]:
    for file, text in list(texts.items())[:SHOWN]:
        yield f"  {printable(file)}: {printable(text)}"
    if len(texts) > SHOWN:
        yield f"  and {amount(len(texts) - SHOWN, 'file')} more"


def summary(
    records: Iterable[ImageRecord],
    listing: Listing,
    *,
    problems: Mapping[str, str],
    remarks: Mapping[str, str],
    notes: Sequence[str] = (),
    labelled: int = 0,
    passed: int = 0,
    backups: Sequence[Path] = (),
) -> Summary:
    """The summary of the records of a store, read one after another.

    Args:
      records: all of the store.
      listing: of the folder.
      problems: of this run, beside those of the listing and the failures that records hold.
      remarks: on files.
      notes: on the whole.
      labelled: images that this run labelled.
      passed: images that had nothing to do.
      backups: copies of the store.
    """
    wrong, listed = {**listing.problems, **problems}, set(listing.names)
    objects: Counter[str] = Counter()
    images = empty = reviewed = 0
    for record in records:
        if record.failure is not None:
            wrong.setdefault(record.name, record.failure)
        elif record.name not in listed:
            wrong.setdefault(record.name, "it is not there any more; its record stays")
        if record.failure is None:
            kept = [each.label for each in record.objects if each.verdict != "rejected"]
            objects.update(kept)
            images, empty, reviewed = images + 1, empty + (not kept), reviewed + (record.state == "reviewed")
    ordered = dict(sorted(objects.items(), key=lambda each: (-each[1], each[0])))
    wrong, remarks = dict(sorted(wrong.items())), dict(sorted(remarks.items()))
    counts = images, empty, reviewed, ordered, listing.left_out
    return Summary(*counts, wrong, remarks, tuple(notes), labelled, passed, tuple(backups))
