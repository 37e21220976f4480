"""What a format can hold comes back exactly, and nothing of it is said to be lost."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from labelled_datasets import ATTRIBUTES, HOSTILE, LETTERS, datasets, write_images

from jaxvision.formats import converting
from jaxvision.formats.converting import Format

EVERY = tuple(ATTRIBUTES)
ALL = {
    "score": True,
    "model": True,
    "attributes": EVERY,
    "of_images": EVERY,
    "flags": ("crowd", "difficult"),
    "free": True,
}
MASKS = ("one", "several", "runs")
ORDERED = tuple(sorted(HOSTILE))
HELD = {
    Format.COCO: {**ALL, "masks": MASKS, "beyond": 3, "classes": (*HOSTILE, "two\nlines", " ")},
    Format.VOC: {
        "attributes": EVERY,
        "flags": ("difficult",),
        "beyond": 3,
        "classes": [n for n in HOSTILE if n[0] != "#"],
    },
    Format.YOLO: {"masks": ("one",), "classes": (*HOSTILE, "two\nlines", " x "), "largest": 40},
    Format.LABELME: {**ALL, "masks": MASKS, "beyond": 3, "letters": LETTERS},
    Format.CVAT: {"score": True, "model": True, "attributes": EVERY, "masks": MASKS, "empty": False, "beyond": 3},
    Format.LABEL_STUDIO: {"score": True, "model": True, "attributes": EVERY, "of_images": EVERY, "masks": MASKS},
}
QUICK = settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
LONG = settings(QUICK, max_examples=60, phases=(Phase.generate, Phase.shrink))


def there_and_back(dataset, format, **more):
    """The dataset as it is read again, and what is lost on both ways."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, {Format.COCO: "a.json", Format.CVAT: "a.xml"}.get(format, "a"))
        losses = converting.write(dataset, output, format, **more)
        if format is Format.YOLO:
            write_images(dataset, output / "images")
        found, opened = converting.read(output)
    assert found is format
    return opened.dataset, [*losses, *opened.left_out]


def by_name(dataset):
    return {image.name: image for image in dataset.images}


@pytest.mark.parametrize("format", list(Format))
@QUICK
@given(st.data())
def test_what_a_format_holds_comes_back_exactly(format, data):
    check_round_trip(format, data)


@pytest.mark.slow
@pytest.mark.parametrize("format", list(Format))
@LONG
@given(st.data())
def test_what_a_format_holds_comes_back_exactly_sixty_times(format, data):
    check_round_trip(format, data)


def check_round_trip(format, data):
    dataset = data.draw(datasets(**HELD[format]))
    found, losses = there_and_back(dataset, format)
    assert losses == []
    assert found.classes == dataset.classes
    expected = by_name(dataset)
    if format is Format.COCO:
        assert [image.id for image in found.images] == list(range(1, len(found.images) + 1))
        assert [image.name for image in found.images] == list(expected)
        found = without_ids(found)
    assert by_name(found) == expected


def without_ids(dataset):
    images = [
        image._replace(id=None, objects=tuple(each._replace(id=None) for each in image.objects))
        for image in dataset.images
    ]
    return dataset._replace(images=images)
