"""Keras' networks: every name is used once; live, in `parity`, its files give its logits here and ours give ours there."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util
from numpy.testing import assert_allclose, assert_array_equal
from parity_networks import shapes_of, spec_of

from jaxvision.nn import inception, resnet, vgg
from jaxvision.nn.head import Head, WithHead
from jaxvision.pretrained import keras as names
from jaxvision.pretrained import preprocessing
from jaxvision.pretrained.export import keras_file, named
from jaxvision.pretrained.files import read
from jaxvision.pretrained.strict import inside, load
from jaxvision.tasks.classification import classification
from jaxvision.types import Batch

GOLDEN = Path(__file__).parent / "golden"
NETWORKS = {
    "ResNet50": (resnet.keras_resnet50, names.resnet50_sources, (64, 75, 3)),
    "VGG16": (vgg.vgg16, names.vgg_sources, (224, 224, 3)),
    "VGG19": (vgg.vgg19, names.vgg_sources, (224, 224, 3)),
    "InceptionV3": (inception.keras_inception_v3, names.inception_v3_sources, (139, 150, 3)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_array_of_keras_is_used_once(name):
    """Against the names and shapes that Keras wrote."""
    factory, sources_of, _ = NETWORKS[name]
    listed = np.load(GOLDEN / "keras_names.npz")[name]
    shapes = shapes_of({"shapes": listed})
    spec = spec_of(factory(10), (1, 224, 224, 3))
    sources = sources_of(spec)
    assert sorted(source.name for source in sources.values()) == sorted(shapes)
    ours = {sources[path].name: leaf for path, leaf in traverse_util.flatten_dict(spec).items()}
    assert {each: leaf.shape for each, leaf in ours.items()} == shapes


def test_the_first_kernel_is_turned_for_rgb():
    kernel = np.arange(3 * 3 * 3 * 64.0).reshape(3, 3, 3, 64)
    spec = spec_of(vgg.vgg11(10, channels=(64, 8, 8, 8, 8)), (1, 32, 32, 3))
    source = names.vgg_sources(spec)["params", "backbone", "stage1_conv1", "kernel"]
    assert source.name == "block1_conv1/kernel"
    image = np.random.RandomState(0).standard_normal((3, 3, 3))
    expected = np.tensordot(image[..., ::-1], kernel, 3)
    assert_allclose(np.tensordot(image, source.convert(kernel), 3), expected)
    other = names.vgg_sources(spec)["params", "backbone", "stage2_conv1", "kernel"]
    assert_array_equal(other.convert(kernel), kernel)


@pytest.mark.parametrize(
    ("sources_of", "text"),
    [
        (names.resnet50_sources, "Keras' ResNet has no counterpart of 'neck'"),
        (names.vgg_sources, "Keras' VGG has no counterpart of 'neck'"),
        (names.inception_v3_sources, "Keras' Inception v3 has no counterpart of 'neck'"),
    ],
)
def test_a_module_that_keras_has_not_is_named(sources_of, text):
    with pytest.raises(ValueError, match=text):
        sources_of({"params": {"neck": {"kernel": np.zeros((1, 1, 2, 2))}}})


def test_a_new_head_on_inception():
    """The map of a part names all of it; the head is new, and Keras' own is left aside."""
    shapes = shapes_of({"shapes": np.load(GOLDEN / "keras_names.npz")["InceptionV3"]})
    theirs = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    fresh = spec_of(WithHead(inception.keras_inception_v3(None), Head(2)), (1, 75, 75, 3))
    sources = inside("backbone", names.inception_v3_sources)(fresh)
    loaded = load(sources, theirs, fresh, new=("head/.*",), unused=("predictions/.*",))
    assert sorted(loaded.report.new) == sorted(
        f"params/head/{n}/{p}" for n in ("dense", "logits") for p in ("bias", "kernel")
    )
    assert loaded.report.unused == ("predictions/bias", "predictions/kernel")
    assert loaded.report.numbers == 21_802_784


def small_sources(variables):
    del variables
    arrays = read(GOLDEN / "weights.h5")
    return {("params", *name.split("/")): names.Source(name, names.unchanged) for name in arrays}


@pytest.mark.parametrize("ending", [".h5", ".weights.h5"])
def test_a_file_is_written_as_keras_wrote_it(tmp_path, ending):
    like = GOLDEN / f"weights{ending}"
    arrays = {name: array + 1 for name, array in read(like).items()}
    nested = {"params": {}}
    for name, array in arrays.items():
        layer, part = name.split("/")
        nested["params"].setdefault(layer, {})[part] = array
    keras_file(small_sources, nested, tmp_path / f"ours{ending}", like)
    found = read(tmp_path / f"ours{ending}")
    assert sorted(found) == sorted(arrays)
    for name, array in arrays.items():
        assert_array_equal(found[name], array)
    assert [path.name for path in tmp_path.iterdir()] == [f"ours{ending}"]
    nested["params"]["predictions"]["bias"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"1 array of another shape; predictions/bias is \(2,\), here \(3,\)"):
        keras_file(small_sources, nested, tmp_path / f"other{ending}", like)
    with pytest.raises(ValueError, match="must end as"):
        keras_file(small_sources, nested, tmp_path / "other.hdf5", like)
    assert [path.name for path in tmp_path.iterdir()] == [f"ours{ending}"]


def random_like(weight, random):
    """Numbers that keep the activations of a deep network near 1."""
    normal = random.standard_normal(weight.shape)
    if len(weight.shape) > 1:
        return normal * np.sqrt(2 / np.prod(weight.shape[:-1]))
    if weight.name == "moving_variance":
        return np.exp(0.1 * normal)
    return 0.1 * normal + (1 if weight.name == "gamma" else 0)


def keras_model(name, side):
    os.environ["KERAS_BACKEND"] = "jax"
    keras = pytest.importorskip("keras", reason="needs keras: install the parity extra")
    factory = getattr(keras.applications, name)
    return factory(weights=None, classes=10, input_shape=side, classifier_activation=None)


def their_logits(model, name, images):
    """Of RGB images, prepared as `keras.applications` does it."""
    import keras

    module = {"ResNet50": "resnet50", "VGG16": "vgg16", "VGG19": "vgg19", "InceptionV3": "inception_v3"}[name]
    prepared = getattr(keras.applications, module).preprocess_input(images.astype(np.float32))
    with jax.numpy_rank_promotion("allow"):
        return np.asarray(jax.jit(lambda x: model(x, training=False))(prepared))


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "ending"),
    [
        *((name, ending) for name in ("ResNet50", "InceptionV3") for ending in (".h5", ".weights.h5")),
        *(("VGG16", ".weights.h5"), ("VGG19", ".h5")),
    ],
)
def test_round_trip_with_keras(tmp_path, name, ending):
    factory, sources_of, shape = NETWORKS[name]
    theirs, random = keras_model(name, shape), np.random.RandomState(0)
    theirs.set_weights([random_like(weight, random) for weight in theirs.weights])
    theirs_file, ours_file = tmp_path / f"theirs{ending}", tmp_path / f"ours{ending}"
    theirs.save_weights(theirs_file) if ending == ".weights.h5" else theirs.save(theirs_file)
    images = random.randint(256, size=(2, *shape)).astype(np.uint8)
    expected = their_logits(theirs, name, images)
    ours = factory(10)
    spec = spec_of(ours, (1, *shape))
    loaded = load(sources_of(spec), read(theirs_file), spec)
    assert loaded.report.numbers == theirs.count_params()
    error = np.abs(our_logits(ours, name, loaded.variables, images) - expected).max() / np.abs(expected).max()
    keras_file(sources_of, loaded.variables, ours_file, theirs_file)
    fresh = keras_model(name, shape)
    fresh.load_weights(ours_file)
    back = np.abs(their_logits(fresh, name, images) - expected).max() / np.abs(expected).max()
    print(f"{name}{ending}: {loaded.report.numbers:,} numbers, error {error:.1e}, and back {back:.1e}")
    assert error < 1e-4
    assert back < 1e-6
    for array, original in zip(fresh.get_weights(), theirs.get_weights(), strict=True):
        assert_array_equal(array, original)
    assert named(sources_of, loaded.variables).keys() == read(ours_file).keys()


def our_logits(network, name, variables, images):
    """Through the task, with the preprocessing that goes with the network; RGB."""
    values = preprocessing.INCEPTION if name == "InceptionV3" else preprocessing.CAFFE
    size = np.full((len(images), 2), images.shape[1:3], np.int32)
    batch = Batch(images, size, size, np.arange(len(images), dtype=np.int32), np.ones(len(images), bool))
    task = classification(network, mean=values.mean, std=values.std)
    return np.asarray(jax.jit(task.predict)(variables, batch).logits)
