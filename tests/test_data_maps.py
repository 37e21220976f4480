import json
import re
import struct
import zlib

import jax
import numpy as np
import pytest
from data_encoding import encoded
from map_files import (
    CITY,
    REGIONS,
    SIZES,
    city_maps,
    image_bytes,
    palette_png,
    panoptic_content,
    put,
    regions,
    segment_id,
    write_cityscapes,
    write_map_folder,
    write_panoptic,
    write_voc_maps,
)
from PIL import Image
from pycocotools import mask as pycoco

from jaxvision.data import (
    content,
    maps,
    objects,
    order,
    placement,
    readers,
    resident,
    streams,
    subset,
    synthetic,
    target,
)
from jaxvision.data.source import ClassMap, Example, annotations, concatenate
from jaxvision.errors import DataError
from jaxvision.formats import check, class_maps, panoptic
from jaxvision.formats.voc import VOC_CLASSES
from jaxvision.masks import runs

ALL = np.arange(len(SIZES))


def assert_maps(source, numbers, expected):
    """Images come as bytes with the map of their number, `expected` of it: labels, 255 for none."""
    for number, example in zip(numbers, source.read(np.arange(len(numbers))), strict=True):
        assert (example.fault, example.image) == (None, image_bytes(number))
        wanted = expected(number)
        np.testing.assert_array_equal(example.map.valid, wanted != 255)
        np.testing.assert_array_equal(example.map.label[wanted != 255], wanted[wanted != 255])
        assert example.map.label.dtype == np.uint8


def assert_objects(found, number, labels, ignore=()):
    """The objects of an image: labels by class, masks and boxes of the regions."""
    wanted = REGIONS[number]
    assert found.labels.tolist() == [labels[label] for label, _, _ in wanted]
    assert found.boxes.tolist() == [list(box) for _, _, box in wanted]
    assert found.ignore.tolist() == [object in ignore for _, object, _ in wanted]
    assert len(found.masks) == len(wanted)
    for mask, area, (_, object, _) in zip(found.masks, found.area, wanted, strict=True):
        np.testing.assert_array_equal(mask, regions(number)[1] == object)
        assert area == mask.sum()


@pytest.mark.parametrize("png", [None, encoded])
def test_a_folder_of_masks_is_read_in_grey_and_as_indices_of_a_palette(tmp_path, png):
    root = write_map_folder(tmp_path, *([png] if png else []))
    source = maps.folder(root)
    assert (source.length, source.classes, source.maps) == (3, ("ground", "cat", "dog"), True)
    assert [source.name(index) for index in ALL] == [f"deep/{number:03d}.png" for number in ALL]
    assert_maps(source, ALL, lambda number: regions(number)[0])
    assert source.sizes().tolist() == [list(size) for size in SIZES]
    assert maps.folder(root, ("a", "b", "c")).classes == ("a", "b", "c")
    assert maps.folder(root, ("a", "b", "c")).fingerprint != source.fingerprint
    with pytest.raises(ValueError, match="deep.* has objects, no label|no label for a whole image"):
        source.labels()


def test_values_are_told_when_the_example_is_read(tmp_path):
    source = maps.folder(write_map_folder(tmp_path), ("ground", "cat"))
    first, second, third = source.read(ALL)
    at = r"000\.png: has 468 pixels of value 2, first at x 45, y 2; allowed are 0 to 1, 255$"
    assert re.search(at, first.fault)
    assert second.fault
    assert third.fault is None
    assert maps.folder(tmp_path, void=None).read(ALL)[0].fault.endswith("allowed are 0 to 2")
    with pytest.raises(ValueError, match="void is 1; allowed are None and 3 to 65535, for 0 to 2 are classes"):
        maps.folder(tmp_path, void=1)


def test_maps_of_16_bits_have_many_classes(tmp_path):
    put(tmp_path / "images" / "a.png", image_bytes(0))
    wide = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60)
    put(tmp_path / "masks" / "a.png", encoded(wide))
    source = maps.folder(tmp_path, [str(k) for k in range(2400)], void=65535)
    (example,) = source.read([0])
    np.testing.assert_array_equal(example.map.label, wide)
    assert example.map.label.dtype == np.uint16
    assert example.map.valid.all()


def test_maps_of_one_bit_have_two_classes(tmp_path):
    put(tmp_path / "images" / "a.png", image_bytes(0))
    on = regions(0)[0] == 1
    put(tmp_path / "masks" / "a.png", encoded(Image.fromarray(on)))
    (example,) = maps.folder(tmp_path, ("no", "yes")).read([0])
    np.testing.assert_array_equal(example.map.label, on.astype(np.uint8))


def test_a_full_fingerprint_covers_maps_and_masks(tmp_path):
    year = write_voc_maps(tmp_path)

    def fingerprints():
        found = maps.voc(year, "train", objects=True), maps.voc(year, "train")
        return [content.fingerprinted(each, "full").fingerprint for each in found]

    before = fingerprints()
    file = year / "SegmentationObject" / "000.png"
    labels, numbers = regions(0)
    put(file, palette_png(np.where(numbers == 1, 2, np.where(numbers == 2, 1, numbers)).astype(np.uint8)))
    after = fingerprints()
    assert after[0] != before[0]
    assert after[1] == before[1]
    put(year / "SegmentationClass" / "000.png", palette_png(np.where(labels == 2, 3, labels).astype(np.uint8)))
    assert fingerprints()[1] != before[1]


def test_a_folder_names_what_it_lacks(tmp_path):
    root = write_map_folder(tmp_path)
    (root / "masks/deep/001.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"001\.png: there is no map .*masks/deep/001\.png \(1 of 3 are missing"
    ):
        maps.folder(root)
    (root / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"no classes\.txt: name the classes"):
        maps.folder(root)
    with pytest.raises(FileNotFoundError, match="no folder .*images"):
        maps.folder(root / "images")


def test_voc_has_maps_and_its_objects_have_masks(tmp_path):
    write_voc_maps(tmp_path)
    source = maps.voc(tmp_path, "train")
    assert source.classes == ("background", *VOC_CLASSES)
    assert_maps(source, [2, 0, 1], lambda number: regions(number)[0])
    assert source.objects is None
    assert source.read([1])[0].objects is None
    source = maps.voc(tmp_path, "train", objects=True)
    for number, example in zip([2, 0, 1], source.read(ALL), strict=True):
        assert_objects(example.objects, number, {1: 1, 2: 2})
    assert [len(each.labels) for each in source.objects()] == [0, 3, 1]
    assert all(each.masks is None for each in source.objects())
    alone = maps.things(source, VOC_CLASSES)
    assert alone.classes == VOC_CLASSES
    assert_objects(alone.read([1])[0].objects, 0, {1: 0, 2: 1})
    assert (alone.read([1])[0].map, alone.maps) == (None, False)
    bicycles = maps.things(source, ("bicycle",))
    assert bicycles.objects()[1].labels.tolist() == [0]
    np.testing.assert_array_equal(bicycles.read([1])[0].objects.masks[0], regions(0)[1] == 3)
    with pytest.raises(ValueError, match="no class 'bicicle'; did you mean 'bicycle'"):
        maps.things(source, ("bicicle",))
    with pytest.raises(ValueError, match="no objects, only maps of classes"):
        maps.things(maps.voc(tmp_path, "val"), VOC_CLASSES)
    with pytest.raises(FileNotFoundError, match=r"no split 'tain'.*did you mean 'train'"):
        maps.voc(tmp_path, "tain")


@pytest.mark.parametrize("ids", ["labelIds", "labelTrainIds"])
def test_cityscapes_has_the_classes_that_are_evaluated(tmp_path, ids):
    source = maps.cityscapes(write_cityscapes(tmp_path), "train", objects=True, ids=ids)
    assert len(source.classes) == 19
    numbers = [0, 2, 1]  # by city
    assert_maps(source, numbers, lambda number: city_maps(number)[1])
    for number, example in zip(numbers, source.read(ALL), strict=True):
        classes = {label: {26: "car", 24: "person"}.get(id) for label, id in CITY.items()}
        labels = {label: source.classes.index(name) for label, name in classes.items() if name}
        found = example.objects
        at = np.lexsort((found.boxes[:, 0], -found.labels))
        ordered = found._replace(
            **{name: getattr(found, name)[at] for name in ("boxes", "labels", "ignore", "area")},
            masks=[found.masks[place] for place in at],
        )
        assert_objects(ordered, number, labels, ignore=(2,) if number == 0 else ())
    assert maps.cityscapes(tmp_path, "train").objects is None
    with pytest.raises(ValueError, match="ids is 'color'"):
        maps.cityscapes(tmp_path, "train", ids="color")
    with pytest.raises(FileNotFoundError, match=r"leftImg8bit/val; there are: train"):
        maps.cityscapes(tmp_path, "val")


def test_cityscapes_ids_are_those_of_its_own_table():
    names = {7: "road", 8: "sidewalk", 11: "building", 17: "pole", 23: "sky", 24: "person", 26: "car", 33: "bicycle"}
    from jaxvision.formats import maps as formats

    for id, name in names.items():
        assert formats.CITYSCAPES_CLASSES[formats.LABEL_IDS.labels[id]] == name
    assert [id for id, label in formats.LABEL_IDS.labels.items() if label is None] == [
        *(0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 255)
    ]


def test_panoptic_segments_are_objects_and_a_map(tmp_path):
    path = write_panoptic(tmp_path)
    source = maps.panoptic(path)
    assert source.classes == ("cat", "dog", "grass")
    assert panoptic.categories(path).things == (True, True, False)
    by_class = np.asarray([2, 0, 1] + [255] * 253, np.uint8)
    assert_maps(source, ALL, lambda number: by_class[regions(number)[0]])
    for number, example in enumerate(source.read(ALL)):
        found = example.objects
        assert found.labels.tolist() == [2, *(by_class[label] for label, _, _ in REGIONS[number])]
        np.testing.assert_array_equal(found.masks[0], regions(number)[0] == 0)
        for place, (_, object, box) in enumerate(REGIONS[number], start=1):
            np.testing.assert_array_equal(found.masks[place], regions(number)[1] == object)
            assert found.boxes[place].tolist() == list(box)
            assert found.ignore[place] == ((number, object) == (0, 2))
    assert [len(each.labels) for each in source.objects()] == [4, 2, 1]
    elsewhere = maps.panoptic(path, tmp_path / "val2017", path.with_suffix(""))
    assert elsewhere.fingerprint == source.fingerprint


def test_ids_that_only_one_side_knows_are_a_fault_of_the_example(tmp_path):
    content = panoptic_content()
    gone = next(each for each in content["annotations"] if each["image_id"] == 10)["segments_info"].pop(1)
    other = next(each for each in content["annotations"] if each["image_id"] == 17)
    other["segments_info"].append({**gone, "id": 5})
    source = maps.panoptic(write_panoptic(tmp_path, content))
    first, second, third = source.read(ALL)
    assert re.search(
        rf"panoptic_val2017\.json: image 10: .*000\.png has pixels of id {segment_id(0, 1)}, which segments_info",
        first.fault,
    )
    assert "image 17: " in second.fault
    assert second.fault.endswith("has no pixel of id 5, of which segments_info speaks")
    assert third.fault is None
    stream = streams.evaluation(
        lambda: source, placer=placement.keep(64), batch_size=3, target=target.class_map(), on_bad_image="skip"
    )
    batch = next(stream.batches(0))
    assert batch.valid.tolist() == [False, False, True]
    assert not batch.target.valid[:2].any()


def test_another_size_is_told_and_a_transposed_one_is_called_so(tmp_path):
    root = write_map_folder(tmp_path)
    put(root / "masks/deep/000.png", encoded(np.zeros((60, 40), np.uint8)))
    put(root / "masks/deep/001.png", encoded(np.zeros((47, 32), np.uint8)))
    first, second, _ = maps.folder(root).read(ALL)
    assert first.fault.endswith("000.png: is 40x60, and its image 60x40 (width x height): it is transposed")
    assert second.fault.endswith("001.png: is 32x47, and its image 32x48 (width x height)")


def test_maps_are_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    put(tmp_path / "images" / "a.jpg", encoded(np.zeros((40, 60, 3), np.uint8), "JPEG", exif=exif))
    for shape, fault in (
        ((60, 40), None),
        ((40, 60), "is 60x40, and its image 40x60 (width x height): it is transposed"),
    ):
        put(tmp_path / "masks" / "a.png", encoded(np.zeros(shape, np.uint8)))
        (example,) = maps.folder(tmp_path, ("a",)).read([0])
        assert (example.fault or "").endswith(fault or "")
        assert (example.map is None) == (fault is not None)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools 2.0.11
def test_objects_make_a_map_and_pixels_of_several_have_no_class(tmp_path):
    image = Image.new("RGB", (60, 40))
    image.save(tmp_path / "a.png")
    squares = [[[2, 2, 20, 2, 20, 20, 2, 20]], [[15, 15, 30, 15, 30, 30, 15, 30]], [[40, 5, 50, 5, 50, 9, 40, 9]]]
    keys = {"image_id": 1, "iscrowd": 0, "bbox": [0, 0, 5, 5]}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}],
        "annotations": [
            {**keys, "id": id, "category_id": category, "segmentation": each}
            for id, (category, each) in enumerate(zip((5, 9, 9), squares, strict=True), start=1)
        ],
        "categories": [{"id": 5, "name": "cat"}, {"id": 9, "name": "dog"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    source = maps.from_objects(objects.coco(tmp_path / "a.json", tmp_path, masks=True))
    assert source.classes == ("background", "cat", "dog")
    (example,) = source.read([0])
    masks = np.stack([pycoco.decode(pycoco.merge(pycoco.frPyObjects(each, 40, 60))) for each in squares])
    expected = (masks * np.asarray([1, 2, 2])[:, None, None]).max(0)  # as torchvision's conversion has it
    expected[masks.sum(0) > 1] = 255
    np.testing.assert_array_equal(np.where(example.map.valid, example.map.label, 255), expected)
    assert (example.objects.labels.tolist(), source.objects()[0].labels.tolist()) == ([1, 2, 2], [1, 2, 2])
    with pytest.raises(ValueError, match="no masks of its objects, only boxes"):
        maps.from_objects(objects.coco(tmp_path / "a.json", tmp_path)).read([0])
    with pytest.raises(ValueError, match="background='cat' is a class already"):
        maps.from_objects(source, "cat")


def test_shapes_have_a_map():
    plain = synthetic.shapes(4, seed=1, size=64)
    source = maps.from_objects(plain)
    assert source.classes == ("background", "circle", "square", "triangle")
    for before, example in zip(plain.read(np.arange(4)), source.read(np.arange(4)), strict=True):
        expected = sum(
            mask * (label + 1) for mask, label in zip(before.objects.masks, before.objects.labels, strict=True)
        )
        np.testing.assert_array_equal(example.map.label, expected)
        assert example.map.valid.all()


def test_parts_of_a_source_keep_its_maps(tmp_path):
    source = maps.folder(write_map_folder(tmp_path))
    rest, out = subset.held_out(source, 0.34, seed=0)
    assert (rest.length, out.length, rest.maps, out.maps) == (2, 1, True, True)
    both = concatenate(rest, out)
    assert both.maps
    assert both.read([2])[0].map is not None
    with pytest.raises(ValueError, match="imbalanced: the source has maps"):
        subset.imbalanced(source, [1, 1, 1], seed=0)


PLACERS = {
    "keep": placement.keep((64, 64)),
    "stretch": placement.stretch((48, 64)),
    "fit": placement.letterbox((48, 64)),
    "half": placement.letterbox((20, 30)),
    "padded": placement.letterbox((48, 64), fill=127, centred=True),
    "random crop": placement.random_resized_crop(32, area=(0.2, 1.0)),
    "jitter": placement.large_scale_jitter(48, (0.5, 2.0)),
    "centre crop": placement.resize_and_centre_crop(40, 32),
}


def between_no_pixels(where, canvas):
    """Pixels of the canvas whose centre lies on no border of two pixels of the image: there PIL takes either."""
    at = [
        low + (np.arange(count) + 0.5) * (high - low) / count
        for low, high, count in (
            (where.box[1], where.box[3], where.size[0]),
            (where.box[0], where.box[2], where.size[1]),
        )
    ]
    rows, columns = (np.abs(each - np.round(each)) > 1e-9 for each in at)
    sure = np.ones(canvas, bool)
    sure[where.spot] = (rows[:, None] & columns[None])[where.kept]
    return sure


@pytest.mark.parametrize("name", sorted(PLACERS))
def test_a_map_goes_to_the_canvas_as_pil_resizes_to_the_nearest(name):
    rng = np.random.default_rng(0)
    for seed in range(8):
        size = tuple(rng.integers(20, 60, 2).tolist())
        label, valid = rng.integers(0, 200, size).astype(np.uint8), rng.random(size) < 0.9
        placer = PLACERS[name]
        where = placer.place(np.random.default_rng(seed), size)
        form = target.class_map()
        batch = form.empty(2, placer.canvas)
        assert form.fill(batch, 1, Example(b"", map=ClassMap(label, valid)), where) is None
        shown = [
            np.asarray(Image.fromarray(each).resize(where.size[::-1], Image.Resampling.NEAREST, box=where.box))[
                where.kept
            ]
            for each in (label, valid.astype(np.uint8))
        ]
        wanted = np.zeros(placer.canvas, np.int32), np.zeros(placer.canvas, bool)
        wanted[0][where.spot], wanted[1][where.spot] = np.where(shown[1], shown[0], 0), shown[1]
        sure = between_no_pixels(where, placer.canvas)
        assert sure.any()
        np.testing.assert_array_equal(batch.label[1][sure], wanted[0][sure])
        np.testing.assert_array_equal(batch.valid[1][sure], wanted[1][sure])
        assert not batch.valid[0].any()


def test_what_has_no_map_is_refused():
    form, where = target.class_map(), placement.keep(4).place(None, (4, 4))
    with pytest.raises(ValueError, match="no map of classes"):
        form.fill(form.empty(1, (4, 4)), 0, Example(b"", objects=annotations([], [])), where)
    small = Example(b"", map=ClassMap(np.zeros((3, 4), np.uint8), np.ones((3, 4), bool)))
    with pytest.raises(ValueError, match="the map of classes is 3 x 4 pixels"):
        form.fill(form.empty(1, (4, 4)), 0, small, where)


def test_every_reader_gives_the_same_maps(tmp_path):
    root = write_map_folder(tmp_path)
    options = {"order": order.shuffled(3), "batch_size": 4, "target": target.class_map(), "placer": placement.keep(64)}
    readings = [
        streams.training(lambda: maps.folder(root), reader=each, **options)
        for each in (readers.threads(2), readers.tf_data(2), resident.reader())
    ]
    first, *others = (jax.tree.map(np.asarray, next(each.batches(1))) for each in readings)
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, first, other)
    assert readings[0].spec.target.label.shape == (4, 64, 64)
    assert readings[0].about().counts is None
    del options["order"]
    batch = next(streams.evaluation(lambda: maps.folder(root), **options).batches(0))
    assert batch.target.valid.any((1, 2)).tolist() == [True, True, True, False]


def test_masks_of_run_lengths_and_segments_are_placed_alike(tmp_path):
    source = maps.panoptic(write_panoptic(tmp_path))
    (example,) = source.read([0])
    encoded_masks = example.objects._replace(masks=[runs.encode(mask) for mask in example.objects.masks])
    form = target.objects(6, masks="bits")
    rows = []
    for found in (example.objects, encoded_masks):
        batch = form.empty(1, (30, 40))
        form.fill(batch, 0, Example(b"", objects=found), placement.letterbox((30, 40)).place(None, SIZES[0]))
        rows.append(batch)
    jax.tree.map(np.testing.assert_array_equal, *rows)
    assert rows[0].masks.bits.any()


def black_and_white(root, values):
    for number, value in enumerate(values):
        put(root / "images" / f"{number}.png", image_bytes(number))
        inside = np.zeros(SIZES[number], np.uint8)
        inside[2:9, 3:8] = value
        put(root / "masks" / f"{number}.png", encoded(inside))
    return root


def test_masks_in_black_and_white_are_doubted_and_read_where_their_values_are_given(tmp_path, capfd):
    root, classes = black_and_white(tmp_path, (255, 255)), ("background", "cell")
    (doubt,) = maps.folder(root, classes).doubts
    assert "none of the maps has a class but the first, and" in doubt
    assert check.main([str(root), "--classes=background,cell"]) == 1
    assert "values={0: 0, 255: 1} says that 255 is the second class" in capfd.readouterr().out
    source = maps.folder(root, classes, values={0: 0, 255: 1})
    assert source.doubts == ()
    (example,) = source.read([0])
    assert (int(example.map.label.sum()), example.map.valid.all()) == (35, True)
    assert check.main([str(root), "--classes=background,cell", "--values=0:0,255:1"]) == 0
    assert maps.folder(black_and_white(tmp_path / "sound", (1, 255)), classes).doubts == ()


def test_values_that_can_not_be_are_refused(tmp_path):
    root = black_and_white(tmp_path, (255,))
    with pytest.raises(
        ValueError, match=r"values has 255: 2; allowed are values from 0 to 65535, and of each None or a"
    ):
        maps.folder(root, ("background", "cell"), values={0: 0, 255: 2})


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_maps_of_few_bits_keep_their_numbers(tmp_path, depth):
    """Written by hand: PIL writes grey PNGs of 8 bits."""
    labels = np.arange(2**depth, dtype=np.uint8).repeat(8).reshape(2**depth, 8)
    rows = np.packbits(np.unpackbits(labels[..., None], axis=-1)[..., 8 - depth :].reshape(len(labels), -1), axis=-1)
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", 8, len(labels), depth, 0, 0, 0, 0)
    lines = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(class_maps.values(png, labels.shape), labels)
