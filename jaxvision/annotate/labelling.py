"""Labelling of a folder: models look at every image, and what they find is kept in a store.

Reading, models and writing overlap, each in threads of its own; memory is that of a few windows of images, however many
there are. Every image is a record: those without objects, and those that can't be read, with the reason. A run that was
stopped goes on where it was: an image whose content, models and settings are those of its record is passed over.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from jaxvision.annotate import cutting, reading
from jaxvision.annotate.attributes import AttributeFinder, finders
from jaxvision.annotate.findings import ImageChanged, touched
from jaxvision.annotate.cutting import Cutter
from jaxvision.annotate.labeller import DIGITS, Labeller, View, labellers, together
from jaxvision.annotate.listing import ALONE, Worker, listing
from jaxvision.annotate.reading import ImageRead, Known
from jaxvision.annotate.records import Annotation, ImageRecord
from jaxvision.annotate.store import Store
from jaxvision.annotate.summary import Summary, summary
from jaxvision.annotate.vocabulary import Vocabulary
from jaxvision.data import media
from jaxvision.data.prefetch import prefetch
from jaxvision.errors import ConfigError, WorkdirError, raised_as
from jaxvision.run.digest import checksum
from jaxvision.run.prediction import Model
from jaxvision.run.tiles import Tiling

STORE, SUMMARY = "annotations.sqlite", "summary.json"
WINDOW = 16
"""Images of a window at least; four batches where that is more."""
SECONDS, RECORDS = 1.0, 256
"""So long, and so many records, are kept back until they are written together."""
Progress = Callable[[int], object]
"""Hears how many more images are done."""


class Labelling(NamedTuple):
    """All that makes what is found in an image."""

    labellers: Sequence[Labeller]
    cutter: Cutter | None
    finders: Sequence[AttributeFinder]
    digest: str
    """Of models and settings."""

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


def label(
    images: Path,
    output: Path,
    models: Sequence[str | Path] | Mapping[str, Model],
    *,
    masks: str | None = None,
    attributes: Sequence[str] = (),
    tta: bool = False,
    tiling: Tiling | None = None,
    score: float = 0.3,
    map: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    batch_size: int | None = None,
    worker: Worker = ALONE,
    redo: bool = False,
    started: Callable[[int], Progress] = lambda total: lambda count: None,
) -> Summary:
    """Labels the images of a folder and keeps what is found in a store, `annotations.sqlite`, beside it `summary.json`.

    What a person touched stays as it is. A worker has a store of its own, `annotations.0-of-4.sqlite`; once all have
    ended, the same call without a worker takes over what they found.

    Args:
      images: the folder; names are paths below it.
      output: a folder outside of it, made if it is not there.
      models: workdirs of runs, or names of published weights; or models that are loaded, by their names. What several find
        is fused.
      masks: name of the network that cuts objects out that have no mask; None: they have none.
      attributes: names of `attributes.finders`.
      tta: each model sees each image mirrored, too; what it finds is fused.
      tiling: how large images are cut; None: they are seen whole.
      score: what a model finds with a lower score is left out.
      map: new names of classes; an empty one leaves a class out.
      classes: names that are written; None: all.
      batch_size: images at once; None for that of the run's evaluation, or one a device for published weights.
      worker: which of several this is.
      redo: label all anew, what a person touched too; the store is copied before.
      started: hears how many images there are; what it returns hears of progress.

    Returns:
      The summary of the store.

    Raises:
      ConfigError: for folders, models, classes or names that don't fit.
      WorkdirError: for an output that can't be written, or a disk that is full; the store is sound.
      DataError: for a store that is none or of a newer version.
    """
    with raised_as(ConfigError):
        media.check_outside(output, [images])
    listed, finding = listing(images, worker), finders(attributes)
    with opened(output, images, worker) as store:
        named = f".{worker.index}-of-{worker.count}" if worker.count > 1 else ""
        found, words = labellers(
            models, map=map, classes=classes, score=score, tta=tta, tiling=tiling, batch_size=batch_size
        )
        how = labelling(found, words, masks and cutting.cutter(masks, batch_size), finding)
        keep_settings(store, how, words, output / STORE)
        if worker == ALONE:
            merge_workers(store, output)
        run = Run(store, how, redo, started(len(listed.names)))
        run.label(images, listed.names)
        told = summary(
            store.records(),
            listed,
            problems=run.problems,
            remarks=run.remarks,
            notes=words.remarks,
            labelled=run.labelled,
            passed=run.passed,
        )._replace(backups=tuple(store.backups))
    with raised_as(WorkdirError):
        told.write(output / SUMMARY.replace(".", f"{named}.", 1))
    return told


def opened(output: Path, images: Path, worker: Worker) -> Store:
    """The store of an output folder and worker, made if it is not there, of the images of this folder.

    Raises:
      ConfigError: for a store of another folder that is still there.
      WorkdirError, DataError: as `Store`.
    """
    try:
        output.mkdir(exist_ok=True)
    except OSError as error:
        raise WorkdirError(f"{output} can't be made: {error.strerror or error}") from error
    store = Store(output / store_name(worker), create=True)
    try:
        folder = str(images.resolve())
        before = json.loads(store.settings.get("images", json.dumps(folder)))
        if before != folder and Path(before).is_dir() and not Path(before).samefile(images):
            raise ConfigError(f"{store.path} is of the images in {before}, not of {images}: name another --output")
        if worker == ALONE:  # on the machines of workers the folder may be elsewhere
            keep(store, "images", folder)
    except BaseException:
        store.close()
        raise
    return store


def store_name(worker: Worker) -> str:
    """Name of the file of a worker's store."""
    return STORE if worker == ALONE else f"annotations.{worker.index}-of-{worker.count}.sqlite"


def labelling(
    labellers: Sequence[Labeller], words: Vocabulary, cutter: Cutter | None, finders: Sequence[AttributeFinder]
) -> Labelling:
    """All that labels an image, with the digest of it."""
    how = Labelling(labellers, cutter, finders, "")
    return how._replace(digest=checksum(told(how))[:DIGITS])


def told(how: Labelling) -> dict[str, Any]:
    """Models and settings as JSON data: what is the same finds the same."""
    return {
        "models": [[*each.source] for each in how.labellers],
        "names": [dict(each.names) for each in how.labellers],
        "masks": how.cutter and how.cutter.name,
        "attributes": [each.name for each in how.finders],
    }


def keep(store: Store, key: str, value: Any) -> None:
    """Keeps a setting; nothing is written if the store has it."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    if store.settings.get(key) != text:
        store.settings[key] = text


def keep_settings(store: Store, how: Labelling, words: Vocabulary, main: Path) -> None:
    """Keeps the models, and the classes of the store and new ones; a worker's store has those of the main one, too."""
    known = store.settings.get("classes")
    if known is None and main != store.path and main.is_file():
        with Store(main, readonly=True) as other:
            known = other.settings.get("classes")
    keep(store, "classes", list(dict.fromkeys([*json.loads(known or "[]"), *words.classes])))
    keep(store, f"labelling {how.digest}", told(how))


def merge_workers(store: Store, output: Path) -> None:
    """Takes over what the stores of workers in the folder hold, but for those that have not changed since."""
    for path in sorted(output.glob("annotations.*-of-*.sqlite")):
        key = f"merged {path.name}"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if store.settings.get(key) != json.dumps(digest):
            with store.together():
                store.merge(path)
                keep(store, key, digest)


class Run:
    """Labelling under way: what was done and what went wrong."""

    def __init__(self, store: Store, how: Labelling, redo: bool, progress: Progress):
        self.store, self.how, self.redo, self.progress = store, how, redo, progress
        self.labelled = self.passed = 0
        self.problems: dict[str, str] = {}
        self.remarks: dict[str, str] = {}
        self._waiting: list[ImageRecord] = []
        self._written = time.monotonic()

    def label(self, folder: Path, names: Sequence[str]) -> None:
        """Labels the images of these names below a folder."""
        if self.redo and any(map(touched, self.store.records())):
            self.store.backup()
        known = {} if self.redo else self._known()
        images = reading.images(folder, names, self.how.views, known, pixels=self.how.keeps_pixels)
        rows = max(each.model.spec.image.shape[0] for each in self.how.labellers)
        read = prefetch(reading.windows(images, max(WINDOW, 4 * rows)), size=1)
        seen = (seen_in(self.how, window) for window in read)
        with closing(prefetch(seen, size=1)) as windows:
            for window in windows:
                for each in window:
                    self._take(each)
                    self.progress(1)
        self._write()

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
        return ImageRecord(
            image.name,
            image.sha256,
            image.size,
            tuple(objects),
            failure=image.failure,
            labelling=self.how.digest,
        )

    def _write(self) -> None:
        """Writes the records that wait, all in one transaction."""
        if self._waiting:
            with self.store.together():
                for record in self._waiting:
                    self._put(record)
        self._waiting, self._written = [], time.monotonic()

    def _put(self, record: ImageRecord) -> None:
        try:
            self.store.put(record, who=self.how.who, redo=self.redo)
            self.labelled += record.failure is None
        except ImageChanged as error:
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
