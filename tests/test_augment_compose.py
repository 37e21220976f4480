import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.augment import affine, chain, choose, flip, identity, mixup, pad_and_crop, sometimes
from jaxvision.types import Batch, Labels


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
    result = jax.jit(chain(flip(), flip()))(jax.random.key(0), jnp.int32(0), batch)
    flipped = np.any(np.asarray(result.image != batch.image), axis=(1, 2, 3))
    assert 0 < flipped.sum() < 64


@pytest.mark.slow
def test_a_chain_under_jit_and_strict_types():
    batch, key = make_batch(), jax.random.key(0)
    augment = chain(pad_and_crop(2), flip(), identity)
    with jax.numpy_dtype_promotion("strict"):
        plain, jitted = augment(key, jnp.int32(3), batch), jax.jit(augment)(key, jnp.int32(3), batch)
    jax.tree.map(np.testing.assert_array_equal, plain, jitted)
    assert jitted.image.dtype == jnp.uint8


def test_the_usual_chain_of_geometry():
    augment = chain(flip(), affine(rotation=40, shift=0.2, shear=0.2, zoom=0.2, fill="nearest"))
    batch = make_batch()
    with jax.numpy_dtype_promotion("strict"):
        result = jax.jit(augment)(jax.random.key(0), jnp.int32(0), batch)
    assert result.image.dtype == jnp.uint8
    assert np.all(np.any(np.asarray(result.image != batch.image), axis=(1, 2, 3)))
    np.testing.assert_array_equal(result.size, batch.size)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_sometimes_is_for_each_image_with_the_probability_asked_for(probability):
    batch = make_batch(600).replace(target=Labels(jnp.arange(600, dtype=jnp.int32)))
    with jax.numpy_dtype_promotion("strict"):
        result = jax.jit(sometimes(probability, add(1)))(jax.random.key(0), jnp.int32(0), batch)
    apart = np.asarray(result.image - batch.image).reshape(600, -1)
    assert np.all(np.ptp(apart.astype(int), axis=1) == 0)
    deviation = np.sqrt(probability * (1 - probability) / 600)
    assert abs(apart[:, 0].mean() - probability) <= 5 * deviation
    np.testing.assert_array_equal(result.target.label, np.arange(600))


def test_one_of_several_is_chosen_for_each_image():
    batch = make_batch(600)
    with jax.numpy_dtype_promotion("strict"):
        result = jax.jit(choose(add(1), add(2), chain(add(3), add_step)))(jax.random.key(0), jnp.int32(7), batch)
    apart = np.asarray(result.image - batch.image).reshape(600, -1)
    assert np.all(apart == apart[:, :1])
    counts = np.bincount(apart[:, 0], minlength=11)
    assert counts[[1, 2, 10]].sum() == 600
    assert np.all(np.abs(counts[[1, 2, 10]] - 200) < 5 * np.sqrt(600 * 2 / 9))


def test_what_cannot_be_chosen_from_is_refused():
    with pytest.raises(ValueError, match="sometimes.probability=2"):
        sometimes(2, identity)
    with pytest.raises(ValueError, match="one augmentation or more"):
        choose()
    batch = make_batch(4).replace(target=Labels(jnp.zeros(4, jnp.int32)))
    with pytest.raises(ValueError, match="sometimes needs batches of one form"):
        jax.eval_shape(sometimes(0.5, mixup(1.0, 3)), jax.random.key(0), jnp.int32(0), batch)
