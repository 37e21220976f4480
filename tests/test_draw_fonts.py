"""Names in any script: drawn where an installed font has their signs, and said where none has."""

import logging

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg

from jaxvision.draw import fonts
from jaxvision.draw.boxes import with_boxes
from jaxvision.draw.figure import save
from jaxvision.draw.sheet import sheet
from jaxvision.draw.style import text_width

SIGN = "猫"
"""A sign that matplotlib's own font does not have; in the test's font it is a full square."""


@pytest.fixture
def square(tmp_path):
    pen = TTGlyphPen(None)
    for number, corner in enumerate([(0, 0), (0, 1000), (1000, 1000), (1000, 0)]):
        (pen.lineTo if number else pen.moveTo)(corner)
    pen.closePath()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "cat"])
    font.setupCharacterMap({ord(SIGN): "cat"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (500, 0), "cat": (1000, 0)})
    font.setupHorizontalHeader(ascent=1000, descent=0)
    font.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "squares.ttf")
    known = list(font_manager.fontManager.ttflist)
    font_manager.fontManager.addfont(tmp_path / "squares.ttf")
    fonts.forget()
    yield
    font_manager.fontManager.ttflist = known
    fonts.forget()


def ink(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return int((np.asarray(canvas.buffer_rgba())[..., :3] < 128).all(-1).sum())


def captioned(caption):
    return sheet([np.full((28, 28, 1), 255, np.uint8)], [caption])


def test_a_sign_of_another_font_is_drawn_in_a_figure(square, tmp_path):
    figure, blank = captioned(f"a {SIGN}"), captioned("a")
    save(figure, tmp_path / "sheet.png")
    side = figure.dpi * 7.5 / 72
    assert 0.8 * side**2 < ink(figure) - ink(blank) < 1.2 * side**2
    assert text_width(SIGN, 72) == pytest.approx(1.04)


def test_a_sign_of_another_font_is_drawn_into_pixels(square):
    pixels, box = np.zeros((400, 400, 3), np.uint8), np.array([[50.0, 100, 300, 300]])
    written = [np.asarray(with_boxes(pixels, box, [text], ["#0072B2"])) for text in (f"a{SIGN}{SIGN}", "a")]
    with_signs, without = (int((each == 255).all(-1).sum()) for each in written)
    assert 2 * 9**2 < with_signs - without <= 2 * 11**2


def test_a_sign_that_no_font_has_is_replaced_and_said_once(caplog):
    fonts.forget()
    with caplog.at_level(logging.WARNING):
        assert [fonts.drawable(f"{SIGN}a\n"), fonts.drawable(SIGN)] == [f"{fonts.REPLACEMENT}a\n", fonts.REPLACEMENT]
    (record,) = caplog.records
    assert f"no installed font has {SIGN} (U+732B)" in record.getMessage()
