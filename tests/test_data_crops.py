"""Crops of objects and their attributes: from COCO files, and from what is drawn."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxvision.data import crops, order, streams, synthetic
from jaxvision.data.crops import Group
from jaxvision.data.placement import stretch
from jaxvision.data.source import annotations

PIXELS = np.arange(12 * 20 * 3).reshape(12, 20, 3).astype(np.uint8)


def test_a_crop_is_a_square_around_the_box_and_black_beyond_the_image():
    framed = np.pad(PIXELS, ((30, 30), (30, 30), (0, 0)))
    for box, context in (((4, 2, 10, 6), 0.0), ((4, 2, 10, 6), 0.5), ((-3, 8, 9, 30), 0.2), ((15, 0, 20, 12), 0.25)):
        side = max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * context)
        x, y = ((box[i] + box[i + 2] - side) / 2 for i in (0, 1))
        x, y, size = int(np.floor(x)), int(np.floor(y)), int(np.ceil(side))
        np.testing.assert_array_equal(
            crops.cut(PIXELS, box, context), framed[30 + y : 30 + y + size, 30 + x : 30 + x + size]
        )
    assert not crops.cut(PIXELS, (50, 50, 60, 60)).any()
    grey = crops.cut(PIXELS[..., 0], (0, 0, 5, 5), 0)
    np.testing.assert_array_equal(grey, np.repeat(PIXELS[:5, :5, :1], 3, 2))
    assert crops.cut(PIXELS, (3, 3, 3, 3)).shape == (1, 1, 3)


def coco(tmp_path, attributes):
    """A file of two images; these attributes of the objects, a crowd among them, in turn."""
    for name in ("a.png", "b.png"):
        Image.fromarray(PIXELS).save(tmp_path / name)
    found = [
        {"id": i + 1, "image_id": 1 + i % 2, "category_id": 3, "bbox": [i, 1, 4, 5], "area": 20, "iscrowd": int(i == 5)}
        | ({} if each is None else {"attributes": each})
        for i, each in enumerate(attributes)
    ]
    images = [{"id": i, "file_name": name, "height": 12, "width": 20} for i, name in ((1, "a.png"), (2, "b.png"))]
    content = {"images": images, "annotations": found, "categories": [{"id": 3, "name": "cup"}]}
    (tmp_path / "file.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path / "file.json"


ATTRIBUTES = [
    {"colour": "red", "broken": True, "parts": ["lid"], "weight": 2.5, "maker": "x"},
    {"colour": "blue", "broken": False, "parts": []},
    None,
    {"colour": "red", "parts": ["lid", "handle"], "doors": 2},
    {"broken": False, "doors": 4},
    {"colour": "green"},
]


def test_the_attributes_of_a_coco_file(tmp_path):
    source, groups = crops.of_coco(coco(tmp_path, ATTRIBUTES))
    assert groups == {
        "broken": Group(("false", "true")),
        "colour": Group(("blue", "green", "red")),
        "doors": Group(("2", "4")),
        "parts": Group(("handle", "lid"), several=True),
    }
    assert source.length == 5  # not the crowd
    names = [source.name(i) for i in range(5)]
    assert names == ["a.png, object 1", "a.png, object 2", "a.png, object 3", "b.png, object 1", "b.png, object 2"]
    examples = dict(zip(names, source.read(np.arange(5)), strict=True))
    first, second = examples["a.png, object 1"], examples["b.png, object 1"]
    np.testing.assert_array_equal(first.image, crops.cut(PIXELS, (0, 1, 4, 6)))
    np.testing.assert_allclose(first.objects.attributes["place"], [[0, 1 / 12, 4 / 20, 6 / 12]], rtol=1e-6)
    told = {name: each.objects.attributes for name, each in examples.items()}
    assert [int(told[name]["colour"][0]) for name in names] == [2, -1, -1, 0, 2]
    assert [int(told[name]["broken"][0]) for name in names] == [1, -1, 0, 0, -1]
    assert told["b.png, object 1"]["parts"].tolist() == [[0, 0]]
    assert told["b.png, object 2"]["parts"].tolist() == [[1, 1]]
    assert told["a.png, object 2"]["parts"].tolist() == [[-1, -1]]
    assert second.label == 0
    assert source.labels().tolist() == [0] * 5


def test_values_that_the_first_file_does_not_have_are_unknown(tmp_path):
    known = {"colour": Group(("blue", "yellow")), "parts": Group(("lid",), several=True)}
    source, groups = crops.of_coco(coco(tmp_path, ATTRIBUTES), groups=known)
    assert groups == known
    found = [each.objects.attributes for each in source.read(np.arange(5))]
    assert [int(each["colour"][0]) for each in found] == [-1, -1, -1, 0, -1]
    assert [each["parts"][0].tolist() for each in found] == [[1], [-1], [-1], [0], [1]]
    parts = [{"parts": value} for value in (("knob",), ("knob", "lid"), (), "knob", "lid")]
    assert crops.numbered(parts, known)["parts"].tolist() == [[-1], [1], [0], [-1], [1]]


def test_a_file_without_attributes_and_free_texts_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"file.json: no annotation has attributes that can be learned"):
        crops.of_coco(coco(tmp_path, [None, {"weight": 2.5}, {"maker": "x"}]))
    many = [{"note": f"text {i}"} for i in range(crops.MOST + 1)]
    assert crops.groups_of(many) == {}
    assert len(crops.groups_of(many[1:])["note"].values) == crops.MOST


def test_targets_have_a_weight_where_they_are_known(tmp_path):
    source, groups = crops.of_coco(coco(tmp_path, ATTRIBUTES))
    stream = streams.evaluation(
        lambda: source, placer=stretch(8), batch_size=6, target=crops.attributes(groups), given=crops.PLACE
    )
    (batch,) = stream.batches(0)
    assert batch.valid.tolist() == [True] * 5 + [False]
    assert batch.target["colour"].label.tolist() == [2, 0, 0, 0, 2, 0]
    assert batch.target["colour"].weight.tolist() == [1, 0, 0, 1, 1, 0]
    assert batch.target["parts"].probs.tolist() == [[0, 1], [0, 0], [0, 0], [0, 0], [1, 1], [0, 0]]
    assert batch.target["parts"].weight.tolist() == [1, 0, 0, 1, 1, 0]
    np.testing.assert_allclose(batch.given[3], crops.place_of((1, 1, 5, 6), (12, 20)))
    assert batch.image.shape == (6, 8, 8, 3)
    assert stream.decode(PIXELS).given.tolist() == [[0, 0, 1, 1]]
    assert not stream.faults(range(5))


def test_crops_of_drawn_shapes_show_their_colours():
    groups = {name: Group(values) for name, values in synthetic.ATTRIBUTES.items()}
    source = crops.of_objects(synthetic.shapes(6, seed=1, overlap=0, classes=synthetic.SHAPES), groups)
    assert source.length == len(source.labels()) > 6
    for example in source.read(np.arange(source.length)[::-1]):
        found = {name: values.values[int(example.objects.attributes[name][0])] for name, values in groups.items()}
        if found["shape"] in ("circle", "square", "diamond", "cross"):
            middle = example.image[tuple(side // 2 for side in example.image.shape[:2])]
            assert np.abs(middle - np.asarray(synthetic.RGB[found["colour"]], float)).max() < 45


def test_sources_that_have_none_and_unreadable_images(tmp_path):
    plain = synthetic.shapes(2, seed=0)
    with pytest.raises(ValueError, match="the objects of the source have no attribute 'colours'"):
        crops.of_objects(plain, {"colours": Group(("a", "b"))})
    with pytest.raises(ValueError, match="crops are of objects, and the source has none"):
        crops.of_objects(plain._replace(objects=None), {})
    file = coco(tmp_path, ATTRIBUTES)
    source, groups = crops.of_coco(file)
    (tmp_path / "a.png").write_bytes(b"no image")
    stream = streams.training(
        lambda: source,
        **{"order": order.sequential(), "placer": stretch(8), "batch_size": 5, "on_bad_image": "skip"},
        **{"target": crops.attributes(groups), "given": crops.PLACE},
    )
    assert next(stream.batches(0)).valid.tolist() == [False] * 3 + [True] * 2
    assert annotations([], []).attributes is None
