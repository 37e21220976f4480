"""timm's RandAugment, `rand-m9-mstd0.5-inc1`, and EfficientNet's AutoAugment, by PIL and from their numbers."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from jaxvision.augment import autoaugment, randaugment_timm
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


def moved(a, b, d, e, right=0.0, down=0.0, fill=116, image=None):
    """By PIL: the pixel at p is taken from [[a, b], [d, e]] (p - centre) + centre - (right, down)."""
    c, f = (SIDE / 2 * (1 - sum(row)) - shift for row, shift in (((a, b), right), ((d, e), down)))
    data, bilinear = (a, b, c, d, e, f), Image.Resampling.BILINEAR
    image = photo() if image is None else image
    return image.transform((SIDE, SIDE), Image.Transform.AFFINE, data, bilinear, fillcolor=(fill, fill, fill))


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


def by_pil(name, level, sign, image):
    """An operation of AutoAugment at this level, from the formulas of tensorflow/tpu, efficientnet/autoaugment.py."""
    angle, lean = np.radians(sign * 30 * level / 10), sign * 0.3 * level / 10
    added = [min(each + int(110 * level / 10), 255) if each < 128 else each for each in range(256)]
    match name:
        case "Rotate":
            return moved(np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle), fill=128, image=image)
        case "ShearX":
            return moved(1, -lean, 0, 1, fill=128, image=image)
        case "ShearY":
            return moved(1, 0, -lean, 1, fill=128, image=image)
        case "TranslateY":
            return moved(1, 0, 0, 1, down=sign * 250 * level / 10, fill=128, image=image)
        case "Posterize":
            return ImageOps.posterize(image, max(int(4 * level / 10), 1))  # TensorFlow shifts by seven bits at most
        case "Solarize":
            return ImageOps.solarize(image, int(256 * level / 10))
        case "SolarizeAdd":
            return image.point(added * 3)
        case "Color":
            return ImageEnhance.Color(image).enhance(1.8 * level / 10 + 0.1)
    return {"Equalize": ImageOps.equalize, "AutoContrast": ImageOps.autocontrast, "Invert": ImageOps.invert}[name](
        image
    )


PAIRS = """Equalize .8 1 ShearY .8 4, Color .4 9 Equalize .6 3, Color .4 1 Rotate .6 8, Solarize .8 3 Equalize .4 7,
Solarize .4 2 Solarize .6 2, Color .2 0 Equalize .8 8, Equalize .4 8 SolarizeAdd .8 3, ShearX .2 9 Rotate .6 8,
Color .6 1 Equalize 1 2, Invert .4 9 Rotate .6 0, Equalize 1 9 ShearY .6 3, Color .4 7 Equalize .6 0,
Posterize .4 6 AutoContrast .4 7, Solarize .6 8 Color .6 9, Solarize .2 4 Rotate .8 9, Rotate 1 7 TranslateY .8 9,
ShearX 0 0 Solarize .8 4, ShearY .8 0 Color .6 4, Color 1 0 Rotate .6 2, Equalize .8 4 Equalize 0 8,
Equalize 1 4 AutoContrast .6 2, ShearY .4 7 SolarizeAdd .6 7, Posterize .8 2 Solarize .6 10, Solarize .6 8 Equalize .6 1,
Color .8 6 Rotate .4 5"""


def every_result():
    """Each image that AutoAugment can make, by PIL, with its probability; both signs of each motion."""
    for pair in PAIRS.split(","):
        first, p, level, second, q, other = pair.split()
        for sign, one, another in np.ndindex(4, 2, 2):
            image, probability = photo(), 1 / 25 / 4
            probability *= (float(p) if one else 1 - float(p)) * (float(q) if another else 1 - float(q))
            image = by_pil(first, int(level), 1 - sign % 2 * 2, image) if one else image
            image = by_pil(second, int(other), 1 - sign // 2 * 2, image) if another else image
            if probability:
                yield np.asarray(image, float).ravel(), probability


def test_autoaugment_makes_the_images_that_pil_makes_as_often_as_their_probabilities_say():
    n = 1500
    found = apply(autoaugment(), np.tile(np.asarray(photo()), (n, 1, 1, 1))).reshape(n, -1).astype(float)
    results, weights = zip(*every_result(), strict=True)
    possible, which = np.unique(results, axis=0, return_inverse=True)
    probabilities = np.bincount(which.ravel(), weights)
    unlike, group = [], []  # results that PIL makes alike count together
    for image in possible:
        near = [k for k, other in enumerate(unlike) if np.abs(image - other).mean() < 3]
        group.append(near[0] if near else len(unlike))
        unlike += [] if near else [image]
    apart = np.stack([np.abs(found - image).mean(1) for image in possible], 1)
    assert np.quantile(apart.min(1), 0.999) < 6  # the border, and what equalize makes of it
    assert np.median(apart.min(1)) < 1
    counts = np.bincount(np.array(group)[apart.argmin(1)], minlength=len(unlike))
    expected = n * np.bincount(group, probabilities)
    often = expected >= 5
    rest = [counts[~often].sum()], [expected[~often].sum()]
    assert stats.chisquare([*counts[often], *rest[0]], [*expected[often], *rest[1]]).pvalue > 1e-4
