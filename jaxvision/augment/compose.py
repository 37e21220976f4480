"""How augmentations are put together."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxvision.augment.keys import row_keys
from jaxvision.augment.rows import stored
from jaxvision.ops.options import FRACTION, allowed
from jaxvision.types import Augment, Batch, Key, Scalar


def identity(key: Key, step: Scalar, batch: Batch) -> Batch:
    """The augmentation that changes nothing."""
    del key, step
    return batch


def chain(*augments: Augment) -> Augment:
    """One augmentation that applies `augments` from left to right, each with a key of its own; `chain()` is `identity`."""

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        for position, each in enumerate(augments):
            batch = stored(batch) if position else batch
            batch = each(jax.random.fold_in(key, position), step, batch)
        return batch

    return augment


@allowed(probability=FRACTION)
def sometimes(probability: float, augment: Augment) -> Augment:
    """Applies `augment` to each image with this probability.

    All images are augmented and those not chosen put back. `augment` may not change which arrays a batch has or their
    types, as mixup does to labels without `probs`.

    Raises:
      ValueError: a probability outside 0 to 1; in use, an augmentation that changes the form of the batch.
    """

    def augmented(key: Key, step: Scalar, batch: Batch) -> Batch:
        for_choice, for_augment = jax.random.split(key)
        keys = row_keys(for_choice, len(batch.image))
        chosen = jax.vmap(lambda k: jax.random.bernoulli(k, probability))(keys).astype(jnp.int32)
        return _selected(chosen, [batch, augment(for_augment, step, batch)], "sometimes")

    return augmented


def choose(*augments: Augment) -> Augment:
    """Applies to each image one of `augments`, all with the same probability; `choose(mixup(...), cutmix(...))`.

    Each is applied to all images. All must return batches of one form.

    Raises:
      ValueError: without augmentations; in use, for results of different forms.
    """
    if not augments:
        raise ValueError("choose() needs one augmentation or more, got none")

    def augmented(key: Key, step: Scalar, batch: Batch) -> Batch:
        for_choice, key = jax.random.split(key)
        keys = row_keys(for_choice, len(batch.image))
        chosen = jax.vmap(lambda k: jax.random.randint(k, (), 0, len(augments), jnp.int32))(keys)
        results = [each(jax.random.fold_in(key, i), step, batch) for i, each in enumerate(augments)]
        return _selected(chosen, results, "choose")

    return augmented


def _selected(chosen: Int[Array, "b"], batches: list[Batch], who: str) -> Batch:
    """Batch whose row i comes from the batch with the number `chosen[i]`."""
    batches = [jax.tree.map(jnp.asarray, batch) for batch in batches]
    forms = [jax.tree.map(lambda a: (a.shape, a.dtype), batch) for batch in batches]
    for form in forms[1:]:
        if form != forms[0]:
            raise ValueError(f"{who} needs batches of one form, got {forms[0]} and {form}")

    def select(*arrays: Array) -> Array:
        return jnp.stack(arrays, 1)[jnp.arange(len(chosen)), chosen]

    return jax.tree.map(select, *batches)
