from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from jaxvision.draw.confusion import confusion


def counts(k, n=40, seed=0):
    """Random counts; most examples of a class are right."""
    random = np.random.default_rng(seed)
    matrix = random.integers(0, 3, (k, k)) * (random.random((k, k)) < min(1, 20 / k))
    return matrix + n * np.eye(k, dtype=int)


def names(k):
    return [f"class {i}" for i in range(k)]


def drawn(axes) -> Any:
    """The masked array behind the colours."""
    return axes.images[0].get_array()


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_colours_are_shares_of_the_row():
    label, predicted = [0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 2, 0]
    matrix = confusion_matrix(label, predicted)
    expected = confusion_matrix(label, predicted, normalize="true")
    (axes,) = confusion(matrix, ["a", "b", "c"]).axes
    np.testing.assert_allclose(drawn(axes), expected)
    assert axes.get_xlabel() == "predicted class"
    assert axes.get_ylabel() == "true class"


@pytest.mark.parametrize("k", [2, 10, 20])
def test_small_matrices_say_share_and_count_in_each_cell(k):
    matrix = counts(k)
    (axes,) = confusion(matrix, names(k)).axes
    said = {(round(t.get_position()[0]), round(t.get_position()[1]), t.get_text()) for t in axes.texts}
    filled = np.argwhere(matrix)
    assert len(axes.texts) == 2 * len(filled) + 1
    for i, j in filled:
        assert (j, i, str(matrix[i, j])) in said
        share = matrix[i, j] / matrix[i].sum()
        assert (j, i, f"{share:.1%}") in said
    assert [label.get_text() for label in axes.get_yticklabels()] == names(k)
    assert [label.get_text() for label in axes.get_xticklabels()] == names(k)


def test_small_shares_are_never_none_and_large_ones_never_all():
    (axes,) = confusion(np.array([[9999, 1], [0, 3]]), ["a", "b"]).axes
    assert {">99.9%", "9,999", "<0.1%", "1", "100%", "3", "accuracy 99.99%  ·  10,003 examples"} == set(texts(axes))
    (axes,) = confusion(np.array([[999999, 1], [0, 3]]), ["a", "b"]).axes
    assert "accuracy >99.99%  ·  1,000,003 examples" in texts(axes)


@pytest.mark.parametrize("k", [21, 100, 499])
def test_large_matrices_name_some_classes_and_keep_every_cell(k):
    matrix = counts(k)
    axes, scale, _ = confusion(matrix, names(k)).axes
    np.testing.assert_allclose(drawn(axes), matrix / matrix.sum(1, keepdims=True))
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) <= 40
    assert labels == [f"class {round(tick)}" for tick in axes.get_yticks()]
    assert scale.get_ylabel() == "fraction of the true class"


def test_a_dot_of_a_very_large_matrix_is_the_largest_of_its_cells():
    k = 1001
    matrix = counts(k)
    matrix[7] = 0
    matrix[996:1000] = 0
    figure = confusion(matrix, names(k))
    dots = drawn(figure.axes[0])
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    assert dots.shape == (251, 251)
    for i, j in [(0, 0), (1, 200), (250, 250), (30, 31), (250, 0)]:
        assert dots[i, j] == pytest.approx(shares[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].max())
    assert np.all(dots.mask[249])
    assert not np.any(dots.mask[1])
    assert "largest of 4 x 4 cells" in figure.axes[0].get_xlabel()


def test_the_most_confused_pairs_are_listed_in_order():
    matrix = 100 * np.eye(30, dtype=int)
    matrix[3, 4], matrix[5, 6], matrix[7, 8], matrix[9, 8] = 30, 50, 20, 20
    matrix[9, 9] = 20
    aside: Any = confusion(matrix, names(30)).axes[2]
    said = texts(aside)
    assert said[::2] == ["class 5 → class 6", "class 3 → class 4", "class 9 → class 8", "class 7 → class 8"]
    assert said[1::2] == ["50 (33.3%)", "30 (23.1%)", "20 (50.0%)", "20 (16.7%)"]
    assert [bar.get_width() for bar in aside.patches] == [50, 30, 20, 20]


def test_at_most_twenty_pairs_and_none_where_all_is_right():
    assert len(confusion(counts(60), names(60)).axes[2].patches) == 20
    perfect = confusion(np.eye(30, dtype=int), names(30))
    assert perfect.axes[2].get_title("left") == "No confusions"
    assert "accuracy 100.00%" in perfect.axes[0].texts[-1].get_text()


def test_a_class_without_examples_is_grey_and_said():
    (axes,) = confusion(np.array([[3, 1], [0, 0]]), ["a", "b"]).axes
    np.testing.assert_array_equal(drawn(axes).mask, [[False, False], [True, True]])
    assert "accuracy 75.00%  ·  4 examples  ·  grey: no examples" in texts(axes)


def test_long_names_are_shortened_and_strange_ones_drawn():
    classes = ["a class with a very long name indeed, number 1", "猫", "line\nbreak", "$x_{", "кошка", "\udcff"]
    figure = confusion(counts(6), classes)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[0].startswith("a class")
    assert labels[0].endswith("number 1")
    assert "…" in labels[0]
    assert labels[1:] == ["\ufffd", "line break", "$x_{", "кошка", "\ufffd"]
    figure.draw_without_rendering()


def test_errors():
    with pytest.raises(ValueError, match=r"3 classes: the shape of the matrix must be \(3, 3\), it is \(2, 2\)"):
        confusion(np.eye(2), names(3))
    with pytest.raises(ValueError, match="without a single example"):
        confusion(np.zeros((2, 2), int), names(2))
    for wrong in (np.eye(2) / 2, -np.eye(2), np.eye(2) * np.nan):
        with pytest.raises(ValueError, match="holds counts"):
            confusion(wrong, names(2))


def test_the_percents_of_a_row_of_200_add_up():
    matrix = np.array([[195, 1, 3, 1], [25, 145, 19, 11], [0, 0, 0, 200], [50, 50, 50, 50]])
    (axes,) = confusion(matrix, list("abcd")).axes
    for row in range(4):
        said = [t.get_text() for t in axes.texts if t.get_text().endswith("%") and round(t.get_position()[1]) == row]
        assert sum(float(text.removesuffix("%")) for text in said) == pytest.approx(100)


def test_the_title_says_of_what_the_matrix_is():
    (axes,) = confusion(np.eye(2, dtype=int), ["a", "b"], name="test", of="step 64, averaged weights").axes
    assert axes.get_title("left") == "test: confusion matrix"
    assert "accuracy 100.00%  ·  2 examples  ·  step 64, averaged weights" in texts(axes)
