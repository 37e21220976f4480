import json
import re

import numpy as np
import pytest
from data_encoding import encoded, smooth
from detection_files import CLASSES, OBJECTS, coco_content, name, write_coco
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as pycoco
from pycocotools.coco import COCO

from jaxvision.data import objects, samples
from jaxvision.formats import coco
from jaxvision.masks import runs


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("coco"))


def test_images_come_in_order_of_id_with_all_that_is_annotated(small):
    source = objects.coco(small, small.with_suffix(""))
    assert (source.length, source.classes) == (4, CLASSES)
    assert [source.name(index) for index in range(4)] == [name(index) for index in range(4)]
    for index, example in zip([2, 0, 3, 1], source.read(np.array([2, 0, 3, 1])), strict=True):
        assert example.image == (small.with_suffix("") / name(index)).read_bytes()
        assert example.label == -1
        found = example.objects
        np.testing.assert_array_equal(found.boxes, np.reshape([box for _, box, _ in OBJECTS[index]], (-1, 4)))
        assert found.labels.tolist() == [label for label, _, _ in OBJECTS[index]]
        assert found.ignore.tolist() == [ignore for _, _, ignore in OBJECTS[index]]
        areas = [0.5 * (x1 - x0) * (y1 - y0) for _, (x0, y0, x1, y1), _ in OBJECTS[index]]
        np.testing.assert_allclose(found.area, areas)
        assert (found.boxes.dtype, found.labels.dtype, found.ignore.dtype) == (np.float32, np.int32, bool)
    assert [len(each.labels) for each in source.objects()] == [2, 1, 0, 3]
    with pytest.raises(ValueError, match=r"small\.json has objects, no label for a whole image"):
        source.labels()


def test_categories_and_image_ids_lead_back_to_the_file(small):
    assert coco.categories(small) == ((3, 17, 90), CLASSES)
    assert coco.image_ids(small) == [10, 17, 24, 31]


def test_the_fingerprint_changes_with_annotations_and_images(tmp_path):
    path = write_coco(tmp_path)
    make = lambda: objects.coco(path, path.with_suffix("")).fingerprint
    first = make()
    assert make() == first
    content = coco_content()
    content["annotations"][0]["bbox"][0] += 1
    path.write_text(json.dumps(content))
    second = make()
    (path.with_suffix("") / name(2)).write_bytes(b"another")
    assert len({first, second, make()}) == 3


def test_what_real_files_hold_is_taken(tmp_path):
    content = coco_content()
    boxes = [[5, 5, 0, 7], [-3, -2, 10, 10], [50, 30, 40, 40.01], [5, 5, 0, 7], [0, 0, 1e-3, 1], [0, 0, 0, 0]]
    for annotation, box in zip(content["annotations"], boxes, strict=True):
        annotation.update(bbox=box, id=0)
        del annotation["area"], annotation["iscrowd"]
    content["images"][0]["file_name"] = f"deep/{name(3)}"
    del content["images"][1]["height"], content["images"][1]["width"]
    path = write_coco(tmp_path, content)
    (path.with_suffix("") / "deep").mkdir()
    (path.with_suffix("") / name(3)).rename(path.with_suffix("") / "deep" / name(3))
    source = objects.coco(path, path.with_suffix(""))
    assert source.name(3) == f"deep/{name(3)}"
    found = source.read(np.arange(4))
    np.testing.assert_allclose(found[0].objects.boxes, [[5, 5, 5, 12], [-3, -2, 7, 8]])
    assert not any(example.objects.ignore.any() for example in found)
    np.testing.assert_allclose(found[0].objects.area, [0, 100])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda c: c["annotations"][2].update(category_id=5),
            r"annotation 102: category_id is 5; allowed are 3 \(cat\), 17",
        ),
        (
            lambda c: c["annotations"][2].update(image_id=11),
            r"annotation 102: image_id is 11, and no image has this id",
        ),
        (lambda c: c["annotations"][2].update(image_id=[1]), r"annotation 102: image_id is \[1\]"),
        (
            lambda c: c["annotations"][2].update(bbox=[1, 2, 3]),
            r"annotation 102: bbox is \[1, 2, 3\]; allowed are four",
        ),
        (
            lambda c: c["annotations"][2].update(bbox=[1, 2, 3, float("nan")]),
            r"annotation 102: bbox is \[1, 2, 3, nan\]",
        ),
        (
            lambda c: c["annotations"][2].update(bbox=[1, 2, float("inf"), 1]),
            r"annotation 102: bbox is \[1, 2, inf, 1\]",
        ),
        (
            lambda c: c["annotations"][2].update(bbox=[1, 2, -3, 1]),
            r"bbox is \[1, 2, -3, 1\]; allowed .* no side below 0",
        ),
        (lambda c: c["annotations"][2].update(bbox="1234"), r"annotation 102: bbox is '1234'"),
        (lambda c: c["annotations"][2].update(bbox=["1", 2, 3, 4]), r"annotation 102: bbox is \['1', 2, 3, 4\]"),
        (lambda c: c["annotations"][2].pop("bbox"), r"annotation 102: bbox is None"),
        (lambda c: c["annotations"][2].update(iscrowd="no"), r"annotation 102: iscrowd is 'no'; allowed are 0 and 1"),
        (lambda c: c["annotations"][2].update(area=-1), r"annotation 102: area is -1; allowed"),
        (lambda c: c["annotations"].append(7), r"annotation number 6: is 7, no JSON object"),
        (lambda c: c["annotations"].append({"image_id": 1}), r"annotation number 6: image_id is 1"),
        (lambda c: c["images"][0].update(id=17), r"image 17: two images have this id: 003\.png, 001\.png"),
        (lambda c: c["images"].append(c["images"][0]), r"image 31: 003\.png is listed twice with this id"),
        (lambda c: c["images"][0].update(file_name=""), r"image 31: file_name is ''; allowed is the path of a file"),
        (lambda c: c["images"][0].update(file_name="a\0.png"), r"image 31: file_name is 'a\\x00\.png'; allowed is"),
        (lambda c: c["images"][0].update(file_name="\ud800"), r"image 31: file_name is '\\ud800'; allowed is"),
        (
            lambda c: c["images"][0].update(width=0),
            r"image 31: height is 32 and width 0; allowed are whole numbers above 0",
        ),
        (lambda c: c["images"][0].pop("file_name"), r"image number 0: .* needs a whole number `id` and a `file_name`"),
        (lambda c: c["categories"][0].update(id=3), r"category 3: two have this id: 'owl', 'cat'"),
        (
            lambda c: c["categories"].append({"id": "4", "name": "x"}),
            r"category number 3: .* needs a whole number `id`",
        ),
        (
            lambda c: c.pop("annotations"),
            r"it has no list 'annotations' \(needed are images, annotations, categories\)",
        ),
        (lambda c: c.update(images=[], annotations=[]), r"has no image$"),
    ],
)
def test_what_can_not_be_used_is_refused_with_file_id_and_value(tmp_path, change, match):
    content = coco_content()
    change(content)
    path = write_coco(tmp_path, content)
    with pytest.raises(ValueError, match=match) as raised:
        objects.coco(path, path.with_suffix(""))
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_no_json_and_missing_images_are_told(tmp_path, small):
    path = tmp_path / "x.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"x\.json is no JSON: Expecting"):
        objects.coco(path, tmp_path)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"x\.json is no JSON"):
        objects.coco(path, tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"image 10: there is no file .*{name(0)} \(4 of 4 are missing"):
        objects.coco(small, tmp_path)


def turned(height, width, orientation):
    """A JPEG of this stored size."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(smooth(height, width), "JPEG", exif=exif)


@pytest.mark.parametrize(
    ("data", "stated", "match"),
    [
        (encoded(smooth(64, 64)), (64, 65), r"001\.png is 65x64 here, and 64x64 in its file \(width x height\), so"),
        (encoded(smooth(64, 32)), (32, 64), r"is 64x32 here, and 32x64 in its file \(width x height\), so"),
        (turned(32, 64, 6), (32, 64), r"is 64x32 here, and 32x64 in .* height; turned by its EXIF orientation\), so"),
    ],
)
def test_an_image_of_another_size_than_stated_is_told(tmp_path, data, stated, match):
    content = coco_content()
    image = next(each for each in content["images"] if each["id"] == 17)
    image["height"], image["width"] = stated
    path = write_coco(tmp_path, content)
    (path.with_suffix("") / name(1)).write_bytes(data)
    source = objects.coco(path, path.with_suffix(""))
    assert [each.fault is None for each in source.read(np.arange(4))] == [True, False, True, True]
    assert re.search(rf"small\.json: image 17: .*{match} .* --repaired=OUT.json", source.read(np.array([1]))[0].fault)


def test_the_upright_size_is_what_is_stated(tmp_path):
    content = coco_content()
    content["images"] = [{"id": 17, "file_name": "turned.jpg", "height": 64, "width": 32}]
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] == 17]
    path = write_coco(tmp_path, content)
    (path.with_suffix("") / "turned.jpg").write_bytes(turned(32, 64, 8))
    source = objects.coco(path, path.with_suffix(""))
    assert len(source.read(np.array([0]))[0].objects.labels) == 1
    assert source.sizes().tolist() == [[64, 32]]


def with_masks(root, segmentations, height=40, width=60):
    content = coco_content()
    content["images"] = [{"id": 1, "file_name": name(0), "height": height, "width": width}]
    keys = {"image_id": 1, "category_id": 3, "bbox": [0, 0, 5, 5], "iscrowd": 0}
    content["annotations"] = [{**keys, "id": id, "segmentation": each} for id, each in enumerate(segmentations, 1)]
    path = root / "masks.json"
    path.write_text(json.dumps(content))
    return path


numbers = st.integers(-500, 6500).map(lambda value: value / 100)
polygon = st.lists(st.tuples(numbers, numbers), min_size=3, max_size=8).map(
    lambda points: [x for p in points for x in p]
)


def run_lengths(mask):
    """By hand: how many of the same there are in turn, column after column, from 0."""
    counts, value = [0], False
    for each in mask.ravel(order="F"):
        if each != value:
            counts.append(0)
            value = each
        counts[-1] += 1
    return counts


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools 2.0.11
@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(polygon, min_size=1, max_size=3), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_masks_of_polygons_and_run_lengths_are_those_of_pycocotools(tmp_path_factory, polygons, seed):
    root = tmp_path_factory.mktemp("masks")
    noise = np.random.default_rng(seed).random((40, 60)) < 0.3
    packed = pycoco.encode(np.asfortranarray(noise.astype(np.uint8)))
    compressed = {"size": [40, 60], "counts": packed["counts"].decode()}
    plain = {"size": [40, 60], "counts": run_lengths(noise)}
    path = with_masks(root, [*polygons, compressed, plain])
    write_image(root)
    masks = objects.coco(path, root, masks=True).read(np.array([0]))[0].objects.masks
    masks = [runs.decode(mask) for mask in masks]
    assert [mask.shape for mask in masks] == [(40, 60)] * (len(polygons) + 2)
    np.testing.assert_array_equal(masks[-2], noise)
    np.testing.assert_array_equal(masks[-1], noise)
    reference = COCO.__new__(COCO)
    reference.imgs = {1: {"height": 40, "width": 60}}
    for mask, segmentation in zip(masks, polygons, strict=False):
        expected = COCO.annToMask(reference, {"image_id": 1, "segmentation": segmentation})
        np.testing.assert_array_equal(mask, expected > 0)


def write_image(root):
    (root / name(0)).write_bytes(b"not read here")


@pytest.mark.parametrize(
    ("segmentation", "match"),
    [
        ([], r"segmentation is \[\]; allowed are polygons"),
        (None, r"segmentation is None"),
        ([[1, 2, 3, 4]], r"of three points or more"),
        ([[1, 2, 3, 4, 5, 6, 7]], r"allowed are polygons"),
        ([[1, 2, 3, 4, 5, float("nan")]], r"allowed are polygons"),
        ([[1, 2, 3, 4, 5, "6"]], r"allowed are polygons"),
        ([[1, 2, 3, 4, 5, [6, 7]]], r"allowed are polygons"),
        ([1, 2, 3, 4, 5, 6], r"allowed are polygons"),
        ({"size": [40, 60]}, r"allowed are polygons .* or run lengths"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, segmentation, match):
    path = with_masks(tmp_path, [[[0, 0, 9, 0, 9, 9]], segmentation])
    write_image(tmp_path)
    with pytest.raises(ValueError, match=rf"masks\.json: annotation 2: .*{match}"):
        objects.coco(path, tmp_path, masks=True)
    assert objects.coco(path, tmp_path).length == 1


@pytest.mark.parametrize(
    ("segmentation", "match"),
    [
        (
            {"size": [40, 60], "counts": [5, 90000]},
            r"counts are \[5, 90000\]; .* numbers from 0, 2,400 together",
        ),
        ({"size": [4, 6], "counts": [24]}, r"is of \[4, 6\] pixels, the image of \[40, 60\]"),
        ({"size": [40, 60], "counts": 3}, "counts"),
    ],
)
def test_run_lengths_that_do_not_fit_are_told_when_they_are_read(tmp_path, segmentation, match):
    path = with_masks(tmp_path, [segmentation])
    write_image(tmp_path)
    source = objects.coco(path, tmp_path, masks=True)
    with pytest.raises(ValueError, match=rf"masks\.json: annotation 1: segmentation.*{match}"):
        source.read(np.array([0]))


def test_masks_need_the_size_of_the_image(tmp_path):
    path = with_masks(tmp_path, [[[0, 0, 9, 0, 9, 9]]], height=None, width=None)
    write_image(tmp_path)
    with pytest.raises(ValueError, match=r"masks\.json: image 1: masks need its height and width"):
        objects.coco(path, tmp_path, masks=True)


@pytest.mark.parametrize(
    ("folder", "split", "images", "count", "empty"),
    [
        (samples.trees_dir(), "train", 72, 481, 12),
        (samples.trees_dir(), "test", 16, 244, 0),
        (samples.nuclei_dir(), "train", 12, 122, 0),
        (samples.nuclei_dir(), "test", 4, 32, 0),
    ],
)
def test_the_samples_hold_what_they_should(folder, split, images, count, empty):
    masks = folder == samples.nuclei_dir()
    source = objects.coco(folder / f"{split}.json", folder / split, masks=masks)
    found = source.read(np.arange(source.length))
    counts = [len(example.objects.labels) for example in found]
    assert (source.length, sum(counts), counts.count(0)) == (images, count, empty)
    assert [len(each.labels) for each in source.objects()] == counts
    if masks:
        for example in found:
            for mask, box, area in zip(example.objects.masks, example.objects.boxes, example.objects.area, strict=True):
                assert mask.size == (128, 128)
                mask = runs.decode(mask)
                rows, columns = np.nonzero(mask)
                assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert area == mask.sum()


@pytest.mark.parametrize(("written", "on_disk"), [("é.png", "e\u0301.png"), ("e\u0301.png", "é.png")])
def test_an_image_is_found_in_either_unicode_form_of_its_name(tmp_path, written, on_disk):
    Image.new("RGB", (4, 4)).save(tmp_path / on_disk)
    images = [{"id": 1, "file_name": written, "height": 4, "width": 4}]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    source = objects.coco(tmp_path / "a.json", tmp_path)
    assert source.read([0])[0].image == (tmp_path / on_disk).read_bytes()
    assert source.name(0) == written
