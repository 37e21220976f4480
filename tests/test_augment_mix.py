import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.augment import choose, cutmix, mixup
from jaxvision.types import Batch, Labels, Objects

CANVAS = (10, 12)
K = 4
LABEL = np.arange(200, dtype=np.int32) % K
MIXES = pytest.mark.parametrize("mix", [mixup(0.4, K), cutmix(1.0, K)], ids=["mixup", "cutmix"])


def make_batch(n=200, size=CANVAS, dtype=jnp.float32, **target):
    """Every image is of one level, its own, on a canvas of 255."""
    level = np.arange(n) % 200 + 1.0
    image = np.full((n, *CANVAS, 3), 255.0)
    image[:, : size[0], : size[1]] = level[:, None, None, None]
    sizes, index = jnp.tile(jnp.int32([size]), (n, 1)), jnp.arange(n, dtype=jnp.int32)
    return Batch(jnp.asarray(image, dtype), sizes, sizes, index, index >= 0, Labels(jnp.asarray(LABEL[:n]), **target))


def apply(augment, batch, seed=0):
    with jax.numpy_dtype_promotion("strict"):
        return jax.jit(augment)(jax.random.key(seed), jnp.zeros((), jnp.int32), batch)


def shares(result, n=200):
    """Of the image itself, from the pixels alone: all levels are known."""
    own, other = np.arange(n) % 200 + 1.0, np.roll(np.arange(n) % 200 + 1.0, 1)
    mean = np.asarray(result.image, np.float64)[:, :9, :11].mean((1, 2, 3))
    return (mean - other) / (own - other)


@MIXES
def test_classes_are_mixed_in_the_shares_of_the_pixels(mix):
    result = apply(mix, make_batch(size=(9, 11)))
    share = shares(result)
    onehot = np.eye(K)[LABEL]
    expected = share[:, None] * onehot + (1 - share[:, None]) * np.roll(onehot, 1, 0)
    np.testing.assert_allclose(result.target.probs, expected, atol=2e-4)
    np.testing.assert_array_equal(result.target.label, np.where(share > 0.5, LABEL, np.roll(LABEL, 1)))
    assert np.all(np.asarray(result.image)[:, 9:] == 255)
    assert np.all(np.asarray(result.image)[:, :, 11:] == 255)
    assert result.target.weight is None


def test_cutmix_shows_a_rectangle_of_the_other_image():
    result = np.asarray(apply(cutmix(1.0, K), make_batch()).image)
    areas = []
    for i, image in enumerate(result):
        hole = image[..., 0] != i + 1
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        if rows.size:
            assert hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            assert np.all(image[hole] == result.shape[0] if i == 0 else image[hole] == i)
        areas.append(hole.mean())
    assert 0.1 < np.mean(areas) < 0.5


@MIXES
def test_an_invalid_image_neither_mixes_nor_is_mixed(mix):
    valid = np.arange(200) % 5 != 3
    result = apply(mix, make_batch().replace(valid=jnp.asarray(valid)))
    alone = ~valid | ~np.roll(valid, 1)
    np.testing.assert_array_equal(np.asarray(result.image)[alone], np.asarray(make_batch().image)[alone])
    assert np.all(np.asarray(result.target.probs)[valid & alone] == np.eye(K)[LABEL[valid & alone]])
    assert np.isfinite(result.target.probs).all()


@pytest.mark.slow
@pytest.mark.parametrize("mix", [mixup(0.4, K), cutmix(1.0, K)])
def test_weights_make_the_loss_the_mixture_of_both(mix):
    weight = np.array([0, 1, 2, 0.5], np.float32)[np.arange(200) % 4]
    unlabelled = np.where(weight > 0, LABEL, -1)
    batch = make_batch(size=(9, 11), weight=jnp.asarray(weight))
    batch = batch.replace(target=batch.target.replace(label=jnp.asarray(unlabelled)))
    result = apply(mix, batch)
    share, log_probs = shares(result), np.log(np.random.default_rng(0).dirichlet(np.ones(K), 200))
    terms = lambda label: -log_probs[np.arange(200), label]
    expected = share * weight * terms(LABEL) + (1 - share) * np.roll(weight, 1) * terms(np.roll(LABEL, 1))
    found = -np.asarray(result.target.weight) * (np.asarray(result.target.probs) * log_probs).sum(-1)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    own, other = share * weight, (1 - share) * np.roll(weight, 1)
    told = np.abs(own - other) > 1e-3  # equal ones go by the last bit
    larger = np.where(own > other, unlabelled, np.roll(unlabelled, 1))
    np.testing.assert_array_equal(np.asarray(result.target.label)[told], larger[told])


def test_a_label_that_is_no_class_is_not_mixed_in_silence():
    batch = make_batch()
    batch = batch.replace(target=Labels(batch.target.label.at[3].set(9)))
    probs = np.asarray(apply(mixup(0.4, K), batch).target.probs)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(probs).any(-1)), [3, 4])


@pytest.mark.slow
def test_another_size_is_stretched():
    image = np.zeros((2, *CANVAS, 1), np.float32)
    image[0, :5, :6] = np.arange(6)[None, :, None] * 40
    sizes = jnp.int32([[5, 6], [10, 12]])
    batch = make_batch(2).replace(image=jnp.asarray(image), size=sizes)
    result = apply(mixup(0.4, K), batch)
    share = float(result.target.probs[1, 1])
    from_the_middle = np.clip((np.arange(12) + 0.5) / 2 - 0.5, 0, 5) * 40
    np.testing.assert_allclose(result.image[1, 3, :, 0], (1 - share) * from_the_middle, atol=1e-2)


@pytest.mark.slow
def test_soft_targets_and_whole_levels_are_mixed_too():
    probs = np.random.default_rng(0).dirichlet(np.ones(K), 200).astype(np.float32)
    result = apply(mixup(0.4, K), make_batch(probs=jnp.asarray(probs)))
    share = shares(result)[:, None]
    np.testing.assert_allclose(result.target.probs, share * probs + (1 - share) * np.roll(probs, 1, 0), atol=1e-4)
    whole = apply(mixup(0.4, K), make_batch(dtype=jnp.uint8)).image
    assert whole.dtype == jnp.uint8
    floats = np.asarray(apply(mixup(0.4, K), make_batch()).image)
    assert np.abs(np.asarray(whole) - floats).max() <= 0.5 + 1e-4


@pytest.mark.slow
def test_either_of_the_two():
    result = apply(choose(mixup(1.0, K), cutmix(1.0, K)), make_batch())
    levels = np.asarray(result.image)
    cut = np.ptp(levels[..., 0], axis=(1, 2)) > 0
    assert 40 < cut.sum() < 120
    np.testing.assert_allclose(np.asarray(result.target.probs).sum(-1), 1, atol=1e-5)


@MIXES
def test_what_cannot_be_is_refused(mix):
    boxes, flags = jnp.zeros((4, 1, 4)), jnp.zeros((4, 1), bool)
    objects = Objects(boxes, jnp.zeros((4, 1), jnp.int32), flags, flags)
    with pytest.raises(TypeError, match="cannot mix batch.target: of type Objects; allowed: None or Labels"):
        apply(mix, make_batch(4).replace(target=objects))
    with pytest.raises(TypeError, match="needs batch.target to be Labels, got None"):
        apply(mix, make_batch(4).replace(target=None))
    with pytest.raises(ValueError, match="probs has 3 classes"):
        apply(mix, make_batch(4, probs=jnp.zeros((4, 3))))
    for make in (mixup, cutmix):
        with pytest.raises(ValueError, match="alpha=0"):
            make(0, K)
