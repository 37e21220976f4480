import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxvision.augment import augmix, policy, randaugment, randaugment_timm, trivialaugment
from jaxvision.data.samples import photos_dir
from jaxvision.types import Batch, Labels, Objects

pytestmark = pytest.mark.slow
SIDE = 20
CENTRE = SIDE / 2


def photo():
    image = Image.open(photos_dir() / "chelsea.jpg").convert("RGB").resize((SIDE, SIDE))
    return np.asarray(image) // 2 + 60  # no black: what comes in from outside can be told


def make_batch(n, target=None, dtype=jnp.uint8, around=0):
    side = SIDE + around
    image = np.full((n, side, side, 3), 9)
    image[:, :SIDE, :SIDE] = photo()
    size, index = jnp.full((n, 2), SIDE, jnp.int32), jnp.arange(n, dtype=jnp.int32)
    return Batch(jnp.asarray(image, dtype), size, size, index, index >= 0, target)


def apply(augment, batch, seed=0):
    with jax.numpy_dtype_promotion("strict"):
        return jax.jit(augment)(jax.random.key(seed), jnp.zeros((), jnp.int32), batch)


def moved(image, a, b, d, e, right=0, down=0):
    """By PIL: the pixel at p is taken from [[a, b], [d, e]] (p - centre) + centre - (right, down)."""
    c, f = (CENTRE - row[0] * CENTRE - row[1] * CENTRE - shift for row, shift in (((a, b), right), ((d, e), down)))
    return image.transform((SIDE, SIDE), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)


def outcomes(strength, space):
    """All 28 equally probable results of one operation, each by PIL."""
    image = Image.fromarray(photo().astype(np.uint8))
    bits = 8 - round(strength * 4)
    for sign in (-1, 1):
        s = sign * strength
        angle, lean, reach = np.radians(s * space.rotation), s * space.shear, s * space.shift
        reach = reach * SIDE if space.shift < 1 else reach
        yield image
        yield moved(image, np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle))
        yield moved(image, 1, -lean, 0, 1)
        yield moved(image, 1, 0, -lean, 1)
        yield moved(image, 1, 0, 0, 1, right=reach)
        yield moved(image, 1, 0, 0, 1, down=reach)
        yield ImageOps.autocontrast(image)
        yield ImageOps.equalize(image)
        yield ImageOps.posterize(image, bits)
        yield ImageOps.solarize(image, int(np.ceil(256 * (1 - strength))))
        for enhancer in (ImageEnhance.Brightness, ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Sharpness):
            yield enhancer(image).enhance(1 + s * space.factor)


def distances(results, strength, space):
    """Mean absolute difference of each result to each outcome; not on the outermost pixels, where PIL fills its own way."""
    possible = np.stack([np.asarray(o) for o in outcomes(strength, space)]).astype(float)
    return np.abs(np.asarray(results, float)[:, None] - possible[None]).mean((2, 3, 4))


def test_randaugment_gives_each_of_the_outcomes_of_pil_equally_often():
    n, strength = 1400, 15 / 30
    results = apply(randaugment(1, 15), make_batch(n)).image
    apart = distances(results, strength, policy.USUAL)
    kinds, nearest = apart.argmin(-1) % 14, apart.min(-1)
    moving = np.isin(kinds, range(1, 6))
    assert np.all(nearest[~moving] < 1)  # a grey level
    assert np.all(nearest[moving] < 16)  # and the border, which PIL leaves black
    counts = np.bincount(kinds, minlength=14)
    assert np.all(np.abs(counts - n / 14) < 5 * np.sqrt(n / 14))
    signs = np.bincount(apart.argmin(-1) // 14)[1]
    assert n / 14 * 3 < signs < n / 14 * 10  # of identity and the like the first is taken for both


def test_the_mean_of_randaugment_is_that_of_its_outcomes():
    n = 1400
    results = np.asarray(apply(randaugment(1, 15), make_batch(n)).image, float)
    middle = slice(6, -6)
    expected = np.stack([np.asarray(o) for o in outcomes(0.5, policy.USUAL)]).astype(float)[:, middle, middle]
    off = np.abs(results[:, middle, middle].mean(0) - expected.mean(0))
    assert np.all(off < 5 * expected.std(0) / np.sqrt(n) + 1)


@pytest.mark.slow
def test_number_and_magnitude():
    batch = make_batch(8)
    np.testing.assert_array_equal(apply(randaugment(0), batch).image, batch.image)
    apart = distances(apply(randaugment(1, 0), make_batch(200)).image, 0.0, policy.USUAL)
    unchanged = np.mean(apart.argmin(-1) % 14 == 0)
    assert np.all(apart.min(-1) < 1)
    assert unchanged == pytest.approx(12 / 14, abs=0.12)  # all but autocontrast and equalize are nothing at magnitude 0


def corner_objects(n):
    boxes = jnp.tile(jnp.float32([[[2, 3, 9, 8], [0, 0, 20, 20]]]), (n, 1, 1))
    yes = jnp.ones((n, 2), bool)
    return Objects(boxes, jnp.zeros((n, 2), jnp.int32), yes, ~yes)


@pytest.mark.parametrize("augment", [pytest.param(randaugment(2, 9), marks=pytest.mark.slow), trivialaugment()])
def test_boxes_move_with_the_content(augment):
    n = 100
    batch = make_batch(n, corner_objects(n), around=4)
    black = np.zeros((n, SIDE + 4, SIDE + 4, 3))
    black[:, 3:8, 2:9] = 200
    result = apply(augment, batch.replace(image=jnp.asarray(black, jnp.float32)))
    assert np.all(np.asarray(result.image)[:, SIDE:] == 0)
    boxes, valid = np.asarray(result.target.boxes), np.asarray(result.target.valid)
    still = np.all(boxes[:, 0] == [2, 3, 9, 8], axis=-1)
    assert 0.2 < still.mean() < 0.8
    assert np.all(boxes[valid] >= 0)
    assert np.all(boxes[valid] <= SIDE)
    for image, box, seen in zip(np.asarray(result.image), boxes[:, 0], valid[:, 0], strict=True):
        if seen and np.median(image) < 1 and image.max() > 150:  # levels not inverted, object not darkened
            rows, columns = np.nonzero(image[..., 0] > 120)
            assert box[0] <= columns.min() + 1
            assert box[1] <= rows.min() + 1
            assert box[2] >= columns.max()
            assert box[3] >= rows.max()


def test_augmix_mixes_the_image_with_what_its_operations_make():
    n = 40
    batch = make_batch(n, Labels(jnp.arange(n, dtype=jnp.int32)), jnp.float32, around=3)
    augment = augmix(fill="nearest")
    results = np.asarray(apply(augment, batch).image)
    content = results[:, :SIDE, :SIDE]
    assert np.all(results[:, SIDE:] == 9)
    off = content - photo()
    assert np.mean(np.abs(off).mean((1, 2, 3)) > 0.3) > 0.8
    # an image that none of the operations changes
    flat = batch.replace(image=jnp.full_like(batch.image, 96.0))
    middle = np.asarray(apply(augment, flat).image)[:, :SIDE, :SIDE]
    np.testing.assert_allclose(middle, 96, atol=1e-3)


@pytest.mark.slow
def test_the_share_of_augmix_is_even():
    """With one chain of one operation, how far the image goes towards its only changed self has the mean 1/2."""
    n = 400
    batch = make_batch(n, dtype=jnp.float32)
    content = np.asarray(apply(augmix(0.1, 1, 1), batch).image, float)
    ends = [
        np.asarray(f(Image.fromarray(photo().astype(np.uint8))), float)
        for f in (ImageOps.autocontrast, ImageOps.equalize)
    ]
    shares = []
    for image in content:
        for end in ends:
            way = end - photo()
            share = ((image - photo()) * way).sum() / (way**2).sum()
            if np.abs(image - photo() - share * way).mean() < 0.5 and share > 0.03:
                shares.append(share)
    assert abs(len(shares) - n * 2 / 9) < 5 * np.sqrt(n * 2 / 9)
    assert np.mean(shares) == pytest.approx(0.5, abs=5 * np.sqrt(1 / 12 / len(shares)))


@pytest.mark.slow
@pytest.mark.parametrize("augment", [randaugment(1), trivialaugment(), augmix(width=1, depth=1)])
def test_jit_changes_nothing_but_roundings(augment):
    batch = make_batch(4)
    plain = np.asarray(augment(jax.random.key(0), jnp.int32(0), batch).image).astype(int)
    assert np.mean(np.abs(plain - np.asarray(apply(augment, batch).image)) > 1) < 0.01


def test_what_cannot_be_is_refused():
    for make, told in [
        (lambda: randaugment(-1), "number=-1"),
        (lambda: randaugment(2, 31), "magnitude=31.*0 to 30"),
        (lambda: randaugment_timm(2, 11), "magnitude=11.*0 to 10"),
        (lambda: randaugment_timm(deviation=-1), "deviation=-1"),
        (lambda: trivialaugment("edge"), "fill='edge'"),  # pyright: ignore[reportArgumentType]
        (lambda: augmix(width=0), "width=0"),
        (lambda: augmix(severity=11), "severity=11"),
    ]:
        with pytest.raises(ValueError, match=told):
            make()
    with pytest.raises(TypeError, match="augmix cannot change batch.target: of type Objects"):
        apply(augmix(), make_batch(2, corner_objects(2)))
