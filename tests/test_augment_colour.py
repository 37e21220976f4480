import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import stats

from jaxvision import augment as au
from jaxvision.data.samples import photos_dir
from jaxvision.types import Batch, Labels

CANVAS, SIZE = (24, 32), (20, 27)
EVERY = {
    "brightness": au.brightness(0.5),
    "offset": au.offset(32),
    "contrast": au.contrast(0.5),
    "saturation": au.saturation(0.9),
    "sharpness": au.sharpness(0.9),
    "hue": au.hue(0.5),
    "gamma": au.gamma(0.5),
    "greyscale": au.greyscale(),
    "solarize": au.solarize(100),
    "posterize": au.posterize(3),
    "autocontrast": au.autocontrast(),
    "equalize": au.equalize(),
    "blur": au.blur(0.5, 2.0),
    "noise": au.noise(9.0),
    "jpeg": au.jpeg(30, 60),
    "random_erasing": au.random_erasing(1.0),
}
DETERMINED = ("greyscale", "solarize", "posterize", "autocontrast", "equalize")


def slow_but(*quick):
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in EVERY]


def photo():
    return np.asarray(Image.open(photos_dir() / "astronaut.jpg").convert("RGB").resize(SIZE[::-1])) // 2 + 40


def make_batch(n=6, dtype=jnp.uint8, outside=0):
    image = np.full((n, *CANVAS, 3), outside)
    image[:, : SIZE[0], : SIZE[1]] = photo()
    size = jnp.tile(jnp.int32([SIZE]), (n, 1))
    index = jnp.arange(n, dtype=jnp.int32)
    return Batch(jnp.asarray(image, dtype), size, size, index, index >= 0, Labels(index))


def apply(augment, batch, seed=0):
    with jax.numpy_dtype_promotion("strict"):
        return jax.jit(augment)(jax.random.key(seed), jnp.zeros((), jnp.int32), batch)


def content(image):
    return np.asarray(image)[:, : SIZE[0], : SIZE[1]]


@pytest.mark.parametrize("name", slow_but("contrast", "hue", "equalize", "blur", "random_erasing"))
def test_it_changes_the_content_alone_and_keeps_its_type(name):
    whole, around = apply(EVERY[name], make_batch()), apply(EVERY[name], make_batch(outside=200))
    floats = apply(EVERY[name], make_batch(dtype=jnp.float32)).image
    np.testing.assert_array_equal(content(whole.image), content(around.image))
    assert np.all(np.delete(around.image, range(SIZE[0]), axis=1) == 200)
    assert np.all(np.delete(around.image, range(SIZE[1]), axis=2) == 200)
    assert (whole.image.dtype, floats.dtype) == (jnp.uint8, jnp.float32)
    assert np.all((np.asarray(floats) >= 0) & (np.asarray(floats) <= 255))
    assert np.abs(content(whole.image).astype(float) - photo()).mean() > 0.5
    alike = np.all(content(whole.image)[0] == content(whole.image)[1])
    assert alike == (name in DETERMINED)
    np.testing.assert_array_equal(whole.target.label, np.arange(6))
    if name not in ("noise", "random_erasing"):
        np.testing.assert_array_equal(content(whole.image), np.round(content(floats)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["contrast", "noise"])
def test_jit_changes_nothing(name):
    batch = make_batch()
    plain = EVERY[name](jax.random.key(0), jnp.int32(0), batch).image
    assert np.abs(np.asarray(plain).astype(int) - np.asarray(apply(EVERY[name], batch).image)).max() <= 1


@pytest.mark.parametrize(
    ("augment", "enhancer", "tolerance"),
    [
        (au.brightness(0.5), ImageEnhance.Brightness, 2),
        (au.contrast(0.5), ImageEnhance.Contrast, 2),
        (au.saturation(0.5), ImageEnhance.Color, 2),
    ],
)
def test_factors_are_drawn_evenly_and_are_those_of_pil(augment, enhancer, tolerance):
    batch = make_batch(200)
    found = content(apply(augment, batch).image).astype(float)
    enhanced = enhancer(Image.fromarray(photo().astype(np.uint8)))
    low, high = (np.asarray(enhanced.enhance(factor)).astype(float) for factor in (0.5, 1.5))
    spread = np.abs(high - low) > 40
    factors = 0.5 + np.array([np.median(((image - low) / (high - low + 1e-9))[spread]) for image in found])
    assert np.all((factors > 0.47) & (factors < 1.53))
    assert abs(factors.mean() - 1) < 5 * 1 / np.sqrt(12 * 200)
    assert abs(factors.std() - np.sqrt(1 / 12)) < 0.05
    for image, factor in zip(found[:20], factors, strict=False):
        assert np.abs(image - np.asarray(enhanced.enhance(factor)).astype(float)).mean() < tolerance


def test_noise_has_the_deviation_asked_for():
    image = make_batch(30, jnp.float32)
    apart = content(apply(au.noise(4.0), image).image) - photo()
    assert abs(apart.mean()) < 5 * 4 / np.sqrt(apart.size)
    assert apart.std() == pytest.approx(4.0, rel=0.02)


@pytest.mark.parametrize(
    ("augment", "low", "high", "level"),
    [(au.offset(32), 68, 132, lambda number: number), (au.brightness((1.0, 1.5)), 1, 1.5, lambda number: number / 100)],
)
def test_levels_change_by_a_number_drawn_evenly_from_the_range(augment, low, high, level):
    batch = make_batch(600, jnp.float32)
    image = apply(
        augment, batch.replace(image=jnp.full((600, 1, 1, 1), 100.0), size=jnp.ones((600, 2), jnp.int32))
    ).image
    assert stats.kstest(level(np.asarray(image).ravel()), stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_erasing_with_normal_noise_has_the_moments_of_imagenet_cut_to_levels():
    batch = make_batch(80, jnp.float32)
    erased = content(apply(au.random_erasing(1.0, (0.3, 0.5), fill="normal"), batch).image)
    hole = (erased != photo()).any(-1)
    for channel, (mean, std) in enumerate(zip((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), strict=True)):
        found, bounds = erased[..., channel][hole], np.array([0, 255])
        a, b = (bounds - mean) / std
        inside = stats.truncnorm(a, b, mean, std)
        expected = 255 * stats.norm.sf(b) + inside.mean() * (stats.norm.cdf(b) - stats.norm.cdf(a))
        assert found.mean() == pytest.approx(expected, abs=5 * std / np.sqrt(found.size))
        assert np.median(found) == pytest.approx(mean, abs=7 * std / np.sqrt(found.size))
        within = found[(found > 0) & (found < 255)]
        assert stats.kstest(within, inside.cdf).pvalue > 1e-3
    with pytest.raises(ValueError, match="the image has 1 channels; allowed are 3"):
        apply(au.random_erasing(fill="normal"), batch.replace(image=batch.image[..., :1]))


@pytest.mark.slow
def test_erasing_fills_a_rectangle_of_the_area_and_shape_asked_for():
    batch = make_batch(60)
    shares = []
    for image in content(apply(au.random_erasing(0.5, (0.1, 0.3), (0.5, 2.0), fill=1), batch).image):
        rows, columns = (np.flatnonzero((image == 1).all(-1).any(axis)) for axis in (1, 0))
        if not rows.size:
            continue
        hole = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert np.all(hole == 1)
        shares.append(hole[..., 0].size / image[..., 0].size)
        assert 0.4 < hole.shape[1] / hole.shape[0] < 2.5
        np.testing.assert_array_equal(np.where((image == 1).all(-1, keepdims=True), photo(), image), photo())
    assert 15 < len(shares) < 45
    assert 0.08 < min(shares) < 0.16
    assert 0.24 < max(shares) < 0.32


def test_what_cannot_be_is_refused():
    for make, told in [
        (lambda: au.brightness(-1), "brightness.amount=-1"),
        (lambda: au.brightness((1.5, 1.0)), "0 <= low <= high"),
        (lambda: au.offset(-1), "offset.amount=-1"),
        (lambda: au.hue(0.6), "amount=0.6.: allowed is 0 to 0.5"),
        (lambda: au.posterize(0), "bits=0"),
        (lambda: au.blur(2, 1), "low=2, high=1"),
        (lambda: au.noise(-1), "deviation=-1"),
        (lambda: au.jpeg(0, 50), "jpeg.low=0.: allowed is 1 to 100, whole"),
        (lambda: au.random_erasing(2), "probability=2.: allowed is 0 to 1"),
        (lambda: au.random_erasing(fill="black"), "fill='black'"),
        (lambda: au.random_erasing(area=(0.5, 0.1)), "area=.0.5, 0.1"),
        (lambda: au.random_erasing(ratio=(0, 1)), "ratio=.0, 1"),
    ]:
        with pytest.raises(ValueError, match=told):
            make()
