"""Tasks whose trained weights ship in packages: one call loads one, with its preprocessing and its classes.

`detectors` and `segmenters` hold them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxvision.pretrained.files import read
from jaxvision.pretrained.preprocessing import Preprocessing
from jaxvision.pretrained.start import start
from jaxvision.pretrained.strict import Sources, load
from jaxvision.types import Batch, Task, Variables


class PublishedTask(NamedTuple):
    """A task for which there are trained weights."""

    task: Callable[..., Task]
    """`(classes, dtype=float32, ...) -> Task`. Of a detector, `frozen_norm=True` keeps statistics and weights of
    normalisation, and `nms=` takes another one."""
    sources: Sources
    file: Callable[[], Path]
    """The file of weights, downloaded if need be."""
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    head: tuple[str, ...]
    """Patterns of our arrays whose shapes depend on the classes."""
    unused: tuple[str, ...] = ()
    """Patterns of what the file holds beside weights."""


class TrainedTask(NamedTuple):
    """A task with trained weights."""

    task: Task
    variables: dict[str, Any]
    classes: tuple[str, ...]
    preprocessing: Preprocessing


def load_task(published: PublishedTask) -> TrainedTask:
    """The task with its weights, downloaded at the first call; errors are those of `files.read` and `strict.load`."""
    task = published.task(len(published.classes))
    spec = jax.eval_shape(task.init, jax.random.key(0), blank(published.preprocessing.size))
    arrays = read(published.file())
    loaded = load(published.sources(spec), arrays, spec, unused=published.unused)
    return TrainedTask(task, loaded.variables, published.classes, published.preprocessing)


def start_from(published: PublishedTask) -> Callable[[Variables], Variables]:
    """Fresh variables filled with these weights, all but the layers whose shapes depend on the classes."""
    return start(published.sources, published.file, new=published.head, unused=published.unused)


def blank(side: int) -> Batch:
    """One black image, without a target: what a task is initialised with."""
    size = jnp.full((1, 2), side, jnp.int32)
    return Batch(jnp.zeros((1, side, side, 3), jnp.uint8), size, size, jnp.zeros(1, jnp.int32), jnp.ones(1, bool))
