import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.augment import chain, flip, identity, pad_and_crop
from jaxvision.types import Batch


def make_batch(n=24, canvas=(6, 8)):
    size = jnp.tile(jnp.int32([canvas]), (n, 1))
    image = np.random.default_rng(0).integers(0, 256, (n, *canvas, 3))
    return Batch(
        image=jnp.asarray(image, jnp.uint8),
        size=size,
        original_size=size,
        index=jnp.arange(n, dtype=jnp.int32),
        valid=jnp.ones(n, bool),
    )


def add(value):
    return lambda key, step, batch: dataclasses.replace(batch, image=batch.image + jnp.asarray(value, jnp.uint8))


def double(key, step, batch):
    return dataclasses.replace(batch, image=batch.image * jnp.asarray(2, jnp.uint8))


def add_step(key, step, batch):
    return dataclasses.replace(batch, image=batch.image + step.astype(jnp.uint8))


def test_identity_and_the_empty_chain_change_nothing():
    batch = make_batch()
    for augment in (identity, chain()):
        jax.tree.map(np.testing.assert_array_equal, augment(jax.random.key(0), jnp.int32(0), batch), batch)


def test_a_chain_goes_from_left_to_right_and_hands_on_the_step():
    batch = make_batch()
    result = chain(add(1), double, add_step)(jax.random.key(0), jnp.int32(7), batch)
    np.testing.assert_array_equal(result.image, (np.asarray(batch.image) + np.uint8(1)) * np.uint8(2) + np.uint8(7))


def test_every_link_has_a_key_of_its_own():
    seen = []

    def watch(key, step, batch):
        seen.append(jax.random.key_data(key).tolist())
        return batch

    key = jax.random.key(5)
    chain(watch, watch, watch)(key, jnp.int32(0), make_batch())
    assert seen == [jax.random.key_data(jax.random.fold_in(key, i)).tolist() for i in range(3)]


def test_two_flips_are_drawn_apart():
    batch = make_batch(64)
    result = chain(flip(), flip())(jax.random.key(0), jnp.int32(0), batch)
    flipped = np.any(np.asarray(result.image != batch.image), axis=(1, 2, 3))
    assert 0 < flipped.sum() < 64


def test_a_chain_under_jit_and_strict_types():
    batch, key = make_batch(), jax.random.key(0)
    augment = chain(pad_and_crop(2), flip(), identity)
    with jax.numpy_dtype_promotion("strict"):
        plain, jitted = augment(key, jnp.int32(3), batch), jax.jit(augment)(key, jnp.int32(3), batch)
    jax.tree.map(np.testing.assert_array_equal, plain, jitted)
    assert jitted.image.dtype == jnp.uint8
