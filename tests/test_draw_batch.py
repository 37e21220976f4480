"""Sheets of batches: what is drawn where."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from jaxvision.draw.batch import PADDING, SHOWN, batch_sheet
from jaxvision.draw.figure import save
from jaxvision.draw.palette import BLACK, COLOURS, distinct, levels
from jaxvision.types import Batch, CutMasks, Labels, Objects, PackedMasks, SegmentationMap

CLASSES = ("cat", "dog", "newt")


def batch(count=3, side=12, target=None, valid=True, channels=3, dtype=np.uint8):
    size = np.full((count, 2), (side - 4, side), np.int32)
    image = np.full((count, side, side, channels), 200, dtype)
    return Batch(image, size, size, np.arange(count), np.full(count, valid), target)


def texts(figure):
    return [text.get_text() for text in figure.texts]


def drawn(figure, number=0):
    return np.asarray(figure.axes[number].images[0].get_array())


def test_labels_and_names_are_written_below_the_images():
    figure = batch_sheet(batch(target=Labels(np.array([0, 2, 7]))), CLASSES, "file {}.png".format, title="a title")
    assert {"cat", "newt", "class 7?", "file 0.png", "a title"} <= set(texts(figure))


def test_soft_labels_show_the_two_largest_shares():
    probs = np.array([[0.1, 0.6, 0.3], [1, 0, 0], [0, 0.5, 0.5]])
    figure = batch_sheet(batch(target=Labels(np.zeros(3, int), probs)), CLASSES, str)
    assert {"dog 60%, newt 30%", "cat 100%", "dog 50%, newt 50%"} <= set(texts(figure))


def test_what_lies_outside_the_content_has_a_veil_that_what_is_there_shines_through():
    one = batch(1)
    one.image[0, -1, 0] = 0
    picture = drawn(batch_sheet(one, CLASSES, str))
    assert (picture[:8] == 200).all()
    assert (picture[8:] != 200).any(-1).all()
    assert (picture[-1, 0] < picture[-1, 1]).all()
    assert "padding of the canvas" in texts(batch_sheet(one, CLASSES, str))


def test_images_of_the_device_of_any_type_are_rounded_and_clipped():
    one = batch(1, channels=1, dtype=np.float32)
    one.image[0, 0, :3, 0] = -5, 300, 99.6
    picture = drawn(batch_sheet(one.replace(image=jnp.asarray(one.image)), CLASSES, str))
    assert picture[0, :3].tolist() == [[0] * 3, [255] * 3, [100] * 3]


def test_examples_that_are_not_valid_say_so_and_no_more_than_forty_are_drawn():
    figure = batch_sheet(batch(SHOWN + 5, valid=False), CLASSES, str)
    assert len(figure.axes) == SHOWN
    assert texts(figure).count("not valid") == SHOWN


def objects(**more):
    return Objects(
        boxes=np.array([[[2, 1, 6, 5], [0, 0, 3, 3], [1, 1, 2, 2]]], np.float32),
        labels=np.array([[1, 2, 0]]),
        valid=np.array([[True, True, False]]),
        ignore=np.array([[False, True, False]]),
        **more,
    )


def test_boxes_stand_around_their_pixels_and_only_valid_ones_are_drawn(tmp_path):
    figure = batch_sheet(batch(1, target={"objects": objects(), "label": Labels(np.array([0]))}), CLASSES, str)
    first, second = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    # Pixel 2 is drawn from 1.5 to 2.5; the box holds the columns 2 to 5 and the rows 1 to 4.
    assert (first.get_x(), first.get_y(), first.get_width(), first.get_height()) == (1.5, 0.5, 4, 4)
    assert first.get_edgecolor()[:3] == to_rgb(COLOURS[1])
    assert (first.get_linestyle(), second.get_linestyle()) == ("-", "--")
    assert [text.get_text() for text in figure.axes[0].texts] == ["dog", "newt"]
    assert "cat, 2 objects" in texts(figure)
    save(figure, tmp_path / "boxes.png")


@pytest.mark.parametrize("classes", [("nucleus",), ("background", "nucleus")])
def test_with_a_single_class_boxes_have_no_labels_and_the_key_names_it(classes):
    one = objects()
    one = one.replace(labels=one.labels * 0 + len(classes) - 1)
    figure = batch_sheet(batch(1, target=one), classes, str)
    assert not figure.axes[0].texts
    assert {"nucleus", "padding of the canvas"} <= set(texts(figure))
    assert [text.get_text() for text in batch_sheet(batch(1, target=one), CLASSES, str).axes[0].texts] == 2 * [
        CLASSES[len(classes) - 1]
    ]


def test_class_maps_have_the_colours_of_their_classes_and_a_key():
    label, valid = np.zeros((1, 12, 12), int), np.ones((1, 12, 12), bool)
    label[0, :4, :6], valid[0, :2, :2] = 2, False
    one = batch(1, target=SegmentationMap(label, valid))
    figure = batch_sheet(one, ("background", "cat", "dog"), str)
    picture = drawn(figure).astype(int)
    assert (picture[:2, :2] == 200).all()
    assert (picture[:8, 6:] == 80).all()  # black over it, not blue as padding is
    dog = np.rint(0.4 * 200 + 0.6 * levels([distinct(2)])[0])
    assert np.abs(picture[2:4, :6] - dog).max() <= 1
    assert {"background", "dog", "not painted: no class", "padding of the canvas"} <= set(texts(figure))
    assert "cat" not in texts(figure)
    swatches = [each.get_facecolor()[:3] for each in figure.artists if isinstance(each, Rectangle)]
    assert swatches == [to_rgb(colour) for colour in (BLACK, distinct(2), PADDING)]
    whole = one.replace(target=SegmentationMap(label, valid | True), size=np.array([[12, 12]]))
    assert texts(batch_sheet(whole, ("background", "cat", "dog"), str))[-4:-2] == ["background", "dog"]


def test_masks_are_painted_over_their_pixels_alone():
    masks = np.zeros((1, 3, 12, 12), bool)
    masks[0, 0, 1:5, 2:6] = masks[0, 2, 7, 7] = True
    picture = drawn(batch_sheet(batch(1, target=objects(masks=masks)), CLASSES, str))
    changed = (picture[:8] != 200).any(-1)
    assert (changed == masks[0, 0, :8]).all()
    bits = PackedMasks(np.packbits(masks, -1), 12)
    cut = CutMasks(np.full((1, 3, 8, 1), 255, np.uint8), np.float32([[[2, 1, 6, 5], [0, 0, 0, 0], [7, 7, 8, 8]]]))
    for form in (bits, cut):
        np.testing.assert_array_equal(drawn(batch_sheet(batch(1, target=objects(masks=form)), CLASSES, str)), picture)
    with pytest.raises(ValueError, match=r"masks of the shape \(4, 4\) can't be drawn on a canvas \(12, 12\)"):
        batch_sheet(batch(1, target=objects(masks=np.zeros((1, 3, 4, 4)))), CLASSES, str)
