"""Stress of the types, 5: detection with given proposals, as in R-CNN (arXiv:1311.2524): `given` is Objects."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxvision.tasks import classification
from jaxvision.types import Detections, LossOutput, Objects, Task


def mean_colour(image, box):
    y, x = jnp.arange(image.shape[0])[:, None], jnp.arange(image.shape[1])[None, :]
    x0, y0, x1, y1 = box.astype(jnp.int32)
    inside = ((x >= x0) & (x < x1) & (y >= y0) & (y < y1)).astype(jnp.float32)[..., None]
    return (image.astype(jnp.float32) * inside).sum((0, 1)) / jnp.maximum(inside.sum(), 1) / 100


def proposal_classifier() -> Task:
    features = jax.vmap(jax.vmap(mean_colour, (None, 0)))

    def init(key, batch):
        return {"params": {"w": 0.1 * jax.random.normal(key, (3, 3)), "b": jnp.zeros((1, 1, 3))}}

    def scores(variables, batch):
        return features(batch.image, batch.given.boxes) @ variables["params"]["w"] + variables["params"]["b"]

    def loss(variables, batch, key):
        terms = optax.softmax_cross_entropy_with_integer_labels(scores(variables, batch), batch.target.labels)
        weight = (batch.given.valid & batch.valid[:, None]).astype(terms.dtype)
        terms = jnp.where(weight > 0, terms, 0)
        mean = classification.weighted_mean(terms.reshape(-1), weight.reshape(-1))
        return mean, LossOutput({}, {}, terms.sum(-1))

    def predict(variables, batch):
        probs = jax.nn.softmax(scores(variables, batch))
        return Detections(batch.given.boxes, probs.argmax(-1), probs.max(-1), batch.given.valid)

    return Task(init, loss, predict)


def test_proposals_are_input_and_padded_rows_are_nothing(colour_batch, train_steps, strict_gradient):
    batch = colour_batch()
    boxes = np.tile(np.float32([[2, 2, 9, 9], [5, 1, 15, 12], [0, 0, 0, 0]]), (12, 1, 1))
    labels = np.repeat(batch.target.label[:, None], 3, 1)
    valid, ignore = np.tile([True, True, False], (12, 1)), np.zeros((12, 3), bool)
    objects = Objects(boxes, labels, valid, ignore)
    batch = batch.replace(target=objects, given=objects.replace(labels=np.zeros_like(labels)))
    task = proposal_classifier()
    state, losses = train_steps(task, batch, steps=200, optimizer=optax.adam(0.1))
    assert losses[-1] < 0.3 * losses[0]
    found = jax.jit(task.predict)(state.averaged, jax.tree.map(jnp.asarray, batch.replace(target=None)))
    np.testing.assert_array_equal(np.asarray(found.labels)[valid], labels[valid])

    garbage = objects.replace(boxes=np.where(valid[..., None], boxes, 7e3).astype(np.float32), labels=labels * valid)
    assert (
        strict_gradient(task, state.variables, batch.replace(target=garbage))[0]
        == strict_gradient(task, state.variables, batch)[0]
    )
