"""Augmentations of the sample photographs, with what they drew at random, against PIL, SciPy and Matplotlib.

How an augmentation moved its pixels is read off two more channels, which hold the column and the row of each pixel.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import colors
from PIL import Image, ImageOps
from scipy import ndimage

from jaxvision import augment as au
from jaxvision.data.samples import photos_dir
from jaxvision.ops import colour, filters, resample
from jaxvision.types import Batch, Labels

CANVAS, SIZE = (56, 68), (48, 60)
FILLS = {"nearest": "nearest", "reflect": "reflect", "wrap": "grid-wrap", "constant": "grid-constant"}
WARPS = [*((fill, "bilinear") for fill in (*FILLS, 90)), ("reflect", "nearest"), ("constant", "nearest")]
SOURCE = np.array([[0.8913, -0.5227, 9.137], [0.4571, 1.0839, -14.263], [0, 0, 1]])
MOVES = {
    "affine": au.affine(rotation=40, shift=0.2, shear=0.2, zoom=0.2),
    "affine, black": au.affine(rotation=180, zoom=0.5, fill="constant"),
    "perspective": au.perspective(0.6, fill="constant"),
    "resized_crop": au.resized_crop((0.2, 0.8)),
}
COVERS = {
    "flip": au.flip(1.0),
    "vertical_flip": au.vertical_flip(1.0),
    "pad_and_crop": au.pad_and_crop(5, fill=7),
    "random_erasing": au.random_erasing(1.0, fill=1),
    "mixup": au.mixup(1.0, 5),
    "cutmix": au.cutmix(1.0, 5),
}


@functools.cache
def photos():
    """The photographs, and the column and the row of each pixel centre, from 0 to 255."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    resized = [Image.open(path).convert("RGB").resize(SIZE[::-1]) for path in sorted(photos_dir().glob("*.jpg"))]
    return [np.dstack([image, 255 * x / SIZE[1], 255 * y / SIZE[0]]).astype(np.float32) for image in resized]


def batch_of_photos():
    images = np.full((len(photos()), *CANVAS, 5), 77, np.float32)
    images[:, : SIZE[0], : SIZE[1]] = photos()
    size, index = np.tile(np.int32(SIZE), (len(images), 1)), np.arange(len(images), dtype=np.int32)
    return Batch(jnp.asarray(images), jnp.asarray(size), size, index, jnp.asarray(index >= 0), Labels(index))


@functools.cache
def changed():
    """What all augmentations make of the photographs, in one compilation."""

    def change(batch):
        key, step = jax.random.key(3), jnp.int32(0)
        return {name: each(key, step, batch).image for name, each in (MOVES | COVERS).items()}

    with jax.numpy_dtype_promotion("strict"):
        return contents(jax.jit(change)(batch_of_photos()))


@functools.cache
def operated():
    """What all operations make of the photographs, in one compilation."""

    def operate(images, size):
        rgb, source = images[..., :3], jnp.asarray(SOURCE, jnp.float32)
        results = {"hue": colour.hue(rgb, 0.2), "gamma": colour.gamma(rgb, 1.7)}
        results["blur"] = filters.gaussian_blur(rgb, size, 1.5)
        return results | {f"{fill} {way}": resample.warp(rgb, size, source, fill, way) for fill, way in WARPS}

    batch = batch_of_photos()
    with jax.numpy_dtype_promotion("strict"):
        return contents(jax.jit(jax.vmap(operate))(batch.image, batch.size))


def contents(results):
    for result in results.values():
        assert np.all(result[:, :, SIZE[1] :, 3:] == 77)
    return {name: np.asarray(result)[:, : SIZE[0], : SIZE[1]] for name, result in results.items()}


def each(name):
    """Photograph and result, of each."""
    made = changed() if name in MOVES | COVERS else operated()
    return zip(photos(), made[name], strict=True)


def taken_from(image, projective):
    """The matrix by which the augmentation found each pixel, from the two channels alone."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    u, v = image[..., 3].astype(np.float64) * SIZE[1] / 255, image[..., 4].astype(np.float64) * SIZE[0] / 255
    inner = (u > 1) & (v > 1) & (u < SIZE[1] - 1) & (v < SIZE[0] - 1)
    inner = ndimage.binary_erosion(inner, iterations=2)  # where the fill mixes in, the channels tell no place
    assert inner.sum() > 100
    x, y, u, v = (each[inner] for each in (x, y, u, v))
    one, zero = np.ones_like(x), np.zeros_like(x)
    bend = [[-u * x, -u * y], [-v * x, -v * y]] if projective else [[zero, zero]] * 2
    rows = np.concatenate([np.stack([x, y, one, zero, zero, zero, *bend[0]], -1),
                           np.stack([zero, zero, zero, x, y, one, *bend[1]], -1)])  # fmt: skip
    numbers = np.linalg.lstsq(rows, np.concatenate([u, v]), rcond=None)[0]
    matrix = np.append(numbers if projective else [*numbers[:6], 0, 0], 1).reshape(3, 3)
    assert np.abs(rows @ numbers - np.concatenate([u, v])).max() < 0.05
    return matrix


def by_scipy(image, source, fill, order):
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    to = np.einsum("ij,jhw->ihw", source, np.stack([x, y, np.ones_like(x)]))
    mode, value = (FILLS[fill], 0) if isinstance(fill, str) else ("grid-constant", fill)
    places = [to[1] / to[2] - 0.5, to[0] / to[2] - 0.5]
    planes = np.moveaxis(image.astype(np.float64), -1, 0)
    return np.stack([ndimage.map_coordinates(p, places, order=order, mode=mode, cval=value) for p in planes], -1)


@pytest.mark.parametrize(("fill", "way"), WARPS)
def test_every_fill_and_interpolation_equals_scipy(fill, way):
    for photo, found in each(f"{fill} {way}"):
        expected = by_scipy(photo[..., :3], SOURCE, fill, int(way == "bilinear"))
        off = np.abs(found - expected)
        assert np.mean(off > 0.05) < 1e-3  # float32 may round a place between two pixels to the other one
        assert np.median(off) < 1e-3


@pytest.mark.parametrize(
    ("name", "fill"),
    [("affine", "nearest"), ("affine, black", "constant"), ("perspective", "constant"), ("resized_crop", "nearest")],
)
def test_a_random_motion_equals_scipy(name, fill):
    matrices = []
    for photo, found in each(name):
        matrices.append(taken_from(found, projective=name == "perspective"))
        off = np.abs(found[..., :3] - by_scipy(photo[..., :3], matrices[-1], fill, 1))
        assert np.mean(off) < 0.1
        assert np.mean(off > 2) < 0.01  # at edges, by the last digits of the matrix
    assert np.ptp(matrices, axis=0).max() > 1


def test_a_random_perspective_equals_pil():
    for photo, found in each("perspective"):
        numbers = tuple(taken_from(found, projective=True).ravel()[:8])
        image = Image.fromarray(photo[..., :3].astype(np.uint8))
        warped = image.transform(SIZE[::-1], Image.Transform.PERSPECTIVE, numbers, Image.Resampling.BILINEAR)
        within = ndimage.binary_erosion(np.asarray(warped).sum(-1) > 0, iterations=2)
        assert within.sum() > 400
        assert np.abs(found[..., :3] - np.asarray(warped, float))[within].max() < 2


def test_flips_equal_pil():
    for name, by_pil in (("flip", ImageOps.mirror), ("vertical_flip", ImageOps.flip)):
        for photo, found in each(name):
            image = Image.fromarray(photo[..., :3].astype(np.uint8))
            np.testing.assert_array_equal(found[..., :3], np.asarray(by_pil(image)))


def test_pad_and_crop_equals_pil():
    offsets = set()
    for photo, found in each("pad_and_crop"):
        image = ImageOps.expand(Image.fromarray(photo[..., :3].astype(np.uint8)), 5, (7, 7, 7))
        windows = {(x, y): image.crop((x, y, x + SIZE[1], y + SIZE[0])) for x in range(11) for y in range(11)}
        offsets |= {place for place, window in windows.items() if np.array_equal(window, found[..., :3])}
    assert len(offsets) >= 3


def test_mixup_equals_a_blend_by_pil():
    for i, (photo, found) in enumerate(each("mixup")):
        other = photos()[i - 1]
        way = photo - other
        share = float(((found - other) * way).sum() / (way**2).sum())
        assert 0 <= share <= 1
        images = (Image.fromarray(values[..., :3].astype(np.uint8)) for values in (other, photo))
        assert np.abs(found[..., :3] - np.asarray(Image.blend(*images, share), float)).max() < 1.01


def test_cutmix_and_erasing_equal_a_paste_by_pil():
    for name in ("cutmix", "random_erasing"):
        for i, (photo, found) in enumerate(each(name)):
            image, result = (Image.fromarray(values[..., :3].astype(np.uint8)) for values in (photo, found))
            other = Image.fromarray(photos()[i - 1][..., :3].astype(np.uint8))
            rows, columns = (np.flatnonzero((photo != found).any(-1).any(axis)) for axis in (1, 0))
            box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
            image.paste(other.crop(box) if name == "cutmix" else (1, 1, 1), box)
            np.testing.assert_array_equal(np.asarray(result), np.asarray(image))


def test_hue_gamma_and_blur_equal_matplotlib_numpy_and_scipy():
    for photo, found in each("hue"):
        hsv = colors.rgb_to_hsv(photo[..., :3] / 255.0)
        turned = np.dstack([(hsv[..., 0] + 0.2) % 1, hsv[..., 1], hsv[..., 2]])
        np.testing.assert_allclose(found, 255 * colors.hsv_to_rgb(turned), atol=0.01)
    for photo, found in each("gamma"):
        np.testing.assert_allclose(found, 255 * (photo[..., :3].astype(np.float64) / 255) ** 1.7, atol=0.01)
    for photo, found in each("blur"):
        summed = lambda values: ndimage.gaussian_filter(values, (1.5, 1.5, 0), mode="constant", truncate=40)
        image = photo[..., :3].astype(np.float64)
        np.testing.assert_allclose(found, summed(image) / summed(np.ones_like(image)), atol=0.01)
