"""Tasks whose predictions ONNX Runtime computes: the model is an array of the variables, the bytes of an ONNX file.

So a run of such a task is evaluated, and predicts, as any other; its checkpoint holds all that it takes. The variables are
`{"params": {}, "onnx": {"model": uint8 n}}`; there is nothing to train.
"""

import functools
import hashlib
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxvision.errors import ConfigError
from jaxvision.trust.export.program import named
from jaxvision.types import Batch, Key, LossOutput, Prediction, Scalar, Task, Variables

COLLECTION = "onnx"
SESSIONS = 4
"""Models that are kept ready to run."""


def by_onnx_runtime(task: Task, size: int, run: str) -> Task:
    """The task with `predict` computed by an ONNX file, which has the inputs and outputs of an export (`export.program`).

    Args:
      task: whose predictions the file gives.
      size: bytes of the file; those of fresh variables are zeros.
      run: that can be trained in its place, for messages.

    Raises:
      ConfigError: if ONNX Runtime is not installed; in `loss`.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise ConfigError("the model is an ONNX file, which needs onnxruntime: pip install 'jaxvision[onnx]'")

    def init(key: Key, batch: Batch) -> Variables:
        return {"params": {}, COLLECTION: {"model": jnp.zeros(size, jnp.uint8)}}

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        raise ConfigError(f"an ONNX file can't be trained: train or fine-tune {run}, of which it was made")

    def predict(variables: Variables, batch: Batch) -> Prediction:
        batch = batch.replace(target=None)
        shapes = jax.eval_shape(lambda: task.predict(task.init(jax.random.key(0), batch), batch))
        inputs = [_whole_numbers(batch.image), batch.size.astype(jnp.int32), *jax.tree.leaves(batch.given)]
        wanted = {name.removeprefix(".") or "output": leaf for name, leaf in named(shapes).items()}
        found = jax.pure_callback(
            functools.partial(_run, tuple(wanted)), tuple(wanted.values()), _model(variables), *inputs
        )
        return jax.tree.unflatten(jax.tree.structure(shapes), found)

    return Task(init, loss, predict)


def _model(variables: Variables) -> Array:
    return variables[COLLECTION]["model"]


def _whole_numbers(image: Array) -> Array:
    """Pixels as uint8, which is what a file takes."""
    return image if image.dtype == jnp.uint8 else jnp.clip(jnp.round(image), 0, 255).astype(jnp.uint8)


def _run(names: tuple[str, ...], model: Any, *inputs: Any) -> tuple[np.ndarray, ...]:
    """The outputs of these names, from the bytes of a model and its inputs, on the host."""
    session = session_of(np.asarray(model).tobytes())
    needed = {each.name: each.shape[0] for each in session.get_inputs()}
    places = ("image", "size", *(each for each in needed if each.startswith("given")))
    arrays = {name: np.asarray(x) for name, x in zip(places, inputs, strict=False) if name in needed}
    if not isinstance(next(iter(needed.values())), int):
        return tuple(session.run(names, arrays))
    rows = [session.run(names, {name: x[n : n + 1] for name, x in arrays.items()}) for n in range(len(inputs[0]))]
    return tuple(np.concatenate(each) for each in zip(*rows, strict=True))


class _Model:
    """Bytes of a model, the same as others with their digest."""

    def __init__(self, data: bytes):
        self.data, self.digest = data, hashlib.blake2b(data).digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Model) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


def session_of(data: bytes) -> Any:
    """The ONNX Runtime session of a file's bytes, on the CPU."""
    return _session(_Model(data))


@functools.lru_cache(SESSIONS)
def _session(model: _Model) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(model.data, providers=["CPUExecutionProvider"])
