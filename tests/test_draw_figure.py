"""Files, and what holds for every picture: it can be saved, is not blank, and its texts neither overlap nor stick out."""

import itertools
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image, ImageFont

from jaxvision.draw.confusion import confusion
from jaxvision.draw.curves import curves
from jaxvision.draw.figure import save
from jaxvision.draw.sheet import sheet
from jaxvision.draw.style import shorten, text_width


def run(parts=("test",), steps=40):
    random = np.random.default_rng(0)
    training = [
        {"step": 100 * s, "loss": 2 / s + random.random(), "accuracy": s / steps, "learning_rate": 1e-4 * s}
        for s in range(1, steps + 1)
    ]
    figures = ("accuracy", "top5_accuracy", "log_loss", "f1_macro", "calibration_error")
    evaluated = [
        {"step": 1000 * s} | {f"{part}/{name}": random.random() for part in parts for name in figures}
        for s in range(1, steps // 10 + 1)
    ]
    return training + evaluated


def counts(k, n):
    random = np.random.default_rng(0)
    matrix = random.integers(1, n // 10, (k, k)) * (random.random((k, k)) < min(1, 8 / k))
    return matrix + n * np.eye(k, dtype=int)


def long_names(k):
    return [f"Wide Name Of Class WWW {i}" for i in range(k)]


def images(n):
    random = np.random.default_rng(0)
    shapes = itertools.cycle([(28, 28, 1), (20, 40, 3), (50, 30, 3), (400, 320, 3)])
    return [random.integers(0, 256, next(shapes), np.uint8) for _ in range(n)]


PICTURES = {
    "curves": lambda: curves(run()),
    "curves of two evaluations with long names": lambda: curves(run(("validation_of_the_year", "W" * 60))),
    "curves of one step": lambda: curves([{"step": 123456, "test/accuracy": 0.5}]),
    "confusion of 2": lambda: confusion(counts(2, 123456), ["cat", "dog"]),
    "confusion of 2 with long names": lambda: confusion(np.array([[0, 0], [3, 4]]), long_names(2)),
    "confusion of 10": lambda: confusion(counts(10, 12345), [f"c{i}" for i in range(10)]),
    "confusion of 20": lambda: confusion(counts(20, 12345), long_names(20)),
    "confusion of 100": lambda: confusion(counts(100, 12345), long_names(100)),
    "confusion of 1000": lambda: confusion(counts(1000, 50), long_names(1000)),
    "sheet": lambda: sheet(images(9), [f"{'W' * 30}\n{i}\nlong words under it" for i in range(9)], columns=4),
    "sheet with verdicts": lambda: sheet(images(5), [f"{'W' * 30} {i}" for i in range(5)], [True] * 5, title="Five"),
    "sheet of one": lambda: sheet(images(1), ["a"], [False], title="Many words for so narrow a page, " * 3),
}


@pytest.fixture(params=PICTURES, scope="module")
def picture(request):
    return PICTURES[request.param]()


@pytest.fixture(scope="module")
def texts(picture):
    return boxes(picture)


def boxes(figure):
    """Text and extent in pixels of every visible text that runs from left to right."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t.get_rotation() == 0]
    hidden = {id(label) for axes in figure.axes for label in _hidden_ticks(axes)}
    return [(text.get_text(), text.get_window_extent(renderer)) for text in shown if id(text) not in hidden]


def _hidden_ticks(axes):
    """Labels of ticks beyond the ends of an axis or of an axis that is off: matplotlib keeps them, but draws none."""
    hidden = []
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        shown = [
            t for t in [*axis.get_major_ticks(), *axis.get_minor_ticks()] if axes.axison and low <= t.get_loc() <= high
        ]
        hidden += [
            label for t in [*axis.majorTicks, *axis.minorTicks] if t not in shown for label in (t.label1, t.label2)
        ]
    return hidden


def test_no_two_texts_overlap(texts):
    found = texts
    assert len(found) > 3
    corners = np.array([[b.x0, b.y0, b.x1, b.y1] for _, b in found])
    overlap = np.minimum(corners[:, None, 2:], corners[None, :, 2:]) - np.maximum(
        corners[:, None, :2], corners[None, :, :2]
    )
    deep = np.argwhere(np.triu(np.all(overlap > 1, axis=-1), 1))
    assert not len(deep), [(found[i][0], found[j][0]) for i, j in deep]


def test_no_text_sticks_out_of_the_page(picture, texts):
    page = picture.bbox
    out = [text for text, b in texts if b.x0 < 0 or b.y0 < 0 or b.x1 > page.x1 or b.y1 > page.y1]
    assert not out


def test_png_has_the_size_of_the_page_and_is_not_blank(picture, tmp_path):
    path = tmp_path / "new" / "folder" / "picture.png"
    save(picture, path, dpi=60)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert np.abs(np.subtract(image.size, picture.get_size_inches() * 60)).max() <= 1
        pixels = np.asarray(image.convert("L"))
    assert len(np.unique(pixels)) > 20
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]


def test_a_failed_save_leaves_the_old_picture_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")

    def half_written(figure, file, **options):
        with open(file, "wb") as half:
            half.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half_written)
    with pytest.raises(OSError, match="disk full"):
        save(Figure(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_png(tmp_path):
    for name in ("picture.jpg", "picture"):
        with pytest.raises(ValueError, match=r"written as \.png"):
            save(Figure(), tmp_path / name)


def test_no_global_state_of_matplotlib():
    code = """
import sys, matplotlib
settings = lambda: {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != "backend"}  # reading it loads pyplot
before = settings()
from jaxvision.draw import confusion, curves, figure, sheet
import numpy as np
confusion.confusion(np.eye(2), ["a", "b"]).draw_without_rendering()
curves.curves([{"step": 1, "loss": 1.0}]).draw_without_rendering()
sheet.sheet([np.zeros((4, 4, 3), np.uint8)], ["a"]).draw_without_rendering()
assert settings() == before
assert "matplotlib.pyplot" not in sys.modules
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("text", ["Egyptian cat", "WWWW iiii", "кошка №7", "été…→ ✓"])
def test_text_width_equals_that_of_pil(text):
    font = ImageFont.truetype(
        f"{mpl.get_data_path()}/fonts/ttf/DejaVuSans.ttf", 1000, layout_engine=ImageFont.Layout.BASIC
    )
    expected = font.getlength(text, features=None) / 1000 * 9 / 72
    assert expected <= text_width(text, 9) <= 1.06 * expected


@pytest.mark.parametrize("width", [0.3, 0.8, 2.0, 9.0])
def test_shortened_text_fits_and_keeps_both_ends(width):
    text = "great grey owl, Strix nebulosa 7"
    short = shorten(text, width, 9)
    assert text_width(short, 9) <= width
    if width < 9:
        head, tail = short.split("…")
        assert text.startswith(head)
        assert text.endswith(tail)
        longer = len(head) + len(tail) + 2
        assert text_width(text[: longer // 2] + "…" + text[-(longer // 2) :], 9) > 0.95 * width
    else:
        assert short == text


def test_a_text_of_a_million_letters_is_shortened_at_once():
    short = shorten("a" * 500_000 + "b" * 500_000, 1, 9)
    assert short.startswith("aa")
    assert short.endswith("bb")
    assert text_width(short, 9) <= 1
