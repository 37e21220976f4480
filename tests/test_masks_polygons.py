import numpy as np
import pytest
from pycocotools import mask as pycoco
from scipy import ndimage

from jaxvision.masks import polygons, runs

CASES = 2000


def pycocos(shapes, size):
    """The mask as COCO's API makes it of polygons."""
    return pycoco.decode(pycoco.merge(pycoco.frPyObjects([list(map(float, each)) for each in shapes], *size))) > 0


def random_polygons(rng):
    """A size, and polygons of it: many cross themselves, leave the image, have repeated points, or are below a pixel."""
    height, width = rng.integers(1, 60, 2).tolist()
    shapes = []
    for _ in range(rng.integers(1, 4)):
        points = int(rng.integers(3, 12))
        spread = rng.choice([0.3, 3.0, 30.0, 200.0])
        centre = rng.uniform([-20, -20], [width + 20, height + 20])
        corners = centre + rng.normal(size=(points, 2)) * spread
        if rng.random() < 0.3:
            corners = np.round(corners)
        if rng.random() < 0.1:
            corners[1] = corners[0]
        shapes.append(corners.reshape(-1).tolist())
    return (height, width), shapes


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools 2.0.11
def test_polygons_are_the_pixels_of_pycocotools():
    rng, on = np.random.default_rng(0), 0
    for _ in range(CASES):
        size, shapes = random_polygons(rng)
        found = polygons.of_polygons(shapes, size)
        expected = pycocos(shapes, size)
        assert found.size == size
        np.testing.assert_array_equal(runs.decode(found), expected)
        on += expected.any()
    assert on > CASES / 3


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_run_lengths_are_those_of_pycocotools():
    rng = np.random.default_rng(1)
    for number in range(CASES):
        size = tuple(rng.integers(1, 50, 2).tolist())
        mask = rng.random(size) < rng.choice([0.0, 0.02, 0.5, 0.98, 1.0])
        if number % 2:
            mask = ndimage.binary_opening(ndimage.uniform_filter(rng.random(size), 5) > 0.5)
        expected = pycoco.encode(np.asfortranarray(mask.astype(np.uint8)))
        found = runs.encode(mask)
        assert found.counts == expected["counts"]
        lengths = runs.numbers(found.counts)
        assert lengths.sum() == mask.size
        assert runs.of_counts(lengths, size) == found
        np.testing.assert_array_equal(runs.decode(found), mask)
        first, last = np.sort(rng.integers(0, size[1] + 1, 2)).tolist()
        np.testing.assert_array_equal(runs.columns(found, first, last), mask[:, first:last])


@pytest.mark.parametrize("counts", [b"\n", b"\xff", b"o", b"P" * 20 + b"0"])
def test_what_is_no_text_of_run_lengths_is_refused(counts):
    with pytest.raises(ValueError, match="no text of run lengths"):
        runs.numbers(counts)
    assert runs.numbers(b"").tolist() == []


def blobs(rng):
    """A mask without holes of several components, some of which touch at corners."""
    size = rng.integers(1, 40, 2)
    noise = ndimage.uniform_filter(rng.random(size), int(rng.integers(1, 6)))
    mask = noise > np.quantile(noise, rng.uniform(0.2, 0.95))
    return filled(mask)


def filled(mask):
    """The mask without the holes of components that touch along edges."""
    parts, count = ndimage.label(mask)
    for number in range(1, count + 1):
        mask = mask | ndimage.binary_fill_holes(parts == number, np.ones((3, 3)))
    return mask if count == ndimage.label(mask)[1] else filled(mask)


def has_hole(mask):
    parts, count = ndimage.label(mask)
    return any(
        (ndimage.binary_fill_holes(parts == number, np.ones((3, 3))) != (parts == number)).any()
        for number in range(1, count + 1)
    )


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_mask_without_holes_comes_back_from_its_outline_bit_for_bit():
    rng = np.random.default_rng(2)
    for number in range(400):
        mask = blobs(rng)
        assert not has_hole(mask)
        found = polygons.outline(mask if number % 2 else runs.encode(mask))
        assert len(found) == ndimage.label(mask)[1]
        np.testing.assert_array_equal(runs.decode(polygons.of_polygons(found, mask.shape)), mask)
        if mask.any():
            np.testing.assert_array_equal(pycocos(found, mask.shape), mask)


def test_a_mask_has_an_outline_unless_it_has_a_hole():
    rng = np.random.default_rng(3)
    holes = 0
    for _ in range(600):
        mask = rng.random(rng.integers(2, 12, 2)) < rng.uniform(0.3, 0.9)
        found = polygons.outline(mask)
        assert (found is None) == has_hole(mask)
        if found is None:
            holes += 1
        else:
            np.testing.assert_array_equal(runs.decode(polygons.of_polygons(found, mask.shape)), mask)
    assert 100 < holes < 500


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        (["#"], 1),
        (["#.", ".#"], 2),
        ([".#", "#."], 2),
        ([".#.", "#.#", ".#."], 4),
        (["###", "#.#", "###"], None),
        (["###", "#.#", "##."], 1),  # the hole is open at a corner
        (["###", "#.#", ".##"], 1),
        (["#.#", "###", "#.#"], 1),
        (["..."], 0),
    ],
)
def test_pixels_that_touch_at_corners(rows, count):
    mask = np.asarray([[each == "#" for each in row] for row in rows])
    found = polygons.outline(mask)
    assert (None if found is None else len(found)) == count
    if found is not None:
        np.testing.assert_array_equal(runs.decode(polygons.of_polygons(found, mask.shape)), mask)


def test_an_outline_has_corners_alone():
    mask = np.zeros((9, 12), bool)
    mask[2:7, 3:11] = True
    assert polygons.outline(mask) == [[3, 2, 11, 2, 11, 7, 3, 7]]
