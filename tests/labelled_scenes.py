"""The scenes of `boxes_experiment.py` as files, and a detector that finds all their boxes, loaded. Not a test itself."""

import jax
import jax.numpy as jnp
from boxes_experiment import CLASSES, SCORES, around, scene
from finished_run import save

from jaxvision.data import loading, placement
from jaxvision.data.decode import decode
from jaxvision.run import records
from jaxvision.run.prediction import Model
from jaxvision.types import Detections, LossOutput, Task

SIDE = 32


def scenes(folder, numbers):
    """The scenes of these numbers as PNG files."""
    for number in numbers:
        save(folder / f"{number:04}.png", scene(number)[0])
    return folder


def predict(variables, batch):
    """A box around all bright pixels of a channel."""

    def of_image(image):
        boxes, valid = zip(*(around(image[..., k] > 145) for k in range(3)), strict=True)
        return Detections(jnp.stack(boxes), jnp.arange(3, dtype=jnp.int32), jnp.float32(SCORES), jnp.stack(valid))

    return jax.vmap(of_image)(batch.image)


def detector(rows=4, scale=1.0, classes=CLASSES, side=SIDE):
    """The detector; `scale` changes its digest alone."""
    placer = placement.stretch(side)
    task = Task(
        init=lambda key, batch: {"params": {"scale": jnp.ones(())}},
        loss=lambda variables, batch, key: (variables["params"]["scale"], LossOutput()),
        predict=predict,
    )
    variables = {"params": {"scale": jnp.float32(scale)}}
    spec = jax.eval_shape(lambda: loading.as_batch(loading.empty_rows(rows, (side, side), 3)).replace(target=None))
    jitted = jax.jit(task.predict)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    return Model(
        task,
        variables,
        tuple(classes),
        lambda data: decode(data, placer).canvas,
        records.OBJECTS,
        spec,
        mesh,
        None,
        None,
        {},
        lambda batch: jitted(variables, batch),
    )
