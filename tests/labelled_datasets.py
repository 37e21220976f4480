"""Datasets of hostile names and all that objects can have, for tests of formats: strategies of Hypothesis, and images."""

from decimal import Decimal

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from jaxvision.formats.labelled import Dataset, LabelledImage, LabelledObject
from jaxvision.masks import runs

HOSTILE = ("<img onerror=alert(1)>", "\"quoted\" & 'so'", "größe 日本", "no", "010", "a:b", "#1", "]]>", "cat", "x\\y")
LETTERS = "aZ09 é日ß<>&'\"#%;:=.,-_"
TEXTS = st.one_of(
    st.sampled_from(["", "red", "true", "7", '["a"]', '"a"', " two\nlines\r\n ", *HOSTILE]),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Co")), max_size=8),
)
NUMBERS = st.one_of(st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6))
ATTRIBUTES = {
    "colour": TEXTS,
    "text": st.lists(TEXTS, max_size=3).map(tuple),
    "big": st.booleans(),
    "count": NUMBERS,
    "description": TEXTS,
    "box": TEXTS,
    "<b onload='x'> 日": st.lists(TEXTS, min_size=1, max_size=1).map(tuple),
    "truncated": st.booleans(),
    "occluded": st.booleans(),
    "pose": TEXTS,
}


@st.composite
def sides(draw, side, digits=6, beyond=0):
    """Two coordinates with decimals, in order."""
    scale = 10 ** draw(st.integers(0, digits))
    ends = sorted(draw(st.integers(-beyond * scale, (side + beyond) * scale)) for _ in range(2))
    return [float(Decimal(end) / scale) for end in ends]


@st.composite
def boxes(draw, size, **more):
    (y0, y1), (x0, x1) = (draw(sides(side, **more)) for side in size)
    return x0, y0, x1, y1


@st.composite
def polygons(draw, size, **more):
    points = [draw(boxes(size, **more)) for _ in range(draw(st.integers(2, 4)))]
    return tuple(side for point in points for side in point)


def hull(mask):
    """The box around a mask, by NumPy."""
    if isinstance(mask, runs.Runs):
        rows, columns = (np.flatnonzero(runs.decode(mask).any(axis)) for axis in (1, 0))
        return (
            tuple(float(side) for side in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
            if len(rows)
            else (0.0,) * 4
        )
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in mask])
    return (*points.min(0).tolist(), *points.max(0).tolist())


@st.composite
def objects(
    draw, classes, size, *, masks=(), score=False, model=False, attributes=(), flags=(), free=False, empty=True, **more
):
    kind = draw(st.sampled_from(("none", *masks)))
    mask = None
    if kind == "runs":
        pixels = draw(st.lists(st.booleans(), min_size=size[0] * size[1], max_size=size[0] * size[1]))
        on = np.reshape(pixels, size)
        mask = runs.encode(on) if empty or on.any() else None
    elif kind != "none":
        mask = tuple(draw(polygons(size, **more)) for _ in range(draw(st.integers(2, 3)) if kind == "several" else 1))
    box = draw(boxes(size, **more)) if mask is None or free else hull(mask)
    names = draw(st.lists(st.sampled_from(attributes), unique=True, max_size=4)) if attributes else []
    return LabelledObject(
        draw(st.sampled_from(classes)),
        box,
        mask,
        draw(st.none() | st.floats(0, 1)) if score else None,
        {name: draw(ATTRIBUTES[name]) for name in names},
        model=draw(st.none() | st.sampled_from(["ssd é 1a2b", "<b>"])) if model else None,
        **{flag: draw(st.booleans()) for flag in flags},
    )


@st.composite
def datasets(draw, *, classes=HOSTILE, unused=True, of_images=(), largest=9, letters=LETTERS, **more):
    """Datasets with what a format holds."""
    names = draw(st.lists(st.sampled_from(classes), min_size=1, max_size=5, unique=True))
    stems = st.lists(st.text(letters, min_size=1, max_size=6).map(lambda text: f"a{text}b"), unique=True, max_size=3)
    images = []
    for stem in draw(stems):
        size = draw(st.tuples(st.integers(1, largest), st.integers(1, largest)))
        found = draw(st.lists(objects(names, size, **more), max_size=3))
        given = draw(st.lists(st.sampled_from(of_images), unique=True, max_size=3)) if of_images else []
        name = draw(st.sampled_from(["", "sub é/", "images/"])) + stem + draw(st.sampled_from([".jpg", ".PNG"]))
        images.append(LabelledImage(name, size, tuple(found), None, {each: draw(ATTRIBUTES[each]) for each in given}))
    if not unused:
        used = {each.label for image in images for each in image.objects}
        names = sorted(used)
    return Dataset(tuple(names), images)


def write_images(dataset, folder):
    """Images of the sizes of the dataset."""
    for image in dataset.images:
        path = folder / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", image.size[::-1]).save(path, "PNG")
