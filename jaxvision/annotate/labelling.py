"""Labelling of a folder: models look at every image, and what they find is kept in a store.

Reading, models and writing overlap, each in threads of its own; memory is that of a few windows of images, however many
there are. Every image is a record: those without objects, and those that can't be read, with the reason. A run that was
stopped goes on where it was: an image whose content, models and settings are those of its record is passed over.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvision.annotate import cutting, makers, streaming, verdicts
from jaxvision.annotate.attributes import finders
from jaxvision.annotate.labeller import labellers
from jaxvision.annotate.listing import ALONE, Listing, Worker, listing
from jaxvision.annotate.promises import Calibration
from jaxvision.annotate.store import Store
from jaxvision.annotate.streaming import Labelling, Progress, Run
from jaxvision.annotate.summary import Summary, summary
from jaxvision.annotate.vocabulary import Vocabulary
from jaxvision.data import media
from jaxvision.errors import ConfigError, WorkdirError, raised_as
from jaxvision.run.prediction import Model
from jaxvision.run.tiles import Tiling

STORE, SUMMARY = "annotations", "summary"
"""Names of the files, without endings."""


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
    renamed: Mapping[str, str] | None = None,
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
      renamed: new names of classes; an empty one leaves a class out.
      classes: names that are written; None: all.
      batch_size: images at once; None for that of the run's evaluation, or one a device for published weights.
      worker: which of several this is.
      redo: label all anew, what a person touched too; the store is copied before.
      started: hears how many images there are; what it returns hears of progress.

    Returns:
      The summary of the store.

    Raises:
      ConfigError: for folders, models, classes or names that don't fit, and a folder without an image.
      WorkdirError: for an output that can't be written, or a disk that is full; the store is sound.
      DataError: for a store that is none or of a newer version.
    """
    with raised_as(ConfigError):
        media.check_outside(output, [images])
    listed, attributed = listing(images, worker), finders(attributes)
    if worker == ALONE and not listed.names and not listed.problems:
        raise ConfigError(f"{images}: no image is in it or below it{_beside(listed)}")
    with opened(output, images, worker) as store:
        found, words = labellers(
            models, renamed=renamed, classes=classes, score=score, tta=tta, tiling=tiling, batch_size=batch_size
        )
        cutter = cutting.cutter(masks, batch_size) if masks else None
        calibration = of_main(store, output, worker)
        how = streaming.labelling(found, cutter, attributed)
        if calibration is not None and calibration.made_by == makers.of_description(streaming.description(how)):
            how = how._replace(calibration=calibration)
        keep_settings(store, how, words)
        if worker == ALONE:
            merge_workers(store, output)
        run = Run(store, how, redo, started(len(listed.names)))
        run.label(images, listed.names)
        done = {"problems": run.problems, "remarks": run.remarks, "labelled": run.labelled, "passed": run.passed}
        result = summary(store.records(), listed, notes=words.remarks, backups=store.backups, **done)
    with raised_as(WorkdirError):
        result.write(output / file_name(SUMMARY, ".json", worker))
    return result


def _beside(listed: Listing) -> str:
    """What a folder without an image has instead."""
    if not listed.left_out:
        return ""
    return f"; there are {', '.join(f'{count:,} {suffix}' for suffix, count in listed.left_out.items())}"


def file_name(name: str, ending: str, worker: Worker) -> str:
    """Name of a file of the output of a worker: `annotations.sqlite`, `annotations.0-of-4.sqlite`."""
    return f"{name}{ending}" if worker == ALONE else f"{name}.{worker.index}-of-{worker.count}{ending}"


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
    store = Store(output / file_name(STORE, ".sqlite", worker), create=True)
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


def keep(store: Store, key: str, value: Any) -> None:
    """Keeps a setting; nothing is written if the store has it."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    if store.settings.get(key) != text:
        store.settings[key] = text


def keep_settings(store: Store, how: Labelling, words: Vocabulary) -> None:
    """Keeps the models, and the classes of the store and new ones."""
    known = json.loads(store.settings.get("classes", "[]"))
    keep(store, "classes", list(dict.fromkeys([*known, *words.classes])))
    keep(store, f"labelling {how.digest}", streaming.description(how))


def of_main(store: Store, output: Path, worker: Worker) -> Calibration | None:
    """The calibration that labelling goes by; a worker's store takes that of the main one, and its classes."""
    main = output / file_name(STORE, ".sqlite", ALONE)
    if worker == ALONE or not main.is_file():
        return verdicts.of_store(store)
    with Store(main, readonly=True) as other:
        if "classes" in other.settings and "classes" not in store.settings:
            store.settings["classes"] = other.settings["classes"]
        return verdicts.of_store(other)


def merge_workers(store: Store, output: Path) -> None:
    """Takes over what the stores of workers in the folder hold, but for those that have not changed since."""
    for path in sorted(output.glob(f"{STORE}.*-of-*.sqlite")):
        key = f"merged {path.name}"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if store.settings.get(key) != json.dumps(digest):
            with store.together():
                store.merge(path)
                keep(store, key, digest)
