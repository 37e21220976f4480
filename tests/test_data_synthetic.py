import time

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from jaxvision.data import arrays, order, synthetic
from jaxvision.data.decode import decode
from jaxvision.data.placement import keep
from jaxvision.data.target import objects

SOURCE = synthetic.shapes(60, seed=3, size=96, classes=synthetic.SHAPES, max_objects=8)
EXAMPLES = SOURCE.read(np.arange(60))
PALETTE = np.asarray([synthetic.RGB[name] for name in synthetic.COLOURS])


def test_an_example_depends_on_seed_and_number_alone():
    other = synthetic.shapes(9, seed=3, size=96, classes=synthetic.SHAPES, max_objects=8).read(np.array([7, 2, 7]))
    for number, found in zip([7, 2, 7], other, strict=True):
        np.testing.assert_array_equal(found.image, EXAMPLES[number].image)
        for one, expected in zip(found.objects[:5], EXAMPLES[number].objects[:5], strict=True):
            np.testing.assert_array_equal(one, expected)
    assert len({example.image.tobytes() for example in EXAMPLES}) == 60
    held_out = synthetic.shapes(60, seed=4, size=96, classes=synthetic.SHAPES, max_objects=8).read(np.arange(60))
    assert not {each.image.tobytes() for each in held_out} & {each.image.tobytes() for each in EXAMPLES}


def test_boxes_and_areas_are_those_of_the_masks():
    for example in EXAMPLES:
        found = example.objects
        assert 1 <= len(found.labels) <= 8
        for box, area, mask in zip(found.boxes, found.area, found.masks, strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert area == len(rows)
        assert found.masks.sum(0).max() == 1  # a pixel shows one shape
        assert not found.ignore.any()


def test_masks_are_the_pixels_of_the_colour_that_is_annotated():
    for example in EXAMPLES:
        found = example.objects
        drawn = found.masks.any(0)
        distance = np.abs(example.image[:, :, None].astype(int) - PALETTE).max(-1)
        for mask, colour in zip(found.masks, found.attributes["colour"], strict=True):
            assert distance[mask][:, colour].max() <= 15 + 12 + 1  # a colour varies by 15, noise by 12
        assert (distance[~drawn].min(1) > 28).mean() > 0.99


def by_pil(name, canvas):
    """The shape that fills a square canvas, drawn as PIL draws it."""
    image = Image.new("1", (canvas, canvas))
    draw, last = ImageDraw.Draw(image), canvas - 1
    inner = canvas * (1 - 0.3**0.5) / 2
    low, high = canvas * (1 - 0.35) / 2, canvas * (1 + 0.35) / 2
    if name in ("circle", "ring"):
        draw.ellipse((0, 0, last, last), fill=1)
        if name == "ring":
            draw.ellipse((inner, inner, last - inner, last - inner), fill=0)
    elif name == "cross":
        draw.rectangle((0, low, last, high), fill=1)
        draw.rectangle((low, 0, high, last), fill=1)
    else:
        middle = last / 2
        corners = {
            "square": [(0, 0), (last, 0), (last, last), (0, last)],
            "triangle": [(middle, 0), (last, last), (0, last)],
            "diamond": [(middle, 0), (last, middle), (middle, last), (0, middle)],
        }
        draw.polygon(corners[name], fill=1)
    return np.asarray(image)


@pytest.mark.parametrize("name", synthetic.SHAPES)
def test_shapes_are_what_they_are_called(name):
    source = synthetic.shapes(40, seed=5, size=256, max_objects=1, classes=(name,))
    seen = 0
    for example in source.read(np.arange(40)):
        x0, y0, x1, y1 = example.objects.boxes[0].astype(int)
        if x1 - x0 == y1 - y0 and x1 - x0 > 40:
            seen += 1
            mask = example.objects.masks[0, y0:y1, x0:x1]
            expected = by_pil(name, int(x1 - x0))
            border = ndimage.binary_dilation(expected, iterations=2) & ~ndimage.binary_erosion(expected, iterations=2)
            assert ((mask == expected) | border).all()
    assert seen > 5


def test_attributes_say_what_is_there():
    for example in EXAMPLES:
        found = example.objects
        assert found.attributes["shape"].tolist() == found.labels.tolist()  # all classes, in this order
        for size, box in zip(found.attributes["size"], found.boxes, strict=True):
            _, high = synthetic.DIAMETERS[synthetic.SIZES[size]]
            assert (box[2:] - box[:2]).max() <= max(high * 96, synthetic.FEWEST) + 1
    some = synthetic.shapes(20, seed=1, classes=("ring", "circle")).read(np.arange(20))
    for example in some:
        names = [synthetic.SHAPES[number] for number in example.objects.attributes["shape"]]
        assert names == [("ring", "circle")[label] for label in example.objects.labels]
    every = {name: set() for name in synthetic.ATTRIBUTES}
    for example in EXAMPLES:
        for name, numbers in example.objects.attributes.items():
            every[name] |= set(numbers.tolist())
    assert every == {name: set(range(len(names))) for name, names in synthetic.ATTRIBUTES.items()}


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_no_shape_is_hidden_by_more_than_the_overlap(overlap):
    source = synthetic.shapes(60, seed=2, size=96, max_objects=10, overlap=overlap, classes=("square",))
    shares = []
    for example in source.read(np.arange(60)):
        for box, area in zip(example.objects.boxes, example.objects.area, strict=True):
            width, height = box[2:] - box[:2]
            shares.append(area / max(width, height) ** 2)  # a square has lost no side unless it is hidden a lot
    assert min(shares) >= 1 - overlap - 0.25
    assert (min(shares) > 0.75) == (overlap == 0)


def test_objects_without_images_are_the_same():
    for alone, example in zip(SOURCE.objects(), EXAMPLES, strict=True):
        np.testing.assert_array_equal(alone.boxes, example.objects.boxes)
        assert alone.masks is None
    with pytest.raises(ValueError, match="shapes has objects, no label"):
        SOURCE.labels()


def test_fingerprints_tell_sets_apart():
    sets = [
        {"seed": 1},
        {"seed": 2},
        {"seed": 1, "size": 64},
        {"seed": 1, "overlap": 0.1},
        {"seed": 1, "max_objects": 2},
    ]
    assert len({synthetic.shapes(4, **each).fingerprint for each in sets}) == 5
    assert SOURCE.name(7) == "shapes(3)[7]"


def test_they_go_through_the_pipeline_with_masks():
    stream = arrays.evaluation(
        lambda: synthetic.shapes(5, seed=0, size=64), canvas=64, batch_size=5, target=objects(8, masks="canvas")
    )
    batch = next(stream.batches(0))
    expected = synthetic.shapes(5, seed=0, size=64).read(np.arange(5))
    for row, example in enumerate(expected):
        n = len(example.objects.labels)
        np.testing.assert_array_equal(batch.target.valid[row], np.arange(8) < n)
        np.testing.assert_array_equal(batch.target.masks[row, :n], example.objects.masks)
        np.testing.assert_array_equal(batch.image[row], example.image)
    assert decode(expected[0].image, keep(64)).size == (64, 64)
    assert order.shuffled(0)(SOURCE)(np.arange(60)).max() == 59


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"classes": ("circle", "sqare")}, "there is no class 'sqare'; did you mean 'square'"),
        ({"classes": ()}, "classes that differ"),
        ({"classes": ("ring", "ring")}, "classes that differ"),
        ({"size": 32}, r"size=32.*a size from 64"),
        ({"max_objects": 0}, "max_objects=0"),
        ({"overlap": 1.0}, r"overlap=1\.0"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_what_can_not_be_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        synthetic.shapes(4, **{"seed": 0, **options})


@pytest.mark.slow
def test_five_hundred_images_a_second_on_one_core():
    source = synthetic.shapes(1000, seed=0, size=96)
    start = time.process_time()
    source.read(np.arange(1000))
    assert time.process_time() - start < 2
