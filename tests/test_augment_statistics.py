"""Over many rows, what an augmentation draws has the distribution that its definition says.

Keys are fixed, so a test passes or fails for good; a correct augmentation would fail for about one key in a million
(`FALSE_ALARM`), for each comparison.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from jaxvision import augment as au
from jaxvision.augment import policy
from jaxvision.data.samples import photos_dir
from jaxvision.types import Batch, Labels

FALSE_ALARM = 1e-6
pytestmark = pytest.mark.slow
CLASSES = 3


def make_batch(image, size=None):
    n, h, w = image.shape[:3]
    size = np.tile(np.int32([h, w]), (n, 1)) if size is None else size.astype(np.int32)
    index = np.arange(n, dtype=np.int32)
    batch = Batch(image, size, size, index, index >= 0, Labels(index % CLASSES))
    return jax.tree.map(jnp.asarray, batch)


def apply(augment, image, size=None):
    with jax.numpy_dtype_promotion("strict"):
        return jax.jit(augment)(jax.random.key(0), jnp.int32(0), make_batch(image, size))


def assert_share(count, n, probability):
    """A count of n independent draws with this probability."""
    assert stats.binomtest(int(count), n, probability).pvalue > FALSE_ALARM


def assert_mean(values, mean, deviation):
    assert abs(np.mean(values) - mean) < stats.norm.isf(FALSE_ALARM / 2) * deviation / np.sqrt(len(values))


def assert_drawn_from(values, distribution):
    assert stats.kstest(values, distribution.cdf).pvalue > FALSE_ALARM


def even(low, high):
    return stats.uniform(low, high - low)


def test_the_parameters_of_an_affine_are_even():
    """All six of them, of every image, from its matrix about the centre of its content: rotation times triangular (QR)."""
    n, levels = 800, 10.0
    sizes = np.tile([(16, 18), (13, 18), (16, 14), (14, 15)], (n // 4, 1))
    y, x = np.mgrid[:16, :18] + 0.5
    image = np.tile(np.dstack([x, y]) * levels, (n, 1, 1, 1)).astype(np.float32)
    augment = au.affine(rotation=40, shift=0.15, shear=0.2, zoom=0.3, fill="nearest")
    found = np.asarray(apply(augment, image, size=sizes).image, np.float64) / levels
    drawn = []
    for (u, v), (h, w) in zip(np.moveaxis(found, -1, 1), sizes, strict=True):
        inner = (np.minimum(u, v) > 0.6) & (u < w - 0.6) & (v < h - 0.6)  # elsewhere the border is repeated
        inner[h:], inner[:, w:] = False, False
        rows = np.stack([x, y, np.ones_like(x)], -1)[inner]
        matrix = np.vstack([np.linalg.lstsq(rows, np.stack([u, v], -1)[inner], rcond=None)[0].T, [0, 0, 1]])
        motion = np.linalg.inv(matrix)
        turn, triangle = np.linalg.qr(motion[:2, :2])
        turn, triangle = turn * np.sign(np.diag(triangle)), triangle * np.sign(np.diag(triangle))[:, None]
        moved = motion[:2] @ [w / 2, h / 2, 1] / [w, h] - 0.5
        angle = np.degrees(np.arctan2(turn[0, 1], turn[0, 0]))
        drawn.append([angle, triangle[0, 1] / triangle[1, 1], *np.diag(triangle), *moved])
    limits = [40, 0.2, 0.3, 0.3, 0.15, 0.15]
    for values, middle, reach in zip(np.transpose(drawn), [0, 0, 1, 1, 0, 0], limits, strict=True):
        assert 0.98 * reach < np.abs(values - middle).max() < 1.02 * reach
        assert_drawn_from(values, even(middle - reach, middle + reach))
    correlation = np.corrcoef(np.transpose(drawn)) - np.eye(6)
    assert np.abs(correlation).max() < stats.norm.isf(FALSE_ALARM / 2) / np.sqrt(n)


def test_flips_and_erasing_are_as_probable_as_asked():
    """All three at once: each corner tells which of them were."""
    n = 3000
    image = np.tile(np.arange(1, 26, dtype=np.float32).reshape(5, 5, 1), (n, 1, 1, 1))
    augment = au.chain(au.flip(0.3), au.vertical_flip(0.8), au.random_erasing(0.25, (0.04, 0.04), (1.0, 1.0), fill=0))
    found = np.asarray(apply(augment, image).image)[..., 0]
    erased = (found == 0).sum((1, 2))
    assert set(erased) == {0, 1}
    flipped, upside_down = found[:, :, 0].max(1) % 5 == 0, found[:, 0].max(1) > 20
    for marks, probability in ((flipped, 0.3), (upside_down, 0.8), (erased == 1, 0.25), (flipped & upside_down, 0.24)):
        assert_share(marks.sum(), n, probability)


def test_the_area_and_the_shape_of_what_is_erased():
    n, side = 1500, 60
    area, ratio = (0.1, 0.3), (0.5, 2.0)
    hole = np.asarray(apply(au.random_erasing(1.0, area, ratio, fill=0), np.full((n, side, side, 1), 9.0)).image) == 0
    height, width = hole.any(2).sum(1)[:, 0], hole.any(1).sum(1)[:, 0]
    np.testing.assert_array_equal(hole.sum((1, 2, 3)), height * width)
    assert_mean(height * width / side**2, 0.2, 0.2 / np.sqrt(12))
    assert_mean(np.log(width / height), 0, np.log(4) / np.sqrt(12))
    top, left = hole.any(2).argmax(1)[:, 0], hole.any(1).argmax(1)[:, 0]
    for place, extent in ((top, height), (left, width)):  # as many places as fit, all as probable
        random = np.random.default_rng(0).random(n)
        assert_drawn_from((place + random) / (side - extent + 1), even(0, 1))


def test_the_noise_that_fills_what_is_erased_is_even():
    n = 40
    found = np.asarray(apply(au.random_erasing(1.0, (1.0, 1.0), (1.0, 1.0)), np.zeros((n, 24, 24, 3), np.uint8)).image)
    assert found.dtype == np.uint8
    counts = np.bincount(found.ravel(), minlength=256)
    assert stats.chisquare(counts).pvalue > FALSE_ALARM
    pairs = [(found[..., a], found[..., b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    pairs += [(found[:, 1:], found[:, :-1]), (found[:, :, 1:], found[:, :, :-1]), (found[1:], found[:-1])]
    for one, other in pairs:
        correlation = np.corrcoef(one.ravel().astype(float), other.ravel().astype(float))[0, 1]
        assert abs(correlation) < stats.norm.isf(FALSE_ALARM / 2) / np.sqrt(one.size)


@pytest.mark.parametrize("alpha", [0.2, pytest.param(1.0, marks=pytest.mark.slow)])
def test_the_share_of_mixup_is_beta(alpha):
    n = 2000
    level = np.where(np.arange(n) % 2, 255.0, 0.0).astype(np.float32)
    mean = np.asarray(apply(au.mixup(alpha, CLASSES), np.tile(level[:, None, None, None], (1, 2, 2, 1))).image)[
        :, 0, 0, 0
    ]
    share = np.where(np.arange(n) % 2, mean, 255 - mean) / 255
    beta = stats.beta(alpha, alpha)
    assert_mean(share, 0.5, beta.std())
    assert_mean((share - 0.5) ** 2, beta.var(), np.sqrt(beta.moment(4) - 2 * beta.moment(3) + 1.5 * beta.moment(2)
                - 0.5 * beta.moment(1) + 1 / 16 - beta.var() ** 2))  # fmt: skip
    inner = share[(share > 1e-3) & (share < 1 - 1e-3)]  # float32 has no shares closer to 1
    low, high = beta.cdf([1e-3, 1 - 1e-3])
    assert stats.kstest((beta.cdf(inner) - low) / (high - low), "uniform").pvalue > FALSE_ALARM


def test_the_area_of_cutmix_is_that_of_its_definition():
    """Against a loop over section 3.1 of arXiv:1905.04899, in whole pixels, of as many draws."""
    n, h, w = 1500, 20, 26
    level = np.where(np.arange(n) % 2, 255.0, 1.0).astype(np.float32)
    result = apply(au.cutmix(1.0, CLASSES), np.tile(level[:, None, None, None], (1, h, w, 1)))
    area = np.mean(np.asarray(result.image)[..., 0] != level[:, None, None], axis=(1, 2))
    random = np.random.default_rng(0)
    side, centre = np.sqrt(1 - random.beta(1, 1, n))[:, None], random.random((n, 2))
    low = np.round((centre - side / 2) * [h, w])
    low, high = np.clip([low, low + np.round(side * [h, w])], 0, [[[h, w]], [[h, w]]])
    assert stats.ks_2samp(area, (high - low).prod(1) / (h * w)).pvalue > FALSE_ALARM
    assert 0.2 < area.mean() < 0.4
    own = np.asarray(result.target.probs)[np.arange(n), np.arange(n) % CLASSES]
    np.testing.assert_allclose(own, 1 - area, atol=1e-5)


SIDE = 20


def photo():
    image = Image.open(photos_dir() / "chelsea.jpg").convert("RGB").resize((SIDE, SIDE))
    return np.asarray(image) // 2 + 60


def by_pil(kind, strength):
    """The result of an operation of TrivialAugment by PIL; what comes in from outside is black."""
    image, space = Image.fromarray(photo().astype(np.uint8)), policy.WIDE
    size, factor = abs(strength), 1 + strength * space.factor
    lean, turn = strength * space.shear, np.radians(strength * space.rotation)
    linear = {
        "rotation": [np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)],
        "shear_x": [1, -lean, 0, 1],
        "shear_y": [1, 0, -lean, 1],
    }.get(kind, [1, 0, 0, 1])
    match kind:
        case "rotation" | "shear_x" | "shear_y" | "shift_x" | "shift_y":
            reach = np.array([kind == "shift_x", kind == "shift_y"]) * strength * space.shift
            a, b, d, e = linear
            c, f = np.array([10, 10]) - np.reshape(linear, (2, 2)) @ [10, 10] - reach
            return image.transform(image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)
        case "autocontrast" | "equalize":
            return getattr(ImageOps, kind)(image)
        case "posterize":
            return ImageOps.posterize(image, 8 - round(size * 6))
        case "solarize":
            return ImageOps.solarize(image, int(np.ceil(256 * (1 - size))))
        case "brightness" | "saturation" | "contrast" | "sharpness":
            name = {"saturation": "Color"}.get(kind, kind.capitalize())
            return getattr(ImageEnhance, name)(image).enhance(factor)
    return image


def test_trivialaugment_draws_operations_and_strengths_evenly():
    n, least = 1200, 10
    kinds, steps = [], []
    for kind in policy.OPERATIONS:
        for step in range(policy.STEPS + 1):
            for sign in (-1, 1):
                kinds.append(kind)
                steps.append(sign * step)
    outcomes = np.stack([np.asarray(by_pil(k, s / policy.STEPS), float) for k, s in zip(kinds, steps, strict=True)])
    results = np.asarray(apply(au.trivialaugment(), np.tile(photo().astype(np.uint8), (n, 1, 1, 1))).image, float)
    flat, other = results.reshape(n, -1), outcomes.reshape(len(kinds), -1)
    apart = (flat**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * flat @ other.T
    nearest = apart.argmin(1)
    kind, step = np.array(kinds)[nearest], np.array(steps)[nearest]
    told = np.abs(step) >= least  # weaker ones may be taken for one another
    with_sign = ("rotation", "shear_x", "shear_y", "brightness", "saturation", "contrast", "sharpness")
    share = (policy.STEPS + 1 - least) / (policy.STEPS + 1) / len(policy.OPERATIONS)
    for name in with_sign:
        mine = step[told & (kind == name)]
        assert_share(len(mine), n, share)
        assert_share((mine > 0).sum(), len(mine), 0.5)
    strengths = np.abs(step[told & np.isin(kind, with_sign)])
    every = np.arange(least, policy.STEPS + 1)
    assert_mean(strengths, every.mean(), every.std())
    for name in ("autocontrast", "equalize"):
        assert_share((kind == name).sum(), n, 1 / len(policy.OPERATIONS))
    assert_share((results.max((1, 2, 3)) == 0).sum(), n, 2 * np.mean(np.arange(31) * 32 / 30 > SIDE) / 14)


def test_sometimes_and_choose_are_as_probable_as_they_say():
    n = 3000
    image = np.zeros((n, 1, 1, 1), np.uint8)
    to = [au.solarize(0), lambda key, step, batch: batch.replace(image=batch.image + jnp.uint8(9))]
    levels = np.asarray(apply(au.sometimes(0.2, au.choose(*to)), image).image).ravel()
    assert_share((levels == 0).sum(), n, 0.8)
    assert_share((levels == 9).sum(), n, 0.1)


def test_the_operations_of_randaugment_are_drawn_apart():
    """At magnitude 0 two of the fourteen change an image, autocontrast and equalize: of two draws neither may."""
    n, image = 1400, photo().astype(np.uint8)
    found = np.asarray(apply(au.randaugment(2, 0), np.tile(image, (n, 1, 1, 1))).image, float)
    unchanged = np.abs(found - image).mean((1, 2, 3)) < 1
    assert_share(unchanged.sum(), n, (12 / 14) ** 2)
