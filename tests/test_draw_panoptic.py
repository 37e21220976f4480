"""The report of panoptic segmentation: which segments match, what each pixel of the map of errors is, what is written."""

import numpy as np
import pytest
from test_draw_segmentation import observed, painted, pixels, texts

from jaxvision.draw import panoptic
from jaxvision.draw.segmentation import CONFUSED, INVENTED, KEY, MISSED, RIGHT, VOID
from jaxvision.masks.panoptic import PanopticMap, Segment
from jaxvision.metrics.panoptic_maps import MapPair, packed, unpacked
from jaxvision.types import Batch


@pytest.fixture(scope="module")
def scenes():
    return observed("panoptic")


def pair(found, true, found_labels, true_labels, crowd=None):
    crowd = np.zeros(len(true_labels), bool) if crowd is None else np.asarray(crowd)
    return MapPair(np.asarray(found), np.asarray(true), np.asarray(found_labels), np.asarray(true_labels), crowd)


def test_maps_come_back_from_their_bytes():
    ids = np.arange(700 * 40).reshape(700, 40) % 3
    found = PanopticMap(ids.astype(np.int32), [Segment(1, 4, 0.9, 5), Segment(2, 7, 0.8, 5)])
    maps = unpacked(packed(found, ids.T.copy().T[::-1], np.array([1, 2]), np.array([False, True])))
    np.testing.assert_array_equal(maps.found, ids[::2, ::2])
    np.testing.assert_array_equal(maps.true, ids[::-1][::2, ::2])
    assert maps.found_labels.tolist() == [4, 7]
    assert maps.true_labels.tolist() == [1, 2]
    assert maps.crowd.tolist() == [False, True]


def test_segments_match_by_class_and_an_iou_above_a_half():
    true, found = [[1, 1, 1, 2, 2, 0, 0, 3]], [[1, 1, 2, 2, 2, 3, 0, 4]]
    maps = pair(found, true, [5, 6, 5, 8], [5, 6, 9])
    assert panoptic.matched(maps).tolist() == [0, 1, 2, 0, 0]  # 2/3 each; the third lies on void; of another class
    assert panoptic.matched(maps._replace(found_labels=np.array([6, 6, 5, 9]))).tolist() == [0, 0, 2, 0, 3]
    assert panoptic.matched(maps._replace(crowd=np.array([True, False, False]))).tolist() == [0, 0, 2, 0, 0]
    half = pair([[1, 1, 0, 0]], [[1, 0, 1, 1]], [0], [0])
    assert panoptic.matched(half).tolist() == [0, 0]


def test_each_pixel_of_the_map_of_errors():
    true, found = [[1, 1, 1, 2, 2, 0, 0, 3, 3]], [[1, 1, 0, 2, 2, 3, 0, 4, 4]]
    maps = pair(found, true, [5, 7, 5, 9], [5, 6, 9], [False, False, True])
    kind = panoptic.errors(maps, panoptic.matched(maps))
    expected = [RIGHT, RIGHT, MISSED, CONFUSED, CONFUSED, INVENTED, VOID, INVENTED, INVENTED]
    assert kind.tolist() == [expected]


def test_a_sheet_shows_the_image_truth_prediction_and_errors(scenes):
    rows, stream = scenes
    figure = panoptic.sheet(rows, [0, 1], stream, "A title", "step 2")
    assert len(figure.axes) == 8
    assert {"A title", "scene 0", "scene 1"} <= set(texts(figure))
    for name, colour in KEY.values():
        assert (name in texts(figure)) == any(painted(pixels(figure.axes[n]), colour).any() for n in (3, 7)), name
    greys = [np.ptp(pixels(figure.axes[place]).astype(int), axis=-1) == 0 for place in range(4)]
    assert not greys[0].all()
    assert greys[3].mean() > 0.5
    notes = [text for text in texts(figure) if text.startswith("PQ ")]
    right, wrong, missed = rows["counts"][1].sum(0)
    assert f"{right} matched, {missed} missed, {wrong} false positives" in notes[1]
    shown = pixels(figure.axes[7])
    blue = np.isin(unpacked(rows["maps"][1]).true, 3)  # its score is below the threshold: the ground has its place
    assert painted(shown, KEY[CONFUSED][1])[:: shown.shape[0] // len(blue), :: shown.shape[0] // len(blue)][blue].all()


def test_the_image_lies_as_its_file_does():
    image = np.zeros((1, 8, 8, 3), np.uint8)
    image[0, :, 4:] = 200
    whole = Batch(image, np.array([[8, 8]]), np.array([[8, 16]]), np.array([0]), np.array([True]))
    assert panoptic.image_of(whole, 0, (4, 8))[:, :, 0].tolist() == [[0] * 4 + [200] * 4] * 4
    part = whole.replace(window=np.array([[8.0, 0, 16, 8]]))
    assert panoptic.image_of(part, 0, (4, 8))[:, :, 0].tolist() == [[0] * 6 + [200] * 2] * 4


def test_reports_leave_out_what_has_nothing_wrong_or_is_on_the_sample(scenes, tmp_path, monkeypatch):
    rows, stream = scenes
    panoptic.report(tmp_path, "test", rows, stream)
    assert {path.name for path in tmp_path.iterdir()} == {"test_predictions.png"}
    monkeypatch.setattr(panoptic, "SHOWN", 2)
    perfect = {**rows, "counts": rows["counts"] * [1, 0, 0], "iou": rows["counts"][..., 0].astype(float)}
    panoptic.report(tmp_path, "test", perfect, stream)
    assert {path.name for path in tmp_path.iterdir()} == {"test_predictions.png"}
