"""The reports of semantic and instance segmentation: what is drawn where, in which colour."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from jaxvision.draw import instances, segmentation
from jaxvision.draw.segmentation import CONFUSED, INVENTED, KEY, MISSED, RIGHT, VOID, errors, with_errors
from jaxvision.draw.side_by_side import Panel, Shown, side_by_side
from jaxvision.draw.style import INK
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
    assert picture[0, 0].tolist() == [165] * 3
    for kind, (_, colour) in KEY.items():
        assert painted(picture, colour).sum() == 1, kind


def test_a_sheet_of_class_maps_shows_truth_prediction_and_errors(semantic):
    rows, stream = semantic
    figure = segmentation.sheet(rows, [4, 1], stream, "A title", "step 2")
    assert len(figure.axes) == 6
    assert {"A title", "left: ground truth, middle: prediction, right: errors · step 2", "scene 4"} <= set(
        texts(figure)
    )
    assert {"■ background", "■ red", "errors:", "■ missed", "■ invented", "■ confused"} <= set(texts(figure))
    assert "■ void" not in texts(figure)
    assert texts(figure).index("scene 4") < texts(figure).index("scene 1")
    shapes = {pixels(axes).shape for axes in figure.axes}
    assert shapes == {(384, 384, 3)}  # 64 pixels, six times each
    wrong = sum(painted(pixels(figure.axes[2]), KEY[kind][1]).sum() for kind in (MISSED, INVENTED, CONFUSED))
    counts = rows["confusion"][4]
    assert wrong == 36 * (counts.sum() - np.trace(counts))
    assert not painted(pixels(figure.axes[2]), INK).any()


@pytest.mark.slow
def test_reports_leave_out_what_has_nothing_to_show(semantic, objects, tmp_path):
    rows, stream = semantic
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
    entries = [text for text in figure.texts if text.get_text().startswith("■")]
    assert len(entries) == 21
    places = {round(text.get_position()[1], 4) for text in entries}
    assert len(places) > 2
    figure.canvas.draw()
    assert max(text.get_window_extent().x1 for text in entries) <= figure.bbox.x1
    lowest = min(text.get_window_extent().y0 for text in entries)
    assert max(axes.get_window_extent().y1 for axes in figure.axes) < lowest
