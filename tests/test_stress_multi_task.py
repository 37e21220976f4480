"""Stress of the types, 4: a multi-task network; classes of images and of pixels from one backbone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from jaxvision.tasks import classification, forward
from jaxvision.types import ClassScores, LossOutput, SegmentationMap, Task


class TwoHeads(nn.Module):
    backbone: nn.Module

    @nn.compact
    def __call__(self, image, *, train):
        features = self.backbone((image.astype(jnp.float32) - 120) / 60, train=train)
        return {"class": nn.Dense(3)(features.mean((1, 2))), "map": nn.Dense(2)(features)}


def pixel_terms(logits, target: SegmentationMap):
    terms = optax.softmax_cross_entropy_with_integer_labels(logits, target.label)
    return jnp.where(target.valid, terms, 0).sum((1, 2)) / jnp.maximum(target.valid.sum((1, 2), dtype=terms.dtype), 1)


def multi_task(network) -> Task:
    def init(key, batch):
        return network.init(key, batch.image, train=False)

    def loss(variables, batch, key):
        logits, collections = forward.forward_training(network, variables, batch.image, valid=batch.valid, key=key)
        classes = classification.loss_terms(logits["class"], batch.target["class"])
        pixels = pixel_terms(logits["map"], batch.target["map"])
        total = classification.weighted_mean(classes + pixels, batch.valid.astype(classes.dtype))
        return total, LossOutput({"class": classes.mean(), "map": pixels.mean()}, collections, classes + pixels)

    def predict(variables, batch):
        logits = network.apply(forward.model_variables(variables), batch.image, train=False)
        found = logits["map"].argmax(-1)
        return {"class": ClassScores(logits["class"]), "map": SegmentationMap(found, jnp.ones(found.shape, bool))}

    return Task(init, loss, predict)


def test_both_heads_learn(tiny_net, colour_batch, train_steps, strict_gradient):
    batch = colour_batch()
    image = batch.image.copy()
    image[:, :, :8] //= 2
    map_label = np.zeros((12, 8, 8), np.int32)
    map_label[:, :, :4] = 1
    target = {"class": batch.target, "map": SegmentationMap(map_label, np.ones((12, 8, 8), bool))}
    batch = batch.replace(image=image, target=target)
    task = multi_task(TwoHeads(tiny_net(classes=16, pool=False)))
    state, losses = train_steps(task, batch, steps=100)
    assert losses[-1] < 0.4 * losses[0]
    found = jax.jit(task.predict)(state.averaged, jax.tree.map(jnp.asarray, batch))
    np.testing.assert_array_equal(found["class"].logits.argmax(-1), batch.target["class"].label)
    assert (np.asarray(found["map"].label) == map_label).mean() > 0.9
    assert np.isfinite(strict_gradient(task, state.variables, batch)[0])
