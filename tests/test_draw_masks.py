"""Masks, class maps and legends in the pixels of an image, and colours for any number of them."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import label

from jaxvision.draw.masks import LEGEND, with_classes, with_legend, with_masks
from jaxvision.draw.palette import BLACK, class_colours, distinct, levels
from jaxvision.masks import runs
from jaxvision.run import map_records

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


def filled(pixels, colour):
    return (pixels == colour).all(-1)


@pytest.mark.parametrize("size", [(600, 400), (384, 384), (90, 128)])
def test_a_legend_stands_below_the_image_names_twelve_and_counts_the_rest(size):
    picture = Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8))
    few = np.asarray(with_legend(picture, [("cat", "#FF0000"), ("dog", "#00FF00")]))
    assert few.shape[1] == size[0]
    assert (few[: size[1]] == 90).all()
    below = few[size[1] :]
    assert filled(below, [255, 0, 0]).sum() > 50
    assert filled(below, [0, 255, 0]).sum() > 50
    assert (below[-1] == 255).all()
    many = np.asarray(with_legend(picture, [(f"class {i}", "#FF0000") for i in range(50)]))
    assert (many[: size[1]] == 90).all()
    assert label(filled(many, [255, 0, 0]))[1] == LEGEND
    assert with_legend(picture, []) is picture


def test_a_small_class_map_is_drawn_large_with_its_legend_below():
    labels = np.zeros((128, 128), int)
    labels[30:60, 40:90] = 1
    record = {"height": 128, "width": 128, "classes": []}
    for number, name in enumerate(("background", "nucleus")):
        mask = runs.encode(labels == number).coco()
        record["classes"].append({"name": name, "label": number, "category_id": number + 1, "segmentation": mask})
    grey = np.full((128, 128, 3), 200, np.uint8)
    drawn = np.asarray(map_records.draw_pixels(grey, record))
    assert drawn.shape[0] > 384
    assert drawn.shape[1] == 384
    assert ((drawn[:384:3, ::3] != 200).any(-1) == (labels == 1)).all()


def test_small_panoptic_segments_are_drawn_large_with_the_stuff_in_a_legend_below():
    thing = disc(30, 40, 12)
    each = {"id": 1, "label": "cat", "isthing": 1, "score": 0.9, "box": [28, 18, 53, 43]}
    ground = {"id": 2, "label": "ground", "isthing": 0, "score": 0.8, "box": [0, 0, 80, 60]}
    segments = [
        {**each, "segmentation": runs.encode(thing).coco()},
        {**ground, "segmentation": runs.encode(~thing).coco()},
    ]
    drawn = np.asarray(map_records.draw_segments(GREY, {"height": 60, "width": 80, "segments": segments}))
    assert drawn.shape[0] > 300
    assert drawn.shape[1] == 400
    legend = drawn[300:]
    assert filled(legend, levels([distinct(1)])[0]).sum() > 50
    assert not filled(legend, levels([distinct(0)])[0]).any()
    assert drawn[150, 200, 2] > drawn[150, 200, 0]  # blue on the thing
