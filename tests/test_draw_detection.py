"""The pictures of a detector: what is drawn where, in which colour."""

import numpy as np
import pytest
from detection_cases import random_rows
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from PIL import Image

from jaxvision.data import arrays, target
from jaxvision.data.source import Example, annotations, no_labels
from jaxvision.draw import detection as pictures
from jaxvision.draw.style import GREEN, MUTED, ORANGE, VERMILLION
from jaxvision.metrics import coco_ap
from jaxvision.metrics.matching import pairs
from jaxvision.metrics.tables import tables

CLASSES = ("cat", "dog")
HEIGHT, WIDTH = 20, 40


def stream(count=3, classes=CLASSES):
    """Grey images, numbered by their brightness, in the corner of a larger canvas."""
    images = [np.full((HEIGHT, WIDTH, 3), 10 * i, np.uint8) for i in range(count)]
    source = arrays.source(np.stack(images), np.zeros(count, int), classes=classes)
    nothing = annotations(np.zeros((0, 4)), np.zeros(0))
    source = source._replace(
        read=lambda indices: [Example(images[i], objects=nothing) for i in indices],
        labels=no_labels("these"),
        objects=lambda: [nothing] * count,
    )
    return arrays.evaluation(lambda: source, canvas=64, batch_size=2, target=target.objects(4))


def rows(times=2):
    """Of three images whose files are so many times as large as what the stream shows of them.

    In the first a cat is found, a dog missed, another false with a low score, the dog with a
    lower one; in the second a crowd has a dog in it.
    """
    boxes = np.zeros((3, 4, 4), np.float32)
    boxes[0] = [[2, 2, 12, 12], [20, 5, 30, 15], [2, 2, 12, 12], [30, 2, 38, 8]]
    boxes[1, 0] = [5, 5, 15, 15]
    true = np.zeros((3, 2, 4), np.float32)
    true[0] = [[2, 2, 12, 13], [30, 2, 38, 8]]
    true[1, 0] = [0, 0, 40, 20]
    return {
        "index": np.arange(3),
        "boxes": times * boxes,
        "labels": np.array([[0, 0, 0, 1], [1, 0, 0, 0], [0] * 4]),
        "scores": np.array([[0.9, 0.8, 0.3, 0.2], [0.95, 0, 0, 0], [0] * 4], np.float32),
        "detected": np.array([[True] * 4, [True, False, False, False], [False] * 4]),
        "true_boxes": times * true,
        "true_labels": np.array([[0, 1], [1, 0], [0, 0]]),
        "annotated": np.array([[True, True], [True, False], [False, False]]),
        "ignore": np.array([[False, False], [True, False], [False, False]]),
        "area": np.full((3, 2), 100.0, np.float32),
        "original_size": np.full((3, 2), (times * HEIGHT, times * WIDTH)),
    }


def seen(score=0.5):
    found = tables(rows(), 2)
    return pictures.Seen(found, pairs(found), score, rows(), stream())


def drawn(axes):
    """Colour, dashes and corners of the boxes, in pixels of the image shown, the lowest first."""
    boxes = sorted((each for each in axes.patches if isinstance(each, Rectangle)), key=lambda each: each.get_zorder())
    return [
        (to_hex(box.get_edgecolor()).upper(), box.get_linestyle(), [side + 0.5 for side in (*box.get_xy(), *_far(box))])
        for box in boxes
    ]


def _far(box):
    return box.get_x() + box.get_width(), box.get_y() + box.get_height()


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_what_is_annotated_stands_left_of_what_was_found_in_pixels_of_the_image_shown():
    figure = pictures.pairs_sheet(seen(), [0, 1], "a title")
    left, right, crowd, inside = figure.axes
    assert drawn(left) == [(GREEN, "-", [2, 2, 12, 13]), (ORANGE, "-", [30, 2, 38, 8])]
    assert texts(left) == ["cat", "dog"]
    assert drawn(right) == [(VERMILLION, "-", [20, 5, 30, 15]), (GREEN, "-", [2, 2, 12, 12])]  # the best on top
    assert texts(right) == ["cat 0.90", "cat 0.80"]
    assert drawn(crowd) == [(MUTED, "--", [0, 0, 40, 20])]
    assert drawn(inside) == [(MUTED, "--", [5, 5, 15, 15])]
    written = [text.get_text() for text in figure.texts]
    assert {
        "a title",
        "1 found, 1 missed, 1 false positive",
        "0 found, 0 missed, 0 false positives",
        "arrays[0]",
    } <= set(written)
    assert any("score of 0.50 or more" in text for text in written)
    assert {"■ true positive", "■ missed", "■ false positive", "■ ignored"} <= set(written)
    for axes, value in zip(figure.axes, (0, 0, 10, 10), strict=True):
        shown = np.asarray(axes.images[0].get_array())
        assert shown.shape == (HEIGHT, WIDTH, 3)
        assert (shown == value).all()


def test_boxes_lie_right_on_an_image_that_was_stretched():
    sides = np.float32([3, 2, 3, 2])
    stretched = rows(times=1) | {"original_size": np.full((3, 2), (2 * HEIGHT, 3 * WIDTH))}
    stretched |= {name: stretched[name] * sides for name in ("boxes", "true_boxes")}
    found = tables(stretched, 2)
    left, right = pictures.pairs_sheet(pictures.Seen(found, pairs(found), 0.5, stretched, stream()), [0], "").axes
    np.testing.assert_allclose([corners for *_, corners in drawn(left)], [[2, 2, 12, 13], [30, 2, 38, 8]])
    np.testing.assert_allclose([corners for *_, corners in drawn(right)], [[20, 5, 30, 15], [2, 2, 12, 12]])


def test_a_lower_score_shows_more():
    right = pictures.pairs_sheet(seen(0.25), [0], "").axes[1]
    assert [colour for colour, _, _ in drawn(right)] == [VERMILLION, VERMILLION, GREEN]


def test_a_label_that_would_cover_that_of_a_better_detection_is_left_out():
    close = rows() | {"boxes": np.float32([[[2, 2, 12, 12], [3, 2, 13, 12], [20, 5, 30, 15], [2, 2, 12, 12]]] * 3)}
    found = tables(close, 2)
    right = pictures.pairs_sheet(pictures.Seen(found, pairs(found), 0.1, close, stream()), [0], "").axes[1]
    boxes, labels = drawn(right), texts(right)
    assert len(labels) < len(boxes)
    assert labels[0].endswith("0.90")


def test_with_a_single_class_only_scores_are_written():
    one = {**rows(), "labels": np.zeros((3, 4), int), "true_labels": np.zeros((3, 2), int)}
    found = tables(one, 1)
    view = pictures.Seen(found, pairs(found), 0.5, one, stream(classes=("cat",)))
    left, right = pictures.pairs_sheet(view, [0], "").axes
    assert texts(left) == []
    assert texts(right) == ["0.90", "0.80"]


def test_the_report_has_all_pictures_and_the_worst_image_first(tmp_path, monkeypatch):
    sheets = []
    monkeypatch.setattr(pictures, "pairs_sheet", lambda seen, numbers, title: sheets.append((title, list(numbers))))
    monkeypatch.setattr(pictures, "save", lambda figure, path: path.touch())
    pictures.report(tmp_path, "test", rows(), stream())
    assert sheets == [("test: a sample", [0, 1, 2])]  # of all images: no sheet repeats them
    assert not (tmp_path / "test_worst.png").exists()
    sheets.clear()
    monkeypatch.setattr(pictures, "SHOWN", 2)
    pictures.report(tmp_path, "test", rows(), stream())
    names = {"predictions", "worst", "precision_recall", "confusion"}
    assert {path.name for path in tmp_path.iterdir()} == {f"test_{name}.png" for name in names}
    assert sheets == [("test: a sample", [0, 2]), ("test: the worst images, by scores at any threshold", [0])]


def test_the_report_of_nothing_found_and_nothing_there(tmp_path):
    empty = rows() | {"detected": np.zeros((3, 4), bool), "annotated": np.zeros((3, 2), bool)}
    pictures.report(tmp_path, "test", empty, stream())
    assert [path.name for path in tmp_path.iterdir()] == ["test_predictions.png"]
    with Image.open(tmp_path / "test_predictions.png") as picture:
        assert min(picture.size) > 300


@pytest.mark.parametrize(("classes", "lines"), [(1, 1), (4, 5), (9, 10)])
def test_curves_are_those_of_the_evaluator(classes, lines):
    random = random_rows(2, classes=classes)
    random["true_labels"] = (np.arange(60).reshape(6, 10) % classes).astype(np.int32)
    curves = coco_ap.curves(tables(random, classes))
    figure = pictures.precision_recall(curves, [f"class {k}" for k in range(classes)])
    for axes, name in zip(figure.axes, ("AP50", "AP75"), strict=True):
        assert len(axes.lines) == lines
        value = coco_ap.summary(curves)[name]
        assert axes.get_title(loc="left").endswith(f"{name} {value:.3f}")
        assert np.mean(axes.lines[-1].get_ydata()) == pytest.approx(value)
        legend = axes.get_legend()
        assert legend is not None
        assert len(legend.get_texts()) == {1: 1, 4: 5, 9: 1}[classes]
