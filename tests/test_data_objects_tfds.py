import numpy as np
import pytest
from data_encoding import image_and_label, prepare_tfds, smooth, tfds_builder
from detection_files import CLASSES, OBJECTS, SIZES, name

from jaxvision.data import host_tensorflow, tfds
from jaxvision.data.decode import decode
from jaxvision.data.placement import keep

IMAGES = [smooth(*size, seed=number) for number, size in enumerate(SIZES)]


def relative(number, box, first):
    """`ymin xmin ymax xmax`, as the builder of TFDS makes it; its VOC counts the first pixel as 1."""
    import tensorflow_datasets

    (height, width), (x0, y0, x1, y1) = SIZES[number], box
    return tensorflow_datasets.features.BBox((y0 + first) / height, (x0 + first) / width, y1 / height, x1 / width)


def rows(ignore, first, more=(), value=7):
    for number, image in enumerate(IMAGES):
        objects = [
            {"bbox": relative(number, box, first), "label": label, ignore: ignored, **dict.fromkeys(more, value)}
            for label, box, ignored in OBJECTS[number]
        ]
        yield {"image": image, "image/filename": name(number), "objects": objects}


def features(ignore, more=(), kind=np.int64):
    return lambda tfds: {
        "image": tfds.features.Image(encoding_format="png"),
        "image/filename": tfds.features.Text(),
        "objects": tfds.features.Sequence(
            {
                "bbox": tfds.features.BBoxFeature(),
                "label": tfds.features.ClassLabel(names=list(CLASSES)),
                ignore: np.bool_,
                **dict.fromkeys(more, kind),
            }
        ),
    }


def prepare(root, dataset, config, described, splits):
    """A dataset with a configuration."""
    from tensorflow_datasets.core import BuilderConfig

    builder = tfds_builder(dataset, "1.1.0", described, splits)
    builder.BUILDER_CONFIGS = [BuilderConfig(name=config, version="1.1.0", description="a test")]
    builder(config=config, data_dir=root, file_format="array_record").download_and_prepare()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Datasets laid out as TFDS lays out COCO and VOC."""
    host_tensorflow.tensorflow()
    root = tmp_path_factory.mktemp("tfds")
    more = ("area", "id")
    coco = {"train": list(rows("is_crowd", 0, more))}
    prepare(root, "coco", "2017", features("is_crowd", more), coco)
    floats = {"train": list(rows("is_crowd", 0, ["area"], 6.5))}
    prepare(root, "floats", "2017", features("is_crowd", ["area"], np.float32), floats)
    pairs = {"train": list(rows("is_crowd", 0, ["area"], (1.5, 2.5)))}
    two = lambda tfds: features("is_crowd", ["area"], tfds.features.Tensor(shape=(2,), dtype=np.float32))(tfds)
    prepare(root, "pairs", "2017", two, pairs)
    prepare(root, "voc", "2007", features("is_difficult"), {"train": list(rows("is_difficult", 1))})
    labelled = [{"image": IMAGES[0], "label": 1}]
    prepare_tfds(root, "labelled", "1.0.0", image_and_label(CLASSES), {"train": labelled})
    return root


@pytest.mark.parametrize(("dataset", "area"), [("coco/2017", 7), ("floats/2017", 6.5), ("voc/2007", None)])
def test_objects_come_in_pixels_of_their_image(data_dir, dataset, area):
    source = tfds.objects_source(dataset, "train", data_dir)
    assert (source.length, source.classes) == (4, CLASSES)
    wanted = [3, 0, 2, 1]
    for number, example in zip(wanted, source.read(np.array(wanted)), strict=True):
        found, expected = example.objects, OBJECTS[number]
        np.testing.assert_array_equal(
            decode(example.image, keep(64)).image[: SIZES[number][0], : SIZES[number][1]], IMAGES[number]
        )
        np.testing.assert_allclose(found.boxes, np.reshape([box for _, box, _ in expected], (-1, 4)), atol=1e-4)
        assert found.labels.tolist() == [label for label, _, _ in expected]
        assert found.ignore.tolist() == [ignore for _, _, ignore in expected]
        areas = [area or (x1 - x0) * (y1 - y0) for _, (x0, y0, x1, y1), _ in expected]
        np.testing.assert_allclose(found.area, areas, rtol=1e-4)
    assert [len(each.labels) for each in source.objects()] == [2, 1, 0, 3]
    assert source.name(2).endswith(f" train {name(2)}")
    with pytest.raises(ValueError, match="train has objects, no label"):
        source.labels()


def test_a_feature_that_has_not_a_value_for_each_box_is_named(data_dir):
    source = tfds.objects_source("pairs/2017", "train", data_dir)
    assert len(source.read(np.array([2]))[0].objects.labels) == 0
    with pytest.raises(
        ValueError, match=rf"{name(3)}: feature objects/area has 6 values, objects/bbox 3 boxes; allowed"
    ):
        source.read(np.array([3]))


def test_a_dataset_without_objects_names_what_it_has(data_dir):
    with pytest.raises(
        ValueError, match=r"'objects', a sequence of bbox .* it has image \(Image\), label \(ClassLabel\)"
    ):
        tfds.objects_source("labelled", "train", data_dir)
    with pytest.raises(ValueError, match=r"no feature 'picture' of type Image"):
        tfds.objects_source("coco/2017", "train", data_dir, image="picture")
    with pytest.raises(ValueError, match=r"it has image \(Image\), image/filename \(Text\), objects \(Sequence\)"):
        tfds.source("coco/2017", "train", data_dir)
