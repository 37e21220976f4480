import numpy as np
import pytest
from data_encoding import prepare_tfds, smooth, tfds_builder

from jaxvision.data import host_tensorflow, maps, tfds

SIZES = ((40, 60), (48, 32))
IMAGES = [smooth(*size, seed=number) for number, size in enumerate(SIZES)]
TRIMAPS = [
    np.random.default_rng(number).integers(1, 4, (*size, 1)).astype(np.uint8) for number, size in enumerate(SIZES)
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Datasets laid out as TFDS lays out Oxford-IIIT Pet and Cityscapes."""
    host_tensorflow.tensorflow()
    root = tmp_path_factory.mktemp("tfds")
    pets = lambda tfds: {
        "image": tfds.features.Image(encoding_format="png"),
        "label": tfds.features.ClassLabel(names=["a"]),
        "file_name": tfds.features.Text(),
        "segmentation_mask": tfds.features.Image(shape=(None, None, 1), use_colormap=True),
    }
    rows = [
        {"image": image, "label": 0, "file_name": f"{number}.jpg", "segmentation_mask": map}
        for number, (image, map) in enumerate(zip(IMAGES, TRIMAPS, strict=True))
    ]
    broken = [{**rows[0], "segmentation_mask": TRIMAPS[1]}, {**rows[1], "segmentation_mask": TRIMAPS[1] * 2}]
    prepare_tfds(root, "oxford_iiit_pet", "3.2.0", pets, {"train": rows, "test": broken})
    cityscapes = lambda tfds: {
        "image_id": tfds.features.Text(),
        "image_left": tfds.features.Image(shape=(40, 60, 3), encoding_format="png"),
        "segmentation_label": tfds.features.Image(shape=(40, 60, 1), encoding_format="png"),
    }
    ids = np.random.default_rng(0).integers(0, 34, (40, 60, 1)).astype(np.uint8)
    row = {"image_id": "aachen_1", "image_left": IMAGES[0], "segmentation_label": ids}
    from tensorflow_datasets.core import BuilderConfig

    builder = tfds_builder("cityscapes", "1.0.0", cityscapes, {"train": [row]})
    builder.BUILDER_CONFIGS = [BuilderConfig(name="semantic_segmentation", version="1.0.0", description="a test")]
    builder(config="semantic_segmentation", data_dir=root, file_format="array_record").download_and_prepare()
    return root


def test_the_border_of_a_trimap_has_no_class(data_dir):
    source = tfds.maps_source("oxford_iiit_pet", "train", maps.PETS, data_dir)
    assert (source.length, source.classes, source.maps) == (2, ("pet", "background"), True)
    for trimap, example in zip(TRIMAPS, source.read(np.arange(2)), strict=True):
        np.testing.assert_array_equal(example.map.valid, trimap[..., 0] != 3)
        np.testing.assert_array_equal(example.map.label[example.map.valid], trimap[trimap != 3] - 1)
    first, second = tfds.maps_source("oxford_iiit_pet", "test", maps.PETS, data_dir).read(np.arange(2))
    assert first.fault == "feature segmentation_mask is 32x48, and its image 60x40 (width x height)"
    assert "of value 4, 6, first at" in second.fault
    with pytest.raises(ValueError, match=r"no feature 'map' of type Image; it has file_name \(Text\), image \(Image\)"):
        tfds.maps_source("oxford_iiit_pet", "train", maps.PETS, data_dir, map="map")


def test_cityscapes_has_other_names(data_dir):
    source = tfds.maps_source(
        "cityscapes/semantic_segmentation",
        "train",
        maps.LABEL_IDS,
        data_dir,
        image="image_left",
        map="segmentation_label",
    )
    (example,) = source.read([0])
    assert source.classes == maps.CITYSCAPES_CLASSES
    assert example.map.label[example.map.valid].max() == 18
