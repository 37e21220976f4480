"""Text on objects: which readings count and where they belong; with RapidOCR, words that are drawn are read."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import XKCD_COLORS
from PIL import Image, ImageDraw, ImageFont

from jaxvision.annotate import text
from jaxvision.annotate.attributes import finders
from jaxvision.annotate.records import Annotation
from jaxvision.annotate.text import Text, counts, texts_of
from jaxvision.data import samples, synthetic
from jaxvision.errors import ConfigError
from jaxvision.masks import runs

FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"
WORDS = sorted({word for name in XKCD_COLORS for word in name[5:].replace("/", " ").split() if len(word) > 2})
"""390 words of the names of colours."""


def box(x0, y0, x1, y1):
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)


@pytest.mark.parametrize(
    ("read", "kept"),
    [
        *((("STOP", 0.99), True), (("24h", 0.8), True), (("中国", 0.9), True)),
        *((("STOP", 0.79), False), (("■●", 1.0), False), (("O", 0.99), False), (("+8", 0.95), False)),
    ],
)
def test_what_counts_has_two_letters_or_digits_and_is_sure(read, kept):
    assert counts(Text(*read, box(0, 0, 9, 9))) == kept


def test_texts_belong_to_the_objects_that_they_lie_on():
    mask = np.zeros((60, 80), bool)
    mask[:, :40] = True
    objects = (
        Annotation(1, "sign", (0, 0, 80, 30)),
        Annotation(2, "half", (0, 0, 80, 60), runs.encode(mask)),
        Annotation(3, "outside", (200, 200, 210, 210)),
    )
    texts = [
        Text("upper left", 1, box(5, 5, 35, 15)),
        Text("crossing", 1, box(26, 20, 56, 32)),  # 0.83 in the first box, 0.47 in the mask
        Text(" below ", 1, box(2, 40, 38, 50)),
        Text("turned", 1, np.array([[70.0, 20], [50, 20], [50, 10], [70, 10]])),
    ]
    assert texts_of(texts, objects, (60, 80)) == [
        ("upper left", "crossing", "turned"),
        ("upper left", "below"),
        (),
    ]


def test_points_fill_a_quadrilateral_as_a_fine_raster_does():
    corners = np.array([[10.0, 5], [50, 15], [46, 31], [6, 21]])  # a parallelogram: points are spread evenly over it
    y, x = (np.mgrid[:400, :600] + 0.5) / 10
    along, down = corners[1] - corners[0], corners[3] - corners[0]
    parts = np.linalg.solve(np.stack([along, down], 1), np.stack([x - 10, y - 5]).reshape(2, -1))
    inside = ((parts >= 0) & (parts < 1)).all(0).reshape(x.shape)
    expected = (inside & (x < 30) & (y < 18)).sum() / inside.sum()
    found = text._inside(Text("a", 1, corners), Annotation(1, "a", (0, 0, 30, 18)), (40, 60))
    assert found == pytest.approx(expected, abs=0.03)


def test_without_rapidocr_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rapidocr", None)
    text._engines.cache_clear()
    with pytest.raises(
        ConfigError, match=r"^the attributes 'text' are read by rapidocr .*: pip install 'jaxvision\[text\]'$"
    ):
        finders(["text"])


def drawn(word, size, turn, rng):
    """A word on a plain ground, dark on light or light on dark, turned counterclockwise; the rest of the image is ground."""
    name = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono")[rng.integers(4)]
    font = ImageFont.truetype(str(FONTS / f"{name}.ttf"), size)
    x0, y0, x1, y1 = font.getbbox(word)
    side = int(np.hypot(x1 - x0, y1 - y0)) + 60
    low, high = (tuple(rng.integers(*ends, 3).tolist()) for ends in ((0, 80), (190, 256)))
    ink, ground = (low, high) if rng.random() < 0.5 else (high, low)
    image = Image.new("RGB", (side, side), ground)
    at = (side - x0 - x1) / 2, (side - y0 - y1) / 2
    ImageDraw.Draw(image).text(at, word, font=font, fill=ink)
    return np.asarray(image.rotate(turn, Image.Resampling.BICUBIC, fillcolor=ground))


def exact(count, seed):
    """Fraction of so many words that are read as they were drawn, each the only text on its object."""
    rng, right = np.random.default_rng(seed), []
    (finder,) = finders(["text"])
    for number in range(count):
        word = WORDS[rng.integers(len(WORDS))]
        word = (word, word.upper(), word.capitalize())[rng.integers(3)]
        pixels = drawn(word, int(rng.integers(20, 49)), (0, 8, 20, 180)[number % 4], rng)
        height, width = pixels.shape[:2]
        (found,) = finder.find(pixels, [Annotation(1, "sign", (0, 0, width, height))])
        right.append(found == {"text": (word,)})
    return np.mean(right)


def with_text(count, seed):
    """Number of drawn shapes, and of those on which text was found."""
    (finder,) = finders(["text"])
    objects = found = 0
    for example in synthetic.shapes(count, seed=seed, size=256, classes=synthetic.SHAPES).read(np.arange(count)):
        masks, boxes = map(runs.encode, example.objects.masks), example.objects.boxes.tolist()
        annotations = [Annotation(1, "a", tuple(each), mask) for each, mask in zip(boxes, masks, strict=True)]
        objects, found = objects + len(boxes), found + sum(map(bool, finder.find(example.image, annotations)))
    return objects, found


@pytest.mark.text
def test_200_words_are_read_and_200_objects_without_text_have_none():
    assert exact(200, seed=1) >= 0.95
    objects, found = with_text(60, seed=9)
    assert objects >= 200
    assert found <= 0.01 * objects


@pytest.mark.text
def test_photographs_without_objects_are_not_looked_at_and_several_lines_come_in_order():
    (finder,) = finders(["text"])
    photo = np.asarray(Image.open(next(samples.photos_dir().glob("*.jpg"))))
    assert finder.find(photo, []) == []
    image = Image.new("RGB", (300, 160), (250, 250, 240))
    font = ImageFont.truetype(str(FONTS / "DejaVuSans.ttf"), 32)
    for row, word in enumerate(("Quince", "Apricot")):
        ImageDraw.Draw(image).text((40, 20 + 70 * row), word, font=font, fill=(20, 30, 60))
    whole, upper = finder.find(
        np.asarray(image), [Annotation(1, "a", (0, 0, 300, 160)), Annotation(2, "a", (0, 0, 300, 75))]
    )
    assert (whole, upper) == ({"text": ("Quince", "Apricot")}, {"text": ("Quince",)})
