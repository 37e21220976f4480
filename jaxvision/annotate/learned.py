"""Attributes by a trained head: what its predictions look like, and how the workdir of its run becomes a finder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import UInt8

from jaxvision.annotate.records import Annotation
from jaxvision.data import crops
from jaxvision.data.crops import YES_OR_NO, Groups
from jaxvision.errors import ConfigError
from jaxvision.experiment import Output, Record, Selection
from jaxvision.formats.labelled import Value
from jaxvision.run.prediction import Model, load
from jaxvision.types import Canvas, ClassScores

SURE = 0.5
"""Probability from which on a value is told."""


def output(groups: Groups) -> Output:
    """Predictions of attributes as JSON: `{"attributes": {name: {"value", "probability"}}}`.

    A value is a text, true or false, or a list of texts with a list of probabilities; attributes of no value that is sure
    enough are left out.
    """

    def record(scores: dict[str, ClassScores], canvas: Canvas, selection: Selection) -> Record:
        del canvas, selection
        found = {name: _told(np.asarray(scores[name].logits, np.float64), *group) for name, group in groups.items()}
        return {"attributes": {name: each for name, each in found.items() if each is not None}}

    return Output(record)


def _told(logits: np.ndarray, values: tuple[str, ...], several: bool) -> Record | None:
    if several:
        chances = 1 / (1 + np.exp(-logits))
        kept = np.flatnonzero(chances >= SURE)
        return {"value": [values[i] for i in kept], "probability": chances[kept].tolist()} if len(kept) else None
    powers = np.exp(logits - logits.max())
    best, chance = int(logits.argmax()), float(powers.max() / powers.sum())
    value = values[best] == YES_OR_NO[1] if values == YES_OR_NO else values[best]
    return {"value": value, "probability": chance} if chance >= SURE else None


class Learned:
    """A trained head, and what it finds of the objects of an image."""

    def __init__(self, workdir: str | Path):
        """Loads the run.

        Raises:
          WorkdirError: if the folder holds no run.
          ConfigError: for a run of another task.
        """
        self.model = load(workdir)
        if not _is_head(self.model):
            raise ConfigError(f"{workdir} is no run of a head of attributes, such as experiments/shapes_attributes.py")

    def find(self, pixels: UInt8[np.ndarray, "h w 3"], objects: Sequence[Annotation]) -> list[Mapping[str, Value]]:
        """The attributes of each object."""
        shown = [(("", number), self._canvas(pixels, each)) for number, each in enumerate(objects)]
        found = [each.record["attributes"] for each in self.model.stream(shown, Selection(self.model.classes))]
        return [{name: _value(told["value"]) for name, told in each.items()} for each in found]

    def _canvas(self, pixels: UInt8[np.ndarray, "h w 3"], found: Annotation) -> Canvas:
        box = np.asarray(found.box)
        place = crops.place_of(box, (pixels.shape[0], pixels.shape[1]))
        return self.model.preprocessing(crops.cut(pixels, box))._replace(given=place[None])


def _value(told: str | bool | list[str]) -> Value:
    return tuple(told) if isinstance(told, list) else told


def _is_head(model: Model) -> bool:
    """Whether a model tells attributes of crops."""
    given = getattr(model.spec.given, "shape", ())
    found = jax.eval_shape(model.task.predict, model.variables, model.spec) if given[1:] == (4,) else None
    return isinstance(found, dict) and all(isinstance(each, ClassScores) for each in found.values())
