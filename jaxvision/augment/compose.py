"""How augmentations are put together."""

import jax

from jaxvision.types import Augment, Batch, Key, Scalar


def identity(key: Key, step: Scalar, batch: Batch) -> Batch:
    """The augmentation that changes nothing."""
    del key, step
    return batch


def chain(*augments: Augment) -> Augment:
    """One augmentation that applies `augments` from left to right, each with a key of its own; `chain()` is `identity`."""

    def augment(key: Key, step: Scalar, batch: Batch) -> Batch:
        for position, each in enumerate(augments):
            batch = each(jax.random.fold_in(key, position), step, batch)
        return batch

    return augment
