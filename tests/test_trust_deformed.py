"""Occlusions and deformations: how much they hide, how far they move, and that targets move along."""

import math

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import interpolate, ndimage

from jaxvision.data import placement, streams, target
from jaxvision.data.source import Annotations, Example, Source
from jaxvision.errors import DataError
from jaxvision.trust import deformed
from jaxvision.trust.corrupted import corrupted
from jaxvision.trust.corruption_occlusion import FRACTIONS
from jaxvision.trust.corruptions import DEFORMATIONS, PLAIN_OCCLUSIONS, choose, corrupt, generator
from jaxvision.types import CutMasks, SegmentationMap

SIDE = 60


def smooth(seed):
    """An image whose neighbouring pixels differ little."""
    noise = np.random.default_rng(seed).normal(size=(SIDE, SIDE, 3))
    noise = ndimage.gaussian_filter(noise, (4, 4, 0))
    return np.uint8(np.clip(128 + 60 * noise / noise.std(), 0, 255))


IMAGES = [smooth(seed) for seed in range(6)]
BOX = np.asarray([[20, 25, 40, 35]], np.float32)


def boxes_stream(batch_size):
    annotations = Annotations(BOX, np.zeros(1, np.int32), np.zeros(1, bool), np.full(1, 200, np.float32))
    read = lambda indices: [Example(IMAGES[i], objects=annotations) for i in indices]
    source = Source(len(IMAGES), read, lambda: np.zeros(len(IMAGES), np.int64), ("box",), str, "made")
    place = placement.letterbox(SIDE)
    return streams.evaluation(lambda: source, placer=place, batch_size=batch_size, target=target.objects(3))


def shown(name, severity, batch_size=3, seed=0):
    """Images and boxes of all examples."""
    batches = list(corrupted(boxes_stream(batch_size), name, severity, seed).batches(0))
    valid = np.concatenate([batch.valid for batch in batches])
    images = np.concatenate([batch.image for batch in batches])[valid]
    return images, np.concatenate([batch.target.boxes for batch in batches])[valid, 0]


@pytest.mark.parametrize("name", PLAIN_OCCLUSIONS)
@pytest.mark.parametrize("size", [(100, 100, 3), (50, 170, 1), (240, 60, 3)])
def test_an_occlusion_hides_its_fraction_and_nothing_else(name, size):
    image = np.random.default_rng(0).integers(128, 256, size, np.uint8)
    for severity, fraction in enumerate(FRACTIONS, 1):
        for seed in range(3):
            found = corrupt(image, choose(name, severity), np.random.default_rng(seed))
            hidden = (found != image).any(-1)
            assert (found[hidden] == 127).all()
            assert abs(hidden.mean() - fraction) < 4 / min(size[:2])


@pytest.mark.parametrize(
    "name", ["rotation", *(pytest.param(each, marks=pytest.mark.slow) for each in DEFORMATIONS[1:])]
)
def test_a_deformation_depends_on_seed_and_index_alone(name):
    images, boxes = shown(name, 3, batch_size=3)
    others, other_boxes = shown(name, 3, batch_size=4)
    assert np.abs(images.astype(int) - others).max() <= 1
    np.testing.assert_allclose(boxes, other_boxes, atol=1e-3)
    assert (shown(name, 3, seed=1)[0] != images).any()


def middle(image):
    return np.asarray(image, int)[18:-18, 18:-18]


@pytest.mark.parametrize("severity", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_rotation_is_that_of_pillow_one_way_or_the_other(severity):
    angle, ways = deformed.AMOUNTS["rotation"][severity - 1], set()
    for image, found in zip(IMAGES, shown("rotation", severity)[0], strict=True):
        turned = [
            np.asarray(Image.fromarray(image).rotate(sign * angle, Image.Resampling.BILINEAR)) for sign in (1, -1)
        ]
        differences = [np.abs(middle(found) - middle(each)).max() for each in turned]
        ways.add(int(np.argmin(differences)))
        assert min(differences) <= 2 < max(differences)
    assert ways == {0, 1}


@pytest.mark.parametrize("severity", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_boxes_are_scaled_about_the_centre(severity):
    factor, centre = deformed.AMOUNTS["scale"][severity - 1], SIDE / 2
    wanted = [np.clip(centre + (BOX[0] - centre) * each, 0, SIDE) for each in (factor, 1 / factor)]
    ways = {min((0, 1), key=lambda way: np.abs(box - wanted[way]).max()) for box in shown("scale", severity)[1]}
    assert ways == {0, 1}
    for box in shown("scale", severity)[1]:
        assert min(np.abs(box - each).max() for each in wanted) < 1e-3


def test_boxes_lean_with_a_shear():
    lean = deformed.AMOUNTS["shear"][4]
    for box in shown("shear", 5)[1]:
        assert math.isclose(box[2] - box[0], 20 + 10 * lean, abs_tol=1e-3)
        np.testing.assert_allclose(box[[1, 3]], BOX[0, [1, 3]], atol=1e-3)


def test_boxes_in_perspective_are_those_of_opencv():
    before = np.float32([[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE]])
    inwards = np.sign(SIDE / 2 - before) * deformed.AMOUNTS["perspective"][4] / 2 * SIDE
    x0, y0, x1, y1 = BOX[0]
    for index, box in enumerate(shown("perspective", 5, seed=7)[1]):
        chance = np.abs(generator(7, index, "perspective", 5).uniform(-1, 1, (4, 2)))
        matrix = cv2.getPerspectiveTransform(before, np.float32(before + inwards * chance))
        moved = cv2.perspectiveTransform(np.float32([[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]]), matrix)[0]
        np.testing.assert_allclose(box, [*moved.min(0), *moved.max(0)], atol=1e-2)


@pytest.mark.parametrize("name", ["rotation", "elastic"])
def test_masks_that_were_cut_out_do_not_turn(name):
    stream = boxes_stream(2)
    (batch, *_) = stream.batches(0)
    cut = CutMasks(np.zeros((2, 3, 8, 1), np.uint8), np.zeros((2, 3, 4), np.float32))
    masked = batch.replace(target=batch.target.replace(masks=cut))
    with pytest.raises(DataError, match=name):
        list(corrupted(stream._replace(batches=lambda step, shard: iter([masked])), name, 1).batches(0))


def bend(index, severity, y, x):
    """Where points are taken from by a bend of the square content, by SciPy's splines: row and column from its border."""
    knots = generator(0, index, "elastic", severity).uniform(-1, 1, (6, 6, 2))
    spline = lambda k: interpolate.BSpline(np.arange(-3, 7), np.eye(6)[k], 3)
    weights = [np.stack([spline(k)(np.clip(at / SIDE, 0, 1 - 1e-9) * 3) for k in range(6)], -1) for at in (y, x)]
    moves = np.einsum("...r,...c,rck->k...", *weights, knots) * deformed.AMOUNTS["elastic"][severity - 1] * SIDE
    return y + moves[0], x + moves[1]


@pytest.fixture(scope="module")
def bent():
    """Six images bent at severity 5: as they were, and the batches, with a mask of the box, and a map of the mask."""
    masks = np.zeros((1, 3, SIDE, SIDE), bool)
    masks[0, 0, 25:35, 20:40] = True
    stream = boxes_stream(6)
    (batch,) = stream.batches(0)
    everywhere = np.broadcast_to(masks, (6, 3, SIDE, SIDE))
    map_of = SegmentationMap(everywhere[:, 0].astype(np.int32), np.ones((6, SIDE, SIDE), bool))
    target = {"plain": batch.target, "masked": batch.target.replace(masks=everywhere), "map": map_of}
    masked = batch.replace(target=target)
    (found,) = corrupted(stream._replace(batches=lambda step, shard: iter([masked])), "elastic", 5).batches(0)
    return found


def test_a_bend_is_that_of_scipy(bent):
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    for index, image in enumerate(IMAGES):
        places = np.stack(bend(index, 5, y, x)) - 0.5
        wanted = [
            ndimage.map_coordinates(image[..., c].astype(float), places, order=1, mode="nearest") for c in range(3)
        ]
        assert np.abs(bent.image[index].astype(float) - np.stack(wanted, -1)).max() < 0.6
        assert 2 < np.abs(places - (np.stack([y, x]) - 0.5)).max() < 0.08 * SIDE


def test_masks_maps_and_boxes_bend_with_the_image(bent):
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    fine = np.mgrid[: SIDE * 8, : SIDE * 8] / 8 + 1 / 16
    for index in range(len(IMAGES)):
        from_y, from_x = bend(index, 5, y, x)
        wanted = (from_y >= 25) & (from_y < 35) & (from_x >= 20) & (from_x < 40)
        masked = bent.target["masked"]
        assert (masked.masks[index, 0] != wanted).mean() < 1e-3  # a pixel on the border, by rounding
        rows, columns = np.nonzero(masked.masks[index, 0])
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_array_equal(masked.boxes[index, 0], box)
        np.testing.assert_array_equal(bent.target["map"].label[index], masked.masks[index, 0])
        from_y, from_x = bend(index, 5, *fine)
        rows, columns = np.nonzero((from_y >= 25) & (from_y < 35) & (from_x >= 20) & (from_x < 40))
        box = np.asarray([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 8
        np.testing.assert_allclose(bent.target["plain"].boxes[index, 0], box, atol=0.2)
    outside = ~bent.target["map"].valid
    assert 0 < outside.mean() < 0.2
    assert not outside[:, 10:-10, 10:-10].any()
