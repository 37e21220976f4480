"""Prediction: a model, of a run or of published weights, and what it makes of images."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxvision.data import loading, media
from jaxvision.data.decode import decode
from jaxvision.data.placement import Placer
from jaxvision.errors import ConfigError, DataError, WorkdirError, amount, raised_as
from jaxvision.experiment import Evaluation, Experiment, Output, Record, Selection
from jaxvision.machine.folders import local
from jaxvision.pretrained.published import Published
from jaxvision.pretrained.published_task import PublishedTask
from jaxvision.run import devices, records, restore, tiles
from jaxvision.run.checkpoint import Which
from jaxvision.run.devices import task_on
from jaxvision.run.records import Where
from jaxvision.run.tiles import Tiling
from jaxvision.train import Weights
from jaxvision.types import Batch, Canvas, Prediction, Task, Variables

Image = str | Path | bytes | np.ndarray
"""A file, the content of one, or pixels `h w 3` or `h w`, uint8."""


Shown = tuple[Any, Canvas]
"""What is known of an image, and its canvas."""


class Predicted(NamedTuple):
    """An image, and the record of its prediction."""

    where: Where
    canvas: Canvas
    record: Record


class Model(NamedTuple):
    """A trained model with all that predicting takes."""

    task: Task
    variables: Variables
    classes: tuple[str, ...]
    preprocessing: Callable[[bytes | np.ndarray], Canvas]
    """The content of an image file, or pixels, as the model is shown it."""
    output: Output
    spec: Batch
    """The shapes of a batch of images, without a target."""
    mesh: Mesh
    step: int | None
    """Step of the checkpoint; None for published weights."""
    weights: Weights | None
    """Whether `variables` are averaged over the steps of a run or the current ones; None for published weights."""
    evaluations: Mapping[str, Evaluation]
    """Evaluations of its experiment; none for published weights."""
    apply: Callable[[Batch], Prediction]
    """From a batch on the host to predictions on the devices; jitted."""

    def __repr__(self) -> str:
        """Classes, canvas and parameters, in one line."""
        height, width = self.spec.image.shape[1:3]
        count = sum(np.size(leaf) for leaf in jax.tree.leaves(self.variables["params"]))
        first = ", ".join(self.classes[:3]) + (", ..." if len(self.classes) > 3 else "")
        where = "published weights" if self.step is None else f"step {self.step:,}, {self.weights} weights"
        return (
            f"Model({where}, {amount(count, 'parameter')}, {amount(len(self.classes), 'class')}: {first},"
            f" canvas {height}x{width})"
        )

    def predict(
        self,
        images: Sequence[Image],
        *,
        top_k: int = 5,
        score_threshold: float = 0.3,
        tiling: Tiling | int | None = None,
    ) -> list[Record]:
        """What is in each image, in order.

        Args:
          images: files, contents of files, or pixels `h w 3` or `h w`, uint8.
          top_k: how many classes a classifier reports, best first.
          score_threshold: what a detector reports has this score or a higher one.
          tiling: how images are cut, each tile then being seen as an image of its own: the side of a tile in pixels, of
            which neighbours share a quarter, or `tiles.checked(512, 64)`; None: they are seen whole.

        Returns:
          A record an image, JSON data: `{"classes": [{"name", "probability"}]}` of a classifier, `{"height", "width",
          "objects": [{"label", "category_id", "score", "box"}]}` of a detector, its boxes `x0 y0 x1 y1` in pixels of the
          image, and with masks `segmentation`, COCO's run lengths (`masks.runs.of_coco` reads them), and `area`; `{"height",
          "width", "classes": [{"name", "label", "category_id", "pixels", "fraction", "segmentation"}]}` of a semantic
          segmenter; of
          another task, what its `output` makes.

        Raises:
          DataError: for an image that can't be read; the message names it.
          ConfigError: for tiles of a task whose predictions can't be put together.
        """
        if isinstance(images, str | Path | bytes):
            raise TypeError("predict takes a sequence of images")
        selection = Selection(self.classes, top_k, score_threshold)
        tiling = tiles.checked(tiling) if isinstance(tiling, int) else tiling
        pictures = map(_picture, range(len(images)), images)
        canvases = readable(media.decoded(pictures, self.decoder(tiling), threads=1 if tiling else None), _refuse)
        rows = None if tiling else self._rows(len(images))
        return [each.record for each in self.stream(canvases, selection, rows, tiling)]

    def decoder(self, tiling: Tiling | None = None) -> Callable[[bytes | np.ndarray], Canvas]:
        """What makes of an image file, or pixels, what `stream` takes.

        Raises:
          ConfigError: for tiles of a size that the model can't take.
        """
        if tiling is None:
            return self.preprocessing
        try:
            self.preprocessing(np.zeros((tiling.size, tiling.size, 3), np.uint8))
        except ValueError as error:
            raise ConfigError(f"the model takes no tiles of {tiling.size} pixels: {error}") from None
        return tiles.whole

    def _rows(self, images: int) -> int:
        """How many rows a batch has for so few images: each device the next power of 2, so that few are compiled."""
        each = -(-images // self.mesh.size)
        return min(self.spec.image.shape[0], self.mesh.size * 2 ** max(each - 1, 0).bit_length())

    def stream(
        self,
        images: Iterable[tuple[Where, Canvas]],
        selection: Selection,
        rows: int | None = None,
        tiling: Tiling | None = None,
    ) -> Iterator[Predicted]:
        """Each image with its record, in order.

        Args:
          images: where each is from, and what `decoder(tiling)` made of it.
          selection: what to report of a prediction.
          rows: of a batch, of images or tiles; None for those of `spec`.
          tiling: how images are cut; None: they are seen whole.
        """
        predict = partial(self._predictions, rows=rows)
        if tiling is None:
            pairs = predict(images)
        else:
            pairs = ((image, self._tiled(image[1], selection, tiling, predict)) for image in images)
        for (where, canvas), prediction in pairs:
            yield Predicted(where, canvas, self.output.record(prediction, canvas, selection))

    def _tiled(self, canvas: Canvas, selection: Selection, tiling: Tiling, predict: Callable) -> Prediction:
        """The prediction for an image in its own size."""

        def of_tiles(canvases: Iterable[Canvas]) -> Iterator[tuple[Canvas, Prediction]]:
            for (_, each), prediction in predict((None, each) for each in canvases):
                yield each, prediction

        return tiles.tiled(of_tiles, self.preprocessing, tiling, selection.score_threshold)(canvas.image)

    def _predictions(self, images: Iterable[Shown], rows: int | None) -> Iterator[tuple[Shown, Prediction]]:
        """Each image with its prediction, in order; two batches are under way, each of images whose canvas has one shape."""
        images, spec = iter(images), with_rows(self.spec, rows or self.spec.image.shape[0])
        waiting: deque[tuple[list[Shown], Prediction]] = deque()

        def finished() -> Iterator[tuple[Shown, Prediction]]:
            group, prediction = waiting.popleft()
            fetched = jax.device_get(prediction)
            for row, image in enumerate(group):
                yield image, jax.tree.map(lambda x: x[row], fetched)  # noqa: B023

        first = 0
        for group in alike(images, spec.image.shape[0]):
            waiting.append((group, self.apply(batch_of([canvas for _, canvas in group], spec, first))))
            first += len(group)
            if len(waiting) > 1:
                yield from finished()
        while waiting:
            yield from finished()


def load(
    source: str | Path | Published | PublishedTask,
    checkpoint: Which | None = None,
    *,
    weights: Weights | None = None,
    evaluation: str | None = None,
    experiment: Experiment | None = None,
    overrides: Mapping[str, str] = MappingProxyType({}),
    batch_size: int | None = None,
    fsdp: int = 1,
) -> Model:
    """A trained model: of a run, or published weights. Opens no data where the workdir knows its classes.

    Args:
      source: the folder of a run; or published weights, a value of `pretrained.detectors`, `pretrained.segmenters` or
        `pretrained.published` or its name, such as "ssd_mobilenet_v2", which are downloaded at the first call (the other
        arguments but the last two are then of no use). Images are then shown as the weights' `preprocessing` says.
      checkpoint: `"best"`, `"latest"`, a step, or None: the best if the experiment keeps one, else the latest.
      weights: `"averaged"`, `"current"`, or None: averaged where the run keeps such.
      evaluation: see images as this evaluation does; None for the first that can.
      experiment: of a workdir that holds no experiment file.
      overrides: dotted names of fields of the run's config to texts.
      batch_size: images at once; None for that of the evaluation, or one a device for published weights.
      fsdp: split parameters over this number of devices.

    Raises:
      WorkdirError: if the folder holds no run, and the name is not that of published weights.
      ConfigError: if there is no such evaluation, or it can't take other images; for overrides that are not allowed, or
        averaged weights of a run that keeps none.
      CheckpointError: if there is no such checkpoint, or it can't be read.
      DataError: if a batch can't be split over the devices.
    """
    with raised_as(ConfigError):
        mesh = devices.device_mesh(fsdp)
    if isinstance(source, Published | PublishedTask):
        return _published(source, batch_size, mesh)
    if not Path(source).is_dir() and experiment is None:
        return _published(_found(str(source)), batch_size, mesh)
    found = restore.restore(source, overrides, experiment)
    name = chosen_evaluation(found, evaluation)
    chosen = found.experiment.evaluations[name]
    assert chosen.stream.decode is not None
    spec = chosen.stream.spec.replace(target=None)
    classes = restore.class_names(found, f"evaluation {name}")
    _checked(spec := with_rows(spec, batch_size or spec.image.shape[0]), mesh)
    saved = restore.load_checkpoint(found, checkpoint, mesh)
    which, variables = restore.chosen_weights(found, saved.state, weights)
    model = _model(task_on(mesh, found.experiment), variables, classes, chosen.stream.decode, spec, mesh, chosen.output)
    return model._replace(step=saved.step, weights=which, evaluations=found.experiment.evaluations)


def _found(name: str) -> Published | PublishedTask:
    """Published weights by name; the message for another speaks of a folder first, which is what most names are."""
    from jaxvision.pretrained import catalogue

    try:
        return catalogue.find(name)
    except ValueError as error:
        raise WorkdirError(f"there is no workdir {name}, and {error}") from None


def _published(weights: Published | PublishedTask, batch_size: int | None, mesh: Mesh) -> Model:
    """The model of published weights, every device with all of them."""
    from jaxvision.pretrained import catalogue

    loaded = catalogue.load(weights)
    placer = loaded.preprocessing.placer()
    rows, (height, width) = batch_size or mesh.size, placer.canvas
    spec = jax.eval_shape(lambda: loading.as_batch(loading.empty_rows(rows, (height, width), 3)).replace(target=None))
    _checked(spec, mesh)
    variables = jax.device_put(loaded.variables, devices.replicated(mesh))
    return _model(loaded.task, variables, loaded.classes, partial(_on_canvas, placer), spec, mesh)


def _on_canvas(placer: Placer, data: bytes | np.ndarray) -> Canvas:
    return decode(data, placer).canvas


def _model(
    task: Task,
    variables: Variables,
    classes: tuple[str, ...],
    preprocessing: Callable[[bytes | np.ndarray], Canvas],
    spec: Batch,
    mesh: Mesh,
    output: Output | None = None,
) -> Model:
    """The model, of no run; its predictions are known to fit the classes."""
    place, jitted = devices.placer(mesh), jax.jit(task.predict)
    output = records.output_of(jax.eval_shape(task.predict, variables, spec), classes, output)

    def apply(batch: Batch) -> Prediction:
        return jitted(variables, place(batch))

    return Model(task, variables, classes, preprocessing, output, spec, mesh, None, None, {}, apply)


def _checked(spec: Batch, mesh: Mesh) -> None:
    with raised_as(DataError):
        devices.check_divisible(spec, mesh)


def with_rows(spec: Batch, rows: int) -> Batch:
    """The shapes of a batch of `rows` images."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), spec)


def chosen_evaluation(run: restore.Restored, name: str | None) -> str:
    """The evaluation as which to see images: the one asked for, or the first that can.

    Raises:
      ConfigError: if there is none, or it can't.
    """
    restore.check_evaluations(str(run.workdir.path), run.experiment.evaluations, [] if name is None else [name])
    able = [key for key, each in run.experiment.evaluations.items() if each.stream.decode is not None]
    if not able:
        raise ConfigError(f"{run.workdir.path} has no evaluation that can take other images")
    if name is not None and name not in able:
        raise ConfigError(f"evaluation {name!r} can't take other images; these can: {', '.join(able)}")
    return name or able[0]


def _picture(number: int, image: Image) -> media.Picture:
    """The image, to be read; one that is no file is called by its number."""
    if isinstance(image, str | Path):
        return media.Picture(str(image), None, local(image).read_bytes)
    return media.Picture(f"image {number}", None, lambda: image)


def _refuse(file: str, error: str) -> None:
    raise DataError(f"{file}: {error}")


def readable(decoded: Iterable[media.Decoded], complain: Callable[[str, str], None]) -> Iterator[tuple[Where, Canvas]]:
    """File and frame, and the canvas; of a file that can't be read `complain` hears, once."""
    last = None
    for file, frame, canvas, error in decoded:
        if canvas is not None:
            yield (file, frame), canvas
        elif file != last:
            last = file
            complain(file, error if frame is None else f"frame {frame}: {error}")


def alike(images: Iterable[Shown], size: int) -> Iterator[list[Shown]]:
    """The images in order, up to `size` together, as long as their canvases have one shape."""
    group: list[Shown] = []
    for each in images:
        if len(group) == size or (group and group[0][1].image.shape != each[1].image.shape):
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def batch_of(canvases: Sequence[Canvas], spec: Batch, first: int) -> Batch:
    """The images as a batch, numbered from `first` on and padded; all canvases have the shape of the first."""
    height, width, channels = canvases[0].image.shape
    rows = loading.empty_rows(spec.image.shape[0], (height, width), channels)
    rows = rows._replace(given=jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), spec.given))
    for row, canvas in enumerate(canvases):
        rows.image[row], rows.size[row], rows.original_size[row] = canvas[:3]
        rows.valid[row], rows.index[row] = True, first + row
        rows.window[row] = canvas.window or (0, 0, *canvas.original_size[::-1])
        for whole, one in zip(jax.tree.leaves(rows.given), jax.tree.leaves(canvas.given), strict=True):
            whole[row] = one[0]
    return loading.as_batch(rows).replace(target=None)
