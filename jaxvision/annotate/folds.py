"""Folds: parts of a dataset by the names of its images, so that every image is predicted by a model that has not seen it.

# In an experiment, which is trained once with config.fold=0, once with config.fold=1:
learned = lambda: folds.rest(objects.open("my_dataset"), config.fold, 2)
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from jaxvision.annotate.listed import predicted
from jaxvision.data import media
from jaxvision.data.source import Source
from jaxvision.data.subset import subset
from jaxvision.errors import ConfigError
from jaxvision.experiment import Selection
from jaxvision.formats.annotation import AnnotatedImage
from jaxvision.formats.labelled import LabelledObject
from jaxvision.run import prediction


def fold_of(name: str, count: int) -> int:
    """The fold of an image, from 0 to below `count`: a function of its name alone, whatever else the dataset holds."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % count


def part(source: Source, fold: int, count: int) -> Source:
    """The images of one of `count` folds. Raises ValueError for a fold outside 0 to below a count of 2 or more."""
    return subset(source, np.flatnonzero(_folds(source, fold, count) == fold))


def rest(source: Source, fold: int, count: int) -> Source:
    """The images of the other folds: what the model that predicts this one is trained on. Raises as `part` does."""
    return subset(source, np.flatnonzero(_folds(source, fold, count) != fold))


def _folds(source: Source, fold: int, count: int) -> np.ndarray:
    if not 0 <= fold < count or count < 2:
        raise ValueError(f"fold {fold} of {count}: allowed are folds from 0 to below their count, which is 2 or more")
    return np.asarray([fold_of(source.name(number), count) for number in range(source.length)], np.int64)


def predictions_by(
    workdirs: Sequence[str | Path],
    images: Iterable[AnnotatedImage],
    score: float,
    complain: Callable[[str, str], None],
) -> dict[str, tuple[LabelledObject, ...]]:
    """Predictions of runs for images, by their names: run k of several predicts fold k, a single run all of them.

    Args:
      workdirs: folders of the runs, or names of published weights; run k was trained without fold k (`rest`).
      images: to predict; what can't be read is left out.
      score: the lowest score of an object that is told.
      complain: called with a file and why it can't be read.

    Raises:
      ConfigError: for a model that finds no objects; and as `run.load` does.
    """
    found: dict[str, tuple[LabelledObject, ...]] = {}
    images = list(images)
    for fold, workdir in enumerate(workdirs):
        names = {str(each.file): each.name for each in images if fold_of(each.name, len(workdirs)) == fold}
        model = prediction.load(workdir)
        pictures = (media.Picture(file, None, Path(file).read_bytes) for file in names)
        canvases = prediction.readable(media.decoded(pictures, model.decoder()), complain)
        for (file, _), _, record in model.stream(canvases, Selection(model.classes, score_threshold=score)):
            if "objects" not in record:
                raise ConfigError(f"{workdir} finds no objects: doubts are about the objects of images")
            found[names[file]] = tuple(map(predicted, record["objects"]))
    return found
