"""Masks in every form equal the augmented image of the mask, for every augmentation that moves objects.

Each channel of the image is one object's mask, 255 where it is on: so it shows where that mask has to be afterwards.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mask_cases import boxes_of, cut_out, shapes
from scipy import ndimage

from jaxvision import augment as au
from jaxvision.ops.masks import packed, unpacked
from jaxvision.types import Batch, Objects

CANVAS, ROWS, N = (44, 48), 4, 3
UPRIGHT = {
    "flip": au.flip(),
    "vertical_flip": au.vertical_flip(),
    "both flips": au.chain(au.flip(1.0), au.vertical_flip(1.0)),
    "shift and zoom": au.affine(shift=0.3, zoom=0.4, fill="constant"),
    "resized_crop": au.resized_crop((0.2, 0.9)),
    "iou_crop": au.iou_crop(),
    "expand": au.expand(2.5, fill=0),
    "scale_jitter": au.scale_jitter((0.4, 1.8)),
    "mosaic": au.mosaic(fill=0),
    "mosaic of all scales": au.chain(au.scale_jitter((0.5, 1.5)), au.mosaic(fill=0)),
    "mixup_objects": au.mixup_objects(math.inf),
    "sometimes, one of": au.sometimes(0.5, au.choose(au.flip(1.0), au.resized_crop((0.3, 0.9)))),
}
BENT = {
    "affine": au.affine(rotation=40, shift=0.2, shear=0.3, zoom=0.3, fill="constant"),
    "perspective": au.perspective(0.5, fill="constant"),
}
REFUSED = {
    **BENT,
    "sheared rows": au.affine(shear=(0.0, 0.1)),
    "turned": au.affine(rotation=3),
    "randaugment": au.randaugment(),
    "trivialaugment": au.trivialaugment(),
}


@functools.cache
def scene():
    """Whole masks on a larger plane, some of them beyond the content; contents smaller than the canvas; the images."""
    whole = np.zeros((ROWS, N, 100, 100), bool)
    whole[..., 25:75, 25:75] = shapes(ROWS * N, 50, seed=2, least=14).reshape(ROWS, N, 50, 50)
    size = np.int32([CANVAS, (40, 42), (38, 48), (44, 38)])
    masks, image = np.zeros((ROWS, N, *CANVAS), bool), np.zeros((ROWS, *CANVAS, ROWS * N), np.uint8)
    for row, number in np.ndindex(ROWS, N):
        height, width = size[row]
        masks[row, number, :height, :width] = whole[row, number, CORNER : CORNER + height, CORNER : CORNER + width]
        image[row, ..., N * row + number] = 255 * masks[row, number]
    return whole, masks, image, size


CORNER = 40
"""Where the canvas begins on the larger plane."""


def cut_of(masks):
    """Masks of the larger plane cut out at their boxes, whatever the canvas shows of them."""
    cut = cut_out(masks, boxes_of(masks))
    return cut.replace(frames=cut.frames - CORNER)


def batch_of(form):
    """The last image has one valid object alone, and every object that no pixel of is seen is none."""
    whole, masks, image, size = scene()
    label = np.arange(ROWS * N, dtype=np.int32).reshape(ROWS, N)
    boxes, valid = np.stack([boxes_of(each) for each in masks]), masks.any((2, 3))
    valid[-1, 1:] = False
    match form:
        case "bits":
            masks = packed(jnp.asarray(masks))
        case "cut":
            masks = jax.tree.map(lambda *rows: np.stack(rows), *map(cut_of, whole))
    target = Objects(boxes, label, valid, np.zeros((ROWS, N), bool), masks=masks)
    index = np.arange(ROWS, dtype=np.int32)
    return jax.tree.map(jnp.asarray, Batch(image, size, size, index, index >= 0, target))


@functools.cache
def augmented(name, form, seed):
    with jax.numpy_dtype_promotion("strict"):
        return jax.device_get(jitted(name)(jax.random.key(seed), batch_of(form)))


@functools.cache
def jitted(name):
    return jax.jit(lambda key, batch: (UPRIGHT | BENT)[name](key, jnp.int32(0), batch))


def rows(batch):
    """Each valid object: its row and number, and the channel of the image that shows its mask, where that is content."""
    for row, number in np.argwhere(batch.target.valid):
        height, width = batch.size[row]
        channel = np.zeros(CANVAS)
        channel[:height, :width] = batch.image[row, :height, :width, batch.target.labels[row, number]]
        yield row, number, channel


def whole(name):
    """The level of a mask that is shown alone; half of it where two images are mixed."""
    return 127 if name == "mixup_objects" else 255


SEEDS = (0, 1)
everything = pytest.mark.parametrize(
    "name",
    [
        name if name in ("flip", "resized_crop", "mosaic", "affine") else pytest.param(name, marks=pytest.mark.slow)
        for name in UPRIGHT | BENT
    ],
)


@everything
def test_masks_equal_the_augmented_image_of_the_mask(name):
    sure, seen = 0, 0
    for seed in SEEDS:
        batch = augmented(name, "canvas", seed)
        for row, number, channel in rows(batch):
            mask, shown = batch.target.masks[row, number], batch.size[row]
            on, off = channel >= whole(name) - 1, channel <= 1
            inside = np.zeros(CANVAS, bool)
            inside[: shown[0], : shown[1]] = True
            assert mask[on & inside].all()
            assert not mask[off & inside].any()
            np.testing.assert_array_equal(batch.target.boxes[row, number], boxes_of((mask & inside)[None])[0])
            sure, seen = sure + (on & inside).sum(), seen + (mask & inside).sum()
    assert sure > 0.6 * seen > 100


@everything
def test_masks_as_bits_move_as_those_of_the_canvas(name):
    plain, bits = (augmented(name, form, SEEDS[0]) for form in ("canvas", "bits"))
    np.testing.assert_array_equal(bits.target.masks.bits, np.packbits(plain.target.masks, -1))
    assert bits.target.masks.width == CANVAS[1]
    for ours, theirs in zip(
        *(jax.tree.leaves(each.replace(target=each.target.replace(masks=None))) for each in (bits, plain)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("flip", "resized_crop", "mosaic") else pytest.param(name, marks=pytest.mark.slow)
        for name in UPRIGHT
    ],
)
def test_masks_that_were_cut_out_move_with_their_image(name):
    """But for pixels at the edge of the mask, which half a cell may decide; what was outside the content stays hidden."""
    for seed in SEEDS:
        plain, cut = (augmented(name, form, seed) for form in ("canvas", "cut"))
        found = jax.vmap(lambda masks: unpacked(masks, CANVAS))(jax.tree.map(jnp.asarray, cut.target.masks))
        np.testing.assert_array_equal(cut.image, plain.image)
        count = 0
        for row, number, channel in rows(cut):
            mask, (height, width) = np.asarray(found[row, number]), cut.size[row]
            on, off = channel >= whole(name) - 1, channel <= 1
            sure_on, sure_off = (ndimage.binary_erosion(each, np.ones((3, 3)), border_value=0) for each in (on, off))
            inside = np.zeros(CANVAS, bool)
            inside[: int(height), : int(width)] = True
            assert mask[sure_on & inside].all()
            assert not mask[sure_off & inside].any()
            box, outer, inner = cut.target.boxes[row, number], *boxes_of(np.stack([~off, on]))
            assert (outer[:2] - 1 <= box[:2]).all()
            assert (box[2:] <= outer[2:] + 1).all()
            if on.any():
                assert (box[:2] <= inner[:2] + 1).all()
                assert (inner[2:] - 1 <= box[2:]).all()
            count += 1
        assert abs(count - plain.target.valid.sum()) <= 1
        assert count > 3


@pytest.mark.parametrize("name", REFUSED)
def test_what_turns_or_bends_refuses_masks_that_were_cut_out(name):
    augment = REFUSED[name]
    images = batch_of("cut").replace(image=jnp.zeros((ROWS, *CANVAS, 3), jnp.uint8))
    with pytest.raises(ValueError, match=r"batch\.target\.masks are cut out at their boxes; allowed: .*canvas.*bits"):
        jax.eval_shape(lambda batch: augment(jax.random.key(0), jnp.int32(0), batch), images)
    given = images.replace(target=None, given={"proposals": images.target})
    with pytest.raises(ValueError, match=r"batch\.given\['proposals'\]\.masks are cut out"):
        jax.eval_shape(lambda batch: augment(jax.random.key(0), jnp.int32(0), batch), given)


@pytest.mark.parametrize("form", ["bits", "cut"])
def test_masks_of_another_size_are_refused(form):
    batch = batch_of(form)
    masks = batch.target.masks
    wrong = masks.replace(width=40) if form == "bits" else masks.replace(bits=masks.bits[..., :-1])
    expected = r"masks on the canvas of the image, \(44, 48\)" if form == "bits" else "as many cells along x as along y"
    with pytest.raises(ValueError, match=expected):
        au.flip()(jax.random.key(0), jnp.int32(0), batch.replace(target=batch.target.replace(masks=wrong)))
