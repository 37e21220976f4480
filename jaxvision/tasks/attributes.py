"""Attributes of objects, learned from crops: of each attribute one of its values, or any number of them.

Each attribute is a classifier of its own on features that all share. Objects with some attributes known and others not are
common in annotated data: what is not known is left out of the loss. Beside the crop the network is given the object's place
in its image, since a crop alone does not show how large it was.
"""

from collections.abc import Collection, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.precision import at_least_float32
from jaxvision.ops import pixels
from jaxvision.ops.losses import targets
from jaxvision.tasks.classification import weighted_mean
from jaxvision.tasks.forward import forward_training, model_variables
from jaxvision.types import Batch, ClassScores, Key, Labels, LossOutput, Scalar, Task, Variables

Logits = Mapping[str, Float[Array, "b k"]]
"""Scores of the values of each attribute, by its name."""


class AttributeHeads(nn.Module):
    """A backbone, a dense layer of its features and the object's place, and heads by attribute: names `dense`, `logits_*`."""

    backbone: nn.Module
    """Gives a map, or a list of maps of which the last is averaged."""
    values: Mapping[str, int]
    """Number of values of each attribute."""
    hidden: int = 128
    dropout: float = 0.1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], place: Float[Array, "b 4"], *, train: bool) -> Logits:
        """Logits, in float32 at least, of normalised crops and of boxes in fractions of the image's sides."""
        wide = at_least_float32(self.dtype)
        maps = self.backbone(images, train=train)
        features = (maps[-1] if isinstance(maps, list) else maps).astype(wide).mean((1, 2))
        x = jnp.concatenate([features, extent(place.astype(wide))], 1)
        x = nn.relu(nn.Dense(self.hidden, dtype=wide, param_dtype=wide, name="dense")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        heads = {
            name: nn.Dense(count, dtype=wide, param_dtype=wide, name=f"logits_{name}")
            for name, count in self.values.items()
        }
        return {name: head(x) for name, head in heads.items()}


def extent(place: Float[Array, "b 4"]) -> Float[Array, "b 7"]:
    """Middle, sides, and logarithms of the sides and of the longer one, of boxes in fractions of the image's sides."""
    middle, sides = (place[:, :2] + place[:, 2:]) / 2, jnp.maximum(place[:, 2:] - place[:, :2], 1e-3)
    return jnp.concatenate([middle, sides, jnp.log(sides), jnp.log(sides.max(1, keepdims=True))], 1)


def attributes(
    network: nn.Module,
    *,
    several: Collection[str] = (),
    mean: float | Sequence[float] = pixels.IMAGENET_MEAN,
    std: float | Sequence[float] = pixels.IMAGENET_STD,
    dtype=jnp.float32,
) -> Task:
    """The task of telling attributes of the object that an image is a crop of.

    Args:
      network: `AttributeHeads`, or what is called as it is: `network(images, place, train=...) -> logits by name`.
      several: attributes of which an object may have several values at once, or none.
      mean: mean of the pixels of each channel (or of all), on the scale 0-255.
      std: standard deviation of the pixels of each channel (or of all), on the scale 0-255.
      dtype: of the normalised images.

    Returns:
      A task whose `batch.given` is the object's place `b 4`, whose target are `Labels` by the attribute's name, of weight 0
      where it is not known, and whose prediction are `ClassScores` by name. An example's loss is the mean over its known
      attributes, that of a batch the mean over the examples with any. A label that the network does not have makes it NaN.
    """

    def images(batch: Batch) -> Array:
        return jax.vmap(lambda image, size: pixels.normalise(image, size, mean, std, dtype))(batch.image, batch.size)

    def init(key: Key, batch: Batch) -> Variables:
        return network.init(key, images(batch), jnp.asarray(batch.given), train=False)

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        inputs = images(batch), jnp.asarray(batch.given)
        logits, collections = forward_training(network, variables, *inputs, valid=batch.valid, key=key)
        terms, weights = loss_terms(logits, batch.target, several)
        counted = jnp.stack([jnp.where(batch.valid, weights[name], 0) > 0 for name in terms])
        weighted = jnp.stack(
            [jnp.where(known, terms[name] * weights[name], 0) for name, known in zip(terms, counted, strict=True)]
        )
        count = counted.sum(0).astype(weighted.dtype)
        example = weighted.sum(0) / jnp.maximum(count, 1)
        means = {name: weighted_mean(terms[name], jnp.where(batch.valid, weights[name], 0)) for name in terms}
        metrics = {f"{name}_loss": mean for name, mean in means.items()}
        return weighted_mean(example, (count > 0).astype(example.dtype)), LossOutput(metrics, collections, example)

    def predict(variables: Variables, batch: Batch) -> dict[str, ClassScores]:
        logits = network.apply(model_variables(variables), images(batch), jnp.asarray(batch.given), train=False)
        return {name: ClassScores(each) for name, each in logits.items()}  # type: ignore[union-attr]

    return Task(init, loss, predict)


def loss_terms(
    logits: Logits, target: Mapping[str, Labels], several: Collection[str] = ()
) -> tuple[dict[str, Float[Array, "b"]], dict[str, Float[Array, "b"]]]:
    """Loss of each example by attribute, and its weight: the cross-entropy over the values, or the mean of one a value."""
    terms, weights = {}, {}
    for name in logits:
        scores, labels = logits[name], target[name]
        if name in several:
            term = optax.sigmoid_binary_cross_entropy(scores, jnp.asarray(labels.probs, scores.dtype)).mean(-1)
        else:
            term = optax.softmax_cross_entropy(scores, targets(scores, labels))
            known = (jnp.asarray(labels.label) >= 0) & (jnp.asarray(labels.label) < scores.shape[-1])
            term = jnp.where(known, term, jnp.nan)
        terms[name] = term
        weights[name] = jnp.ones_like(term) if labels.weight is None else jnp.asarray(labels.weight, term.dtype)
    return terms, weights


def decode(logits: Logits, several: Collection[str] = ()) -> dict[str, Float[Array, "b k"]]:
    """The probability of each value: of one, they add up to 1 over the values; of several, each stands for itself."""
    return {name: (jax.nn.sigmoid if name in several else jax.nn.softmax)(each) for name, each in logits.items()}
