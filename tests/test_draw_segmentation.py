"""The reports of semantic and instance segmentation: what is drawn where, in which colour."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from jaxvision.draw import instances, segmentation
from jaxvision.draw.palette import class_colours, distinct, levels
from jaxvision.draw.segmentation import CONFUSED, INVENTED, KEY, MISSED, RIGHT, VOID, errors, with_errors
from jaxvision.draw.side_by_side import Panel, Shown, side_by_side
from jaxvision.masks import runs
from jaxvision.run import config, evaluation

FILE = Path(__file__).with_name("masks_experiment.py")


def observed(kind):
    """The rows of all scenes, and the stream that they are of."""
    found = config.build(FILE, {"kind": kind})[0]
    test = found.evaluations["test"]
    observe = evaluation.make_observe(found.task.predict, test.metric)
    return evaluation.measure(observe, {}, test.stream.batches(0), test.metric).rows, test.stream


@pytest.fixture(scope="module")
def semantic():
    return observed("semantic")


@pytest.fixture(scope="module")
def objects():
    return observed("instances")


def texts(figure):
    return [text.get_text() for text in figure.texts]


def pixels(axes):
    return np.asarray(axes.images[0].get_array())


def painted(image, colour):
    return (image == np.rint(255 * np.array(to_rgb(colour)))).all(-1)


def test_errors_are_missed_invented_confused_or_void():
    truth, found = np.array([[0, 1, 0, 1, -1]]), np.array([[0, 0, 1, 2, 2]])
    background = np.array([True, False, False])
    assert errors(truth, found, background).tolist() == [[RIGHT, MISSED, INVENTED, CONFUSED, VOID]]
    assert errors(truth, found, background & False).tolist() == [[RIGHT, CONFUSED, CONFUSED, CONFUSED, VOID]]
    picture = with_errors(np.full((1, 5, 3), 100, np.uint8), errors(truth, found, background))
    assert picture[0, 0].tolist() == [140] * 3
    for kind, (_, colour) in KEY.items():
        assert painted(picture, colour).sum() == 1, kind


VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
"""Matrices of linear RGB (Machado, Oliveira and Fernandes, 2009, severity 1)."""


def lab(colours, vision):
    """CIE Lab of 8-bit sRGB under a simulated vision, white D65."""
    value = np.asarray(colours) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = np.clip(linear @ vision.T, 0, 1) @ to_xyz.T / to_xyz.sum(1)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


@pytest.mark.parametrize("vision", VISIONS)
def test_the_colours_of_errors_are_told_apart_on_grey_also_by_colour_blind_readers(vision):
    wrong = lab(levels([colour for _, colour in KEY.values()]), VISIONS[vision])
    grey = lab(np.arange(100, 203)[:, None] * [1, 1, 1], VISIONS[vision])
    assert min(np.linalg.norm(a - b) for a, b in combinations(wrong, 2)) > 35
    assert np.linalg.norm(wrong[:, None] - grey, axis=-1).min() > 15


def test_no_class_has_the_colour_of_an_error():
    classes = lab(levels([distinct(number) for number in range(100)]), VISIONS["normal"])
    wrong = lab(levels([colour for _, colour in KEY.values()]), VISIONS["normal"])
    apart = np.linalg.norm(wrong[:, None] - classes, axis=-1)
    assert apart[:, :5].min() > 35
    assert apart.min() > 15


def test_a_class_has_one_colour_on_objects_of_any_colour_and_the_image_stands_beside_it():
    image = np.zeros((8, 24, 3), np.uint8)
    image[:, :8], image[:, 8:16], image[:, 16:] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    classes, labels = ["background", "circle", "square"], np.repeat([[0, 1, 1]], 8, 0).repeat(8, 1)
    colours = class_colours(classes)
    kind = np.full(labels.shape, RIGHT)
    first, truth, found, _ = segmentation._panels(image, labels, labels, kind, colours)
    times = first.image.shape[0] // 8
    np.testing.assert_array_equal(first.image[::times, ::times], image)
    np.testing.assert_array_equal(truth.image, found.image)
    of_class = truth.image[::times, ::times][4, [10, 12, 18, 22]].astype(int)
    assert np.abs(of_class - levels([colours[1]])).max() < 50  # on red, green and blue alike
    assert np.ptp(truth.image[:, : 7 * times], axis=-1).max() == 0  # the background is grey


def test_a_sheet_of_class_maps_shows_the_image_truth_prediction_and_errors(semantic):
    rows, stream = semantic
    figure = segmentation.sheet(rows, [4, 1], stream, "A title", "step 2")
    assert len(figure.axes) == 8
    subtitle = "from the left: image, ground truth, prediction, errors · step 2"
    assert {"A title", subtitle, "scene 4", "background", "red", "errors:"} <= set(texts(figure))
    assert texts(figure).index("scene 4") < texts(figure).index("scene 1")
    shapes = {pixels(axes).shape for axes in figure.axes}
    assert shapes == {(384, 384, 3)}  # 64 pixels, six times each
    wrong = sum(painted(pixels(figure.axes[3]), KEY[kind][1]).sum() for kind in (MISSED, INVENTED, CONFUSED))
    counts = rows["confusion"][4]
    assert wrong == 36 * (counts.sum() - np.trace(counts))
    maps = [pixels(figure.axes[place]) for place in (3, 7)]
    for name, colour in KEY.values():
        assert (name in texts(figure)) == any(painted(each, colour).any() for each in maps), name


@pytest.mark.slow
def test_reports_leave_out_what_has_nothing_to_show(semantic, objects, tmp_path, monkeypatch):
    rows, stream = semantic
    segmentation.report(tmp_path, "all", rows, stream)  # the sample is of all images: the worst are among them
    assert {path.name for path in tmp_path.iterdir()} == {"all_predictions.png", "all_confusion.png"}
    (tmp_path / "all_predictions.png").unlink(), (tmp_path / "all_confusion.png").unlink()
    monkeypatch.setattr(segmentation, "SHOWN", len(rows["index"]) - 1)
    segmentation.report(tmp_path, "test", rows, stream)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"test_{n}.png" for n in ("predictions", "worst", "confusion")
    }
    perfect = np.stack([np.diag(each.sum(1)) for each in rows["confusion"]])
    segmentation.report(tmp_path, "perfect", {**rows, "confusion": perfect}, stream)
    assert not (tmp_path / "perfect_worst.png").exists()
    rows, stream = objects
    nothing = np.empty(len(rows["index"]), object)
    nothing[:] = b""
    none = {"true_objects": nothing, "true_masks": nothing, "masks": nothing, "detected": rows["detected"] & False}
    instances.report(tmp_path, "empty", {**rows, **none}, stream)
    assert {path.name for path in tmp_path.glob("empty*")} == {"empty_predictions.png"}


def test_a_sheet_of_objects_shows_them_in_colours_and_what_is_wrong(objects):
    rows, stream = objects
    seen = instances.see(rows, stream)
    figure = instances.sheet(seen._replace(score=0.5), [0, 1], "A title")
    assert len(figure.axes) == 6
    assert "2 found, 0 missed, 0 false positives" in texts(figure)
    assert "2 found, 1 missed, 0 false positives" in texts(figure)  # blue has a score below 0.5
    truth, found, wrong = ({t.get_text() for t in axes.texts} for axes in figure.axes[3:])
    assert truth == {"red", "green", "blue"}
    assert found == {"red 0.95", "green 0.90"}
    assert not wrong
    missed = painted(pixels(figure.axes[5]), KEY[MISSED][1])
    blue = runs.decode(instances._fitted(seen.masks(1)[1][2], missed.shape))
    assert missed[blue].all()
    assert missed.mean() < blue.mean() + 0.05


def test_a_key_has_only_the_errors_that_are_on_the_sheet():
    assert segmentation.error_key({RIGHT}) == []
    assert segmentation.error_key({RIGHT, VOID, MISSED}) == [("errors:", ""), KEY[MISSED], KEY[VOID]]


def test_a_detection_on_an_object_of_another_class_is_confused_and_alone_invented(objects):
    rows, stream = objects
    labels = rows["labels"].copy()
    labels[0] = 1, 0, 2
    seen = instances.see({**rows, "labels": labels}, stream)._replace(score=0.5)
    figure = instances.sheet(seen, [0], "")
    assert "0 found, 2 missed, 2 false positives" in texts(figure)
    confused = painted(pixels(figure.axes[2]), KEY[CONFUSED][1])
    assert confused.mean() > 0.02
    swapped = rows["masks"].copy()
    swapped[0] = runs.encode(np.eye(*rows["original_size"][0]) > 0).counts + b"\n" + swapped[0].split(b"\n")[1]
    seen = instances.see({**rows, "masks": swapped}, stream)._replace(score=0.5)
    figure = instances.sheet(seen, [0], "")
    assert "1 found, 1 missed, 1 false positive" in texts(figure)
    assert painted(pixels(figure.axes[2]), KEY[INVENTED][1]).any()


def test_a_key_is_broken_into_lines_that_fit():
    panel = Panel(np.zeros((40, 40, 3), np.uint8))
    key = [[(f"a long name {i}", "#000000") for i in range(20)], [("last", "#FF0000")]]
    figure = side_by_side([Shown([panel] * 3, "name", "note")], "title", "subtitle", key)
    entries = [text for text in figure.texts if text.get_text().startswith(("a long", "last"))]
    swatches = [each.get_facecolor()[:3] for each in figure.artists if isinstance(each, Rectangle)]
    assert swatches == [to_rgb("#000000")] * 20 + [to_rgb("#FF0000")]
    assert len(entries) == 21
    places = {round(text.get_position()[1], 4) for text in entries}
    assert len(places) > 2
    figure.canvas.draw()
    assert max(text.get_window_extent().x1 for text in entries) <= figure.bbox.x1
    lowest = min(text.get_window_extent().y0 for text in entries)
    assert max(axes.get_window_extent().y1 for axes in figure.axes) < lowest
