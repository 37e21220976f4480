"""The method `int8`: an ONNX file in 8-bit numbers, quantised after training, as the model of a run."""

import importlib.util
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxvision.errors import ConfigError, DataError, amount, raised_as, reading
from jaxvision.experiment import Experiment
from jaxvision.run import restore
from jaxvision.trust.export import onnx_file
from jaxvision.trust.export.formats import FORMATS
from jaxvision.trust.export.program import MAPS, Program, function, named
from jaxvision.trust.lighter import folding, quantising
from jaxvision.trust.lighter.method import Given, Lighter
from jaxvision.trust.lighter.onnx_task import COLLECTION, by_onnx_runtime
from jaxvision.types import Batch, Task, Variables


def int8(given: Given, *, images: int = 256) -> Lighter:
    """The run with its predictions computed by ONNX Runtime in 8-bit numbers, BatchNorm folded where that can be done.

    Args:
      given: the run.
      images: number of training images, not augmented, that the ranges of activations are taken from.

    Raises:
      ConfigError: if a package is missing, or the run is such a file already.
      DataError: if there are fewer training images.
      ExportError: if the network can't be had in ONNX.
    """
    _check(given)
    experiment = given.run.experiment
    batches = _training_images(experiment, images)
    classes = len(restore.class_names(given.run, "train"))
    with tempfile.TemporaryDirectory(prefix="jaxvision-") as folder:
        file, model = written(experiment.task, given.variables, batches, classes, Path(folder))
        before = file.stat().st_size
    figures = {"images": images, "float32_bytes": before, "int8_bytes": len(model)}
    ratio = len(model) / before
    notes = [f"ONNX file of {amount(len(model), 'byte')}, {ratio:.2f} of the one in float32 ({amount(before, 'byte')})"]
    origin = str(given.run.workdir.path.absolute())
    return Lighter(
        {"params": {}, COLLECTION: {"model": np.frombuffer(model, np.uint8)}},
        ("from jaxvision.trust.lighter.int8 import int8_experiment",),
        f"int8_experiment(experiment, size={len(model)}, run={origin!r})",
        notes,
        figures,
    )


def int8_experiment(experiment: Experiment, size: int, run: str) -> Experiment:
    """The experiment with its predictions computed by an ONNX file of `size` bytes, made of `run`; it can't be trained."""
    task = by_onnx_runtime(experiment.task, size, run)
    return experiment._replace(task=task, optimizer=optax.identity(), frozen=(), average=None, start=None)


def _check(given: Given) -> None:
    missing = [name for name in FORMATS["onnx"].packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--method=int8 needs {', '.join(missing)}: pip install 'jaxvision[onnx]' && "
            "pip install --no-deps jax2onnx==0.17.1"
        )
    if COLLECTION in given.variables:
        raise ConfigError(f"{given.run.workdir.path} is an ONNX file already: take the run that it was made of")


def _training_images(experiment: Experiment, count: int) -> list[Batch]:
    """The first training images as they come from the host, a batch at a time, those that are not valid left out."""
    with raised_as(DataError):
        examples = experiment.train.about().examples
    if count > examples:
        raise DataError(f"--images={count:,}: there are {amount(examples, 'training image')} to calibrate on")
    found, rest = [], count
    for batch in reading(iter(experiment.train.batches(0))):
        valid = np.flatnonzero(batch.valid)[:rest]
        if len(valid):
            found.append(jax.tree.map(lambda x: np.asarray(x)[valid], batch.replace(target=None)))  # noqa: B023
        rest -= len(valid)
        if not rest:
            break
    return found


def written(
    task: Task, variables: Variables, batches: Sequence[Batch], classes: int, folder: Path
) -> tuple[Path, bytes]:
    """The ONNX file of a task, BatchNorm folded where that can be done, and the bytes of the one in 8-bit numbers.

    Args:
      task: whose `predict` is written.
      variables: of the task.
      batches: images as they come from the host, uint8, to take the ranges of activations from.
      classes: their number.
      folder: where the file is written.

    Raises:
      ExportError: if the network can't be had in ONNX.
    """
    file = folder / "model.onnx"
    task, variables = _folded(task, variables, batches[0])
    rows = onnx_file.write(_program(task, variables, batches[0], classes), file)["batch"]
    return file, quantising.quantised(file, _inputs(batches, one=rows == 1))


def _folded(task: Task, variables: Variables, batch: Batch) -> tuple[Task, Variables]:
    with raised_as(ConfigError):
        found = folding.foldable(task, variables, batch)
    return (folding.folded(task), folding.fold(variables, found)) if found.pairs else (task, variables)


def _program(task: Task, variables: Variables, batch: Batch, classes: int) -> Program:
    """The program that is written as ONNX; of its answer the names alone."""
    arrays = _arrays(batch)
    run = function(task, jax.tree.structure(batch.given), batch.window is not None)
    inputs = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in arrays.items()}
    answer = jax.eval_shape(run, variables, *arrays.values())
    here = jax.tree.map(jnp.asarray, jax.device_get(variables))
    return Program(run, here, inputs, {}, {}, dict(answer), max(classes + 1, MAPS))


def _arrays(batch: Batch) -> dict[str, np.ndarray]:
    """What a program takes of a batch, by name."""
    rest = {f"given{name}": np.asarray(x) for name, x in named(batch.given).items()}
    return {"image": np.asarray(batch.image), "size": np.asarray(batch.size), **rest}


def _inputs(batches: Sequence[Batch], one: bool) -> Iterator[dict[str, np.ndarray]]:
    """What a file takes of each batch, or of one image at a time."""
    for arrays in map(_arrays, batches):
        if not one:
            yield arrays
            continue
        for n in range(len(arrays["image"])):
            yield {name: x[n : n + 1] for name, x in arrays.items()}
