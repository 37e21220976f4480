"""Streaming: images in, records out, with reading, models and writing each in threads of its own, in bounded memory."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from jaxvision.annotate import reading
from jaxvision.annotate.attributes import AttributeFinder
from jaxvision.annotate.changes import Conflict
from jaxvision.annotate.cutting import Cutter
from jaxvision.annotate.findings import ImageChanged, touched
from jaxvision.annotate.labeller import DIGITS, Labeller, View, together
from jaxvision.annotate.promises import Calibration
from jaxvision.annotate.reading import ImageRead, Known
from jaxvision.annotate.records import Annotation, ImageRecord
from jaxvision.annotate.schema import Busy
from jaxvision.annotate.store import Store
from jaxvision.annotate.verdicts import judged
from jaxvision.data.prefetch import prefetch
from jaxvision.run.digest import checksum

WINDOW = 16
"""Images of a window at least; four batches where that is more."""
SECONDS, RECORDS = 1.0, 256
"""So long, and so many records, are kept back until they are written together."""
ATTEMPTS = 10
"""So often it is tried to write them, each time for as long as a writer waits (`schema.PATIENCE`)."""
Progress = Callable[[int], object]
"""Hears how many more images are done."""


class Labelling(NamedTuple):
    """All that makes what is found in an image."""

    labellers: Sequence[Labeller]
    cutter: Cutter | None
    finders: Sequence[AttributeFinder]
    digest: str
    """Digest of models and settings."""
    calibration: Calibration | None = None
    """Gives guesses their probabilities. No part of the digest: `annotate calibrate` sees to guesses that are there."""

    @property
    def who(self) -> str:
        """Who says it, in the history."""
        return "+".join(each.source.model for each in self.labellers)

    def views(self, pixels: Any) -> list[list]:
        """What each model is shown of an image."""
        return [each.canvases(pixels) for each in self.labellers]

    @property
    def keeps_pixels(self) -> bool:
        """Whether more is made of an image than the models are shown."""
        return bool(self.finders) or self.cutter is not None


class Seen(NamedTuple):
    """Image with the objects that were found in it, without attributes."""

    image: ImageRead
    objects: Sequence[Annotation]


def labelling(labellers: Sequence[Labeller], cutter: Cutter | None, finders: Sequence[AttributeFinder]) -> Labelling:
    """All that labels an image, with the digest of it."""
    how = Labelling(labellers, cutter, finders, "")
    return how._replace(digest=checksum(description(how))[:DIGITS])


def description(how: Labelling) -> dict[str, Any]:
    """Models and settings as JSON data: what is the same finds the same."""
    return {
        "models": [[*each.source] for each in how.labellers],
        "names": [dict(each.names) for each in how.labellers],
        "masks": how.cutter and how.cutter.name,
        "attributes": [f"{each.name} {each.digest}".rstrip() for each in how.finders],
    }


class Run:
    """Labelling under way: what was done and what went wrong."""

    def __init__(self, store: Store, how: Labelling, redo: bool, progress: Progress):
        self.store, self.how, self.redo, self.progress = store, how, redo, progress
        self.labelled = self.passed = 0
        self.problems: dict[str, str] = {}
        self.remarks: dict[str, str] = {}
        self._versions: dict[str, int] = {}
        self._waiting: list[ImageRecord] = []
        self._written = time.monotonic()

    def label(self, folder: Path, names: Sequence[str]) -> None:
        """Labels the images of these names below a folder."""
        if self.redo:
            self._back_up()
        known = {} if self.redo else self._known()
        images = reading.images(folder, names, self.how.views, known, pixels=self.how.keeps_pixels)
        rows = max(each.model.spec.image.shape[0] for each in self.how.labellers)
        read = prefetch(reading.windows(images, max(WINDOW, 4 * rows)), size=1)
        windows: Any = prefetch((seen_in(self.how, window) for window in read), size=1)
        with closing(windows):
            for window in windows:
                for each in window:
                    self._take(each)
                    self.progress(1)
        self._write()

    def _back_up(self) -> None:
        """Notes the version of each record, and copies the store if persons have worked on it."""
        worked = False
        for record in self.store.records():
            self._versions[record.name] = record.version
            worked = worked or touched(record)
        if worked:
            self.store.backup()

    def _known(self) -> dict[str, Known]:
        """What is known of the images of the store."""
        return {
            record.name: Known(
                record.sha256,
                bool(record.sha256) and (record.labelling == self.how.digest or record.state == "reviewed"),
                touched(record),
            )
            for record in self.store.records()
        }

    def _take(self, seen: Seen) -> None:
        """Notes what is to be said of an image; its record is written with the next ones."""
        image = seen.image
        if image.remark:
            self.remarks[image.name] = image.remark
        if image.passed:
            self.passed += 1
        elif image.changed:
            self.problems[image.name] = (
                "the image is another since a person worked on its record, which stays as it is (--redo labels it anew)"
            )
        else:
            self._waiting.append(self._record(seen))
            if len(self._waiting) >= RECORDS or time.monotonic() - self._written > SECONDS:
                self._write()

    def _record(self, seen: Seen) -> ImageRecord:
        image, objects = seen
        if image.pixels is not None and objects:
            objects = with_attributes(self.how.finders, reading.three_channels(image.pixels), objects)
        known = {"failure": image.failure, "labelling": self.how.digest}
        record = ImageRecord(image.name, image.sha256, image.size, tuple(objects), **known)
        return record if self.how.calibration is None else judged(record, self.how.calibration)

    def _write(self) -> None:
        """Writes the records that wait, all in one transaction; where another process writes all the while, once more."""
        for attempt in range(1, ATTEMPTS + 1):
            labelled = self.labelled
            try:
                self._put_all()
                break
            except Busy:
                self.labelled = labelled
                if attempt == ATTEMPTS:
                    raise
        self._waiting, self._written = [], time.monotonic()

    def _put_all(self) -> None:
        if self._waiting:
            with self.store.together():
                for record in self._waiting:
                    self._put(record)

    def _put(self, record: ImageRecord) -> None:
        version = self._versions.get(record.name, 0) if self.redo else None
        try:
            self.store.put(record, who=self.how.who, redo=self.redo, version=version)
            self.labelled += record.failure is None
        except (ImageChanged, Conflict) as error:
            self.problems[record.name] = str(error).removeprefix(f"{record.name}: ")


def seen_in(how: Labelling, window: Sequence[ImageRead]) -> list[Seen]:
    """What the models find in a window of images, with masks; in order."""
    busy = [each for each in window if each.canvases]
    views: list[list[View]] = [[] for _ in busy]
    for number, labeller in enumerate(how.labellers):
        found = labeller.find([each.canvases[number] for each in busy])
        for listed, more in zip(views, found, strict=True):
            listed += more
    objects: Sequence[Sequence[Annotation]] = [together(each) for each in views]
    if how.cutter is not None:
        pixels = [each.pixels for each in busy if each.pixels is not None]
        objects = how.cutter.cut(zip(pixels, objects, strict=True))
    of = {each.name: found for each, found in zip(busy, objects, strict=True)}
    return [Seen(each._replace(canvases=()), of.get(each.name, ())) for each in window]


def with_attributes(finders: Sequence[AttributeFinder], pixels: Any, objects: Sequence[Annotation]) -> list[Annotation]:
    """The objects with the attributes that the finders find."""
    known: list[dict] = [{} for _ in objects]
    for finder in finders:
        for attributes, more in zip(known, finder.find(pixels, objects), strict=True):
            attributes.update(more)
    return [each._replace(attributes=attributes) for each, attributes in zip(objects, known, strict=True)]
