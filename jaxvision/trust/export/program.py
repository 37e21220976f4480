"""A model as a program of arrays: canvases and sizes in, decoded predictions out, each array by its name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxvision.data import samples
from jaxvision.errors import DataError, UserError
from jaxvision.run.prediction import batch_of
from jaxvision.types import Batch, Canvas, ClassScores, Prediction, Task, Variables

Arrays = Mapping[str, Any]
EXAMPLES = 2
"""Images of the example that goes with an export."""
MAPS = 16
"""Number above that of the maps of any pyramid."""


class Program(NamedTuple):
    """A model as a function of arrays."""

    run: Callable[..., dict[str, Array]]
    """`(variables, *inputs) -> outputs`, in the order of `inputs`; of a batch of any size."""
    variables: Variables
    """They become constants of a file."""
    inputs: dict[str, jax.ShapeDtypeStruct]
    """Shapes of one row of every input, `image` and `size` first."""
    notes: dict[str, Any]
    """Settings of the outputs that are no arrays: `masks.geometry`, say."""
    example: dict[str, np.ndarray]
    """Inputs, a row an image."""
    answer: dict[str, np.ndarray]
    """Outputs for the example, as `predict` has them."""
    labels: int
    """Number above every label of NMS: of a class, or of a map of features."""


def program_of(task: Task, variables: Variables, example: Batch, classes: int = MAPS) -> Program:
    """The program of a task, with what it finds in an example.

    `image` is uint8 `b h w c`, canvases on which images are placed as the manifest says; `size` is int32 `b 2`, the height
    and width of the content of each. What else `predict` reads, proposals say, is called `given.boxes` and so on. Outputs
    have the names of the fields of the prediction; of a classifier there are `probabilities`, too.

    Args:
      task: its `predict` is exported.
      variables: of the task.
      example: images as it is shown them, uint8.
      classes: number of classes.
    """
    given = {f"given{name}": leaf for name, leaf in named(example.given).items()}
    arrays = {name: np.asarray(leaf) for name, leaf in ({"image": example.image, "size": example.size} | given).items()}
    run = function(task, jax.tree.structure(example.given), example.window is not None)
    inputs = {name: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for name, leaf in arrays.items()}
    predict = jax.jit(lambda *arguments: outputs_of(task.predict(*arguments)))
    answer = {name: np.asarray(leaf) for name, leaf in predict(variables, example).items()}
    notes = settings_of(jax.eval_shape(task.predict, variables, example))
    return Program(run, variables, inputs, notes, arrays, answer, max(classes + 1, MAPS))


def function(task: Task, given: PyTree, window: bool) -> Callable[..., dict[str, Array]]:
    """The program of a task: `(variables, image, size, *leaves of given) -> outputs`.

    Args:
      task: its `predict` is the program.
      given: structure of `Batch.given`.
      window: whether batches have one; it is that of the whole content.
    """

    def run(variables: Variables, image: Array, size: Array, *leaves: Array) -> dict[str, Array]:
        rows = size.shape[:1]
        corner = jnp.zeros((*rows, 2), jnp.float32)
        whole = jnp.concatenate([corner, size[:, ::-1].astype(jnp.float32)], 1) if window else None
        numbers, valid = jnp.zeros(rows, jnp.int32), jnp.ones(rows, bool)
        batch = Batch(image, size, size, numbers, valid, None, jax.tree.unflatten(given, leaves), whole)
        return outputs_of(task.predict(variables, batch))

    return run


def outputs_of(prediction: Prediction) -> dict[str, Array]:
    """The arrays of a prediction by name: `boxes`, `scores`, `masks.probabilities`, ..."""
    found = {name.removeprefix(".") or "output": leaf for name, leaf in named(prediction).items()}
    if isinstance(prediction, ClassScores):
        wide = jnp.promote_types(prediction.logits.dtype, jnp.float32)
        found["probabilities"] = jax.nn.softmax(prediction.logits.astype(wide))
    return found


def named(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by the path to each, as `.masks.probabilities`; "" for a tree that is a leaf."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"".join(f".{jax.tree_util.keystr((key,), simple=True)}" for key in path): leaf for path, leaf in leaves}


def settings_of(prediction: Prediction) -> dict[str, Any]:
    """What the masks of detections say beside arrays: how a grid lies in its box, what a map covers."""
    masks = getattr(prediction, "masks", None)
    found = {name: getattr(masks, name, None) for name in ("geometry", "extent")}
    return {f"masks.{name}": value for name, value in found.items() if value is not None}


def example_of(preprocessing: Callable[[bytes | np.ndarray], Canvas], spec: Batch) -> Batch:
    """Photographs of the package as the model is shown them, or noise that fits the canvas, as a batch of this shape.

    Raises:
      DataError: if neither fits the canvas.
    """
    _, height, width, channels = spec.image.shape
    photos = (path.read_bytes() for path in sorted(samples.photos_dir().glob("*.jpg")))
    noise = np.random.default_rng(0).integers(0, 256, (EXAMPLES, height, width, channels), np.uint8)
    found = [each for data in (*photos, *noise) if (each := _fitting(preprocessing, data, spec)) is not None]
    if not found:
        raise DataError(f"no image could be placed on the canvas of {height} x {width} pixels that is exported")
    return batch_of((found * EXAMPLES)[:EXAMPLES], spec, 0)


def _fitting(preprocessing: Callable[[bytes | np.ndarray], Canvas], data: Any, spec: Batch) -> Canvas | None:
    """The image on the canvas; None where it can't be placed, or has another canvas."""
    try:
        canvas = preprocessing(data)
    except (ValueError, UserError):
        return None
    return canvas if canvas.image.shape == spec.image.shape[1:] else None


def placing(preprocessing: Callable[[bytes | np.ndarray], Canvas], canvas: Sequence[int]) -> list[dict[str, Any]]:
    """Where images of several sizes come to lie: the content's `height, width`, and the box of the file that it shows."""
    height, width = canvas
    found = []
    for size in ((height, width), (height, 2 * width), (2 * height, width), (2 * height, 2 * width)):
        try:
            shown = preprocessing(np.zeros((*size, 3), np.uint8))
        except (ValueError, UserError) as error:
            found.append({"file": size, "refused": str(error)})
            continue
        window = shown.window or (0, 0, size[1], size[0])
        found.append({"file": size, "content": [*map(int, shown.size)], "shows": [*map(float, window)]})
    return found
