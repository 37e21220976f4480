import numpy as np
import pytest
from matplotlib.colors import to_hex

from jaxvision.draw.sheet import sheet
from jaxvision.draw.style import GREEN, VERMILLION


def images(n, *shape):
    return list(np.random.default_rng(0).integers(0, 256, (n, *shape), np.uint8))


def captions(n):
    return [f"class {i}\n{i} %" for i in range(n)]


def frame(axes):
    return {to_hex(spine.get_edgecolor()).upper() for spine in axes.spines.values()}


def fields(figure):
    """Left and bottom of each image, inches."""
    return [np.array([a.get_position().x0, a.get_position().y0]) * figure.get_size_inches() for a in figure.axes]


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_shown_as_it_is(channels):
    given = images(5, 6, 4, channels)
    figure = sheet(given, captions(5))
    assert len(figure.axes) == 5
    for image, axes in zip(given, figure.axes, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), np.broadcast_to(image, (6, 4, 3)))


def test_images_keep_their_shape():
    figure = sheet([*images(1, 10, 30, 3), *images(1, 40, 20, 3), *images(1, 8, 8, 1)], captions(3))
    width, height = figure.get_size_inches()
    ratios = [a.get_position().width * width / (a.get_position().height * height) for a in figure.axes]
    assert ratios == pytest.approx([3, 0.5, 1])


def test_order_is_from_left_to_right_and_down():
    places = fields(sheet(images(7, 5, 5, 3), captions(7), columns=3))
    lefts, bottoms = np.transpose(places)
    np.testing.assert_allclose(lefts, lefts[[0, 1, 2, 0, 1, 2, 0]])
    assert lefts[0] < lefts[1] < lefts[2]
    np.testing.assert_allclose(bottoms, bottoms[[0, 0, 0, 3, 3, 3, 6]])
    assert bottoms[0] > bottoms[3] > bottoms[6]


def test_frames_marks_and_tally_say_what_is_right():
    figure = sheet(images(3, 5, 5, 3), captions(3), [True, False, True], title="Worst")
    assert [frame(axes) for axes in figure.axes] == [{GREEN}, {VERMILLION}, {GREEN}]
    said = [text.get_text() for text in figure.texts]
    assert said[:3] == ["Worst", "✓ 2 correct", "✗ 1 wrong"]
    assert said[3:] == ["class 0", "0 %", "✓", "class 1", "1 %", "✗", "class 2", "2 %", "✓"]


def test_without_verdicts_nothing_is_marked():
    figure = sheet(images(2, 5, 5, 3), captions(2))
    assert [text.get_text() for text in figure.texts] == ["class 0", "0 %", "class 1", "1 %"]
    assert all(not frame(axes) & {GREEN, VERMILLION} for axes in figure.axes)


def test_long_and_strange_captions():
    given = ["a name that is far too long to fit under its image.jpg", "猫", "$x_{", "", "été"]
    figure = sheet(images(5, 5, 5, 3), given, title="A title of $many words_{ that needs more than one line " * 3)
    said = [text.get_text() for text in figure.texts]
    assert said[-4:] == ["\ufffd", "$x_{", "", "été"]
    assert said[-5].startswith("a name")
    assert said[-5].endswith(".jpg")
    assert "…" in said[-5]
    assert len(said) > 6
    figure.draw_without_rendering()


def test_the_page_grows_with_the_images():
    small, wide, tall = (sheet(images(n, 5, 5, 3), captions(n), columns=8).get_size_inches() for n in (4, 8, 16))
    assert small[0] < wide[0] == tall[0]
    assert small[1] == wide[1] < tall[1]


def test_errors():
    with pytest.raises(ValueError, match="0 images"):
        sheet([], [])
    with pytest.raises(ValueError, match="columns=0"):
        sheet(images(1, 5, 5, 3), ["a"], columns=0)
    with pytest.raises(ValueError, match="2 images: as many captions and verdicts are needed, got 1 and 2"):
        sheet(images(2, 5, 5, 3), ["a"])
    with pytest.raises(ValueError, match="got 2 and 3"):
        sheet(images(2, 5, 5, 3), ["a", "b"], [True] * 3)
    wrong = [np.zeros((5, 5, 3), np.float32), np.zeros((5, 5), np.uint8), np.zeros((5, 5, 4), np.uint8)]
    for image in [*wrong, np.zeros((0, 5, 3), np.uint8)]:
        with pytest.raises(ValueError, match=r"image 1 is .*; a sheet draws uint8 \[h w 1\] and \[h w 3\]"):
            sheet([*images(1, 5, 5, 3), image], ["a", "b"])
