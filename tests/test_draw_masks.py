"""Masks, class maps and legends in the pixels of an image, and colours for any number of them."""

import numpy as np
from PIL import Image

from jaxvision.draw.masks import LEGEND, with_classes, with_legend, with_masks
from jaxvision.draw.palette import BLACK, class_colours, distinct, levels
from jaxvision.masks import runs

GREY = np.full((60, 80, 3), 200, np.uint8)


def disc(y, x, radius, shape=(60, 80)):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def test_colours_are_told_apart():
    known = levels([distinct(number) for number in range(40)]).astype(int)
    far = np.abs(known[:, None] - known[None]).sum(-1) + 999 * np.eye(40, dtype=int)
    assert far.min() > 12
    assert np.abs(np.diff(known, axis=0)).sum(1).min() > 100


def test_a_class_called_background_is_black_and_the_others_have_the_colours_of_their_numbers():
    assert class_colours(("__background__", "cat")) == [BLACK, distinct(1)]
    assert class_colours(("cat", "Background")) == [distinct(0), BLACK]


def test_masks_are_painted_inside_with_a_contour_small_ones_above():
    large, small = disc(30, 40, 20), disc(30, 40, 6)
    picture = with_masks(GREY, [runs.encode(small), runs.encode(large)], ["#FF0000", "#0000FF"])
    assert (picture[~large] == 200).all()
    assert picture[30, 23].tolist() == picture[13, 40].tolist() == [110, 110, 225]
    assert picture[30, 20].tolist() == [0, 0, 255]  # the contour
    assert picture[30, 40, 0] > picture[30, 40, 2]
    assert (GREY == 200).all()


def test_masks_without_a_pixel_and_at_the_border():
    empty, corner = np.zeros((60, 80), bool), disc(0, 0, 9)
    picture = with_masks(GREY, [runs.encode(empty), runs.encode(corner)], ["#FF0000", "#00FF00"])
    assert ((picture != 200).any(-1) == corner).all()
    assert picture[0, 0].tolist() == [0, 255, 0]


def test_class_maps_leave_the_background_and_have_borders():
    labels = np.zeros((60, 80), int)
    labels[10:30, 10:40], labels[50:] = 1, -1
    picture = with_classes(GREY, labels, [BLACK, "#FF0000"])
    assert (picture[labels != 1] == 200).all()
    assert picture[20, 20].tolist() == [225, 110, 110]
    assert picture[10, 20].tolist() == picture[29, 39].tolist() == [255, 0, 0]


def test_a_legend_names_what_has_room_and_counts_the_rest():
    picture = Image.fromarray(np.full((400, 600, 3), 90, np.uint8))
    few = np.asarray(with_legend(picture, [("cat", "#FF0000"), ("dog", "#00FF00")]))
    assert few.shape == (400, 600, 3)
    assert ((few == [255, 0, 0]).all(-1).sum(), (few == [0, 255, 0]).all(-1).sum()) > (50, 50)
    assert (few[:200] == 90).all()
    many = np.asarray(with_legend(picture, [(f"class {i}", "#FF0000") for i in range(50)]))
    swatches = np.diff((many[:, 8] == [255, 0, 0]).all(-1).astype(int))
    assert (swatches == 1).sum() == LEGEND
    assert with_legend(picture, []) is picture
