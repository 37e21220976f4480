"""timm's RandAugment, `rand-m9-mstd0.5-inc1`, by PIL and from timm's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from jaxvision.augment import randaugment_timm
from jaxvision.data.samples import photos_dir
from jaxvision.types import Batch

SIDE = 20


def photo():
    return Image.open(photos_dir() / "chelsea.jpg").convert("RGB").resize((SIDE, SIDE))


def apply(augment, images):
    n, side = images.shape[:2]
    size, index = jnp.full((n, 2), side, jnp.int32), jnp.arange(n, dtype=jnp.int32)
    with jax.numpy_dtype_promotion("strict"):
        batch = Batch(jnp.asarray(images), size, size, index, index >= 0)
        return np.asarray(jax.jit(augment)(jax.random.key(0), jnp.int32(0), batch).image)


def moved(a, b, d, e, right=0.0, down=0.0):
    """By PIL: the pixel at p is taken from [[a, b], [d, e]] (p - centre) + centre - (right, down)."""
    c, f = (SIDE / 2 * (1 - sum(row)) - shift for row, shift in (((a, b), right), ((d, e), down)))
    data, bilinear = (a, b, c, d, e, f), Image.Resampling.BILINEAR
    return photo().transform((SIDE, SIDE), Image.Transform.AFFINE, data, bilinear, fillcolor=(116, 116, 116))


def outcomes(sign):
    """The fifteen results of one operation of magnitude 9; numbers are timm's, level by level."""
    image, angle, lean, reach = photo(), np.radians(sign * 27), sign * 0.27, sign * 0.9 * 0.45 * SIDE
    added = [min(level + 99, 255) if level < 128 else level for level in range(256)]
    enhancers = (ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Brightness, ImageEnhance.Sharpness)
    return [
        moved(np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)),
        moved(1, -lean, 0, 1),
        moved(1, 0, -lean, 1),
        moved(1, 0, 0, 1, right=reach),
        moved(1, 0, 0, 1, down=reach),
        ImageOps.autocontrast(image),
        ImageOps.equalize(image),
        ImageOps.invert(image),
        ImageOps.posterize(image, 1),
        ImageOps.solarize(image, 26),
        image.point(added * 3),
        *(enhancer(image).enhance(1 + sign * 0.81) for enhancer in enhancers),
    ]


def test_each_of_fifteen_operations_is_as_probable_and_as_strong_as_timm_has_it():
    n = 900
    images = np.tile(np.asarray(photo()), (n, 1, 1, 1))
    found = apply(randaugment_timm(1, 9, deviation=0.0, probability=1.0), images).reshape(n, -1).astype(float)
    possible = np.stack([np.asarray(each, float).ravel() for sign in (-1, 1) for each in outcomes(sign)])
    apart = np.stack([np.abs(found - each).mean(1) for each in possible], 1)
    kinds, nearest = apart.argmin(1) % 15, apart.min(1)
    assert np.all(nearest[kinds >= 5] < 1)  # a grey level
    assert np.all(nearest[kinds < 5] < 8)  # and the border, where PIL does not mix what comes in from outside
    counts = np.bincount(kinds, minlength=15)
    assert stats.chisquare(counts).pvalue > 1e-4
    signs = apart.argmin(1)[np.isin(kinds, [0, 1, 2, 3, 4, 11, 12, 13, 14])] // 15
    assert stats.binomtest(int(signs.sum()), len(signs)).pvalue > 1e-4


def test_strengths_are_normal_and_half_of_the_operations_are_left_out():
    n, level = 6000, 50.0
    images = np.full((n, 2, 2, 1), level, np.float32)
    found = apply(randaugment_timm(1, 9, fill=level), images)[:, 0, 0, 0] / level
    bright = (found > 1.6) & (found < 2) | (found > 0.05) & (found < 0.4)  # brightness alone brings a flat image there
    strength = np.abs(found[bright] - 1) / 0.9
    assert stats.binomtest(int(bright.sum()), n, 1 / 30).pvalue > 1e-4
    below = strength[strength < 0.9999]  # what is above 10 is cut to it: 2.3 %
    assert stats.kstest(below, stats.truncnorm(-18, 2, 0.9, 0.05).cdf).pvalue > 1e-4
