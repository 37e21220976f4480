"""Labellers: models that label images, each with the views in which it sees them, and what all find put together."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from jaxvision.annotate import predictions
from jaxvision.annotate.fusion import Found, fuse
from jaxvision.annotate.predictions import Guess
from jaxvision.annotate.records import Annotation, Source
from jaxvision.annotate.vocabulary import Vocabulary, vocabulary
from jaxvision.errors import ConfigError
from jaxvision.experiment import Selection
from jaxvision.formats.image_file import Size
from jaxvision.pretrained import coco
from jaxvision.run import hashes, prediction
from jaxvision.run.prediction import Model
from jaxvision.run.tiles import Tiling
from jaxvision.types import Canvas

DIGITS = 16
"""Hexadecimal digits of a digest of variables."""


class View(NamedTuple):
    """What a model found in one view of an image."""

    source: Source
    names: frozenset[str]
    """All that it can find."""
    found: Sequence[Guess]


class Labeller(NamedTuple):
    """A model, and how it sees images."""

    model: Model
    source: Source
    names: Mapping[str, str]
    """From its classes to the names that are written."""
    selection: Selection
    tiling: Tiling | None
    mirrored: bool
    """Whether it sees each image a second time, mirrored."""

    def canvases(self, pixels: UInt8[np.ndarray, "h w c"]) -> list[Canvas]:
        """An image as the model is shown it, one canvas a view. Raises ValueError for one that does not fit."""
        decode = self.model.decoder(self.tiling)
        turned = [np.ascontiguousarray(pixels[:, ::-1])] if self.mirrored else []
        return [decode(view) for view in (pixels, *turned)]

    def find(self, images: Sequence[Sequence[Canvas]]) -> Iterator[list[View]]:
        """What it finds in each image, given as `canvases` has them."""
        views = [self._seen(canvases, number) for number, canvases in enumerate(zip(*images, strict=True))]
        written = frozenset(self.names.values())
        return ([View(self.source, written, found) for found in each] for each in zip(*views, strict=True))

    def _seen(self, canvases: Iterable[Canvas], view: int) -> list[list[Guess]]:
        shown = ((("", None), canvas) for canvas in canvases)
        found = []
        for each in self.model.stream(shown, self.selection, tiling=self.tiling):
            size: Size = each.canvas.original_size
            objects = predictions.guesses(each.record, size, self.names, self.selection.score_threshold)
            found.append([predictions.mirrored(one, size) for one in objects] if view else objects)
        return found


def labellers(
    models: Sequence[str | Path] | Mapping[str, Model],
    *,
    renamed: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    score: float = 0.3,
    tta: bool = False,
    tiling: Tiling | None = None,
    batch_size: int | None = None,
) -> tuple[list[Labeller], Vocabulary]:
    """The models, loaded, and the names that they write.

    Args:
      models: workdirs of runs, or names of published weights; or models that are loaded, by their names.
      renamed: new names of classes (`vocabulary`).
      classes: names that are written; None: all.
      score: what a model finds with a lower score is left out.
      tta: each model sees each image mirrored, too.
      tiling: how images are cut; None: they are seen whole.
      batch_size: images at once; None for that of the evaluation, or one a device for published weights.

    Raises:
      ConfigError: for no model, or one that is named twice; for classes that don't fit; for tiles that a model can't take.
      WorkdirError, CheckpointError, WeightsError: as `run.load`.
    """
    loaded = models if isinstance(models, Mapping) else _loaded(list(map(str, models)), batch_size)
    if not loaded:
        raise ConfigError("name one model or more")
    words = vocabulary({name: found_classes(model) for name, model in loaded.items()}, renamed, classes)
    found = []
    for (name, model), names in zip(loaded.items(), words.translations, strict=True):
        shapes = jax.eval_shape(model.task.predict, model.variables, model.spec)
        predictions.check(shapes, name, tiled=tiling is not None)
        source = Source(name, digest(model), _settings(model, score, tta, tiling))
        prepared = model._replace(output=predictions.output_of(shapes, model.output))
        prepared.decoder(tiling)
        selection = Selection(model.classes, len(model.classes), score)
        found.append(Labeller(prepared, source, names, selection, tiling, tta))
    return found, words


def _loaded(names: Sequence[str], batch_size: int | None) -> dict[str, Model]:
    if len(set(names)) < len(names):
        raise ConfigError(f"name each model once; there are: {', '.join(names)}")
    return {name: prediction.load(name, batch_size=batch_size) for name in names}


def found_classes(model: Model) -> tuple[str, ...]:
    """The classes that a model finds: all but one called background, and numbers that COCO has no category for."""
    nothing = {predictions.BACKGROUND, *coco.UNUSED}
    return tuple(name for name in model.classes if name not in nothing)


def digest(model: Model) -> str:
    """Digest of the variables of a model."""
    return hashes.sha256(model.variables)[:DIGITS]


def _settings(model: Model, score: float, tta: bool, tiling: Tiling | None) -> str:
    known: dict[str, Any] = {"score": score}
    if model.step is not None:
        known |= {"step": model.step, "weights": model.weights}
    known |= {"tta": True} if tta else {}
    known |= {"tiles": list(tiling)} if tiling else {}
    return json.dumps(known, sort_keys=True)


def together(views: Sequence[View]) -> list[Annotation]:
    """What models found in the views of an image, as objects without ids, the best first.

    Of more than one view objects are fused (`fusion.fuse`), each with the models of its members as sources, and the mask of
    the best of them that has one. A model that can't find a class has no say in it.
    """
    if len(views) == 1:
        objects = [_annotation(each, (views[0].source,)) for each in views[0].found]
    else:
        labels = sorted({each.label for view in views for each in view.found})
        objects = [each for label in labels for each in _fused(label, [view for view in views if label in view.names])]
    return sorted(objects, key=lambda each: -(each.score or 0.0))


def _annotation(found: Guess, sources: tuple[Source, ...]) -> Annotation:
    x0, y0, x1, y1 = (round(side, 2) for side in found.box)
    return Annotation(0, found.label, (x0, y0, x1, y1), found.mask, found.score, sources=sources)


def _fused(label: str, views: Sequence[View]) -> Iterator[Annotation]:
    """The objects of one class."""
    of_label = [[each for each in view.found if each.label == label] for view in views]
    tables = [
        Found(
            np.array([each.box for each in found], np.float64).reshape(-1, 4),
            np.array([each.score for each in found], np.float64),
            np.zeros(len(found), np.int64),
        )
        for found in of_label
    ]
    for each in fuse(tables):
        members = [of_label[member.list][member.row] for member in each.members]
        numbers = sorted({member.list for member in each.members})
        sources = tuple(dict.fromkeys(views[number].source for number in numbers))
        mask = next((member.mask for member in members if member.mask is not None), None)
        yield _annotation(Guess(label, each.box, each.score, mask), sources)
