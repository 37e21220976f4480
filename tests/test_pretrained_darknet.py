"""Darknet's files, written here as its code writes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from jaxvision.nn.darknet import Darknet53, DarknetTiny
from jaxvision.pretrained import darknet
from jaxvision.pretrained.files import read
from jaxvision.pretrained.strict import load
from jaxvision.tasks.yolo import YOLOv3, YOLOv3Tiny, yolov3, yolov3_tiny

CFG = """
[net]
channels=3   # colours
height=32

[convolutional]
batch_normalize=1
filters=4
size=3
activation=leaky

[maxpool]
size=2

[convolutional]
filters=5
size=1

[route]
layers = -1, 0

[convolutional]
batch_normalize=1
filters=2
size=3

[yolo]
mask=0
"""
SHAPES = {
    "conv0.biases": (4,),
    "conv0.scales": (4,),
    "conv0.rolling_mean": (4,),
    "conv0.rolling_variance": (4,),
    "conv0.weights": (4, 3, 3, 3),
    "conv1.biases": (5,),
    "conv1.weights": (5, 4, 1, 1),
    "conv2.biases": (2,),
    "conv2.scales": (2,),
    "conv2.rolling_mean": (2,),
    "conv2.rolling_variance": (2,),
    "conv2.weights": (2, 9, 3, 3),
}


def write(folder, cfg=CFG, shapes=SHAPES, version=(0, 2, 0), more=b""):
    """A `.cfg` and a `.weights` file of ascending numbers; their path and the numbers."""
    numbers = np.arange(sum(int(np.prod(shape)) for shape in shapes.values()), dtype="<f4")
    seen = np.int64(77).tobytes() if version[0] * 10 + version[1] >= 2 else np.int32(77).tobytes()
    (folder / "net.cfg").write_text(cfg)
    path = folder / "net.weights"
    path.write_bytes(np.asarray(version, "<i4").tobytes() + seen + numbers.tobytes() + more)
    return path, numbers


@pytest.mark.parametrize("version", [(0, 2, 0), (0, 1, 0), (1, 0, 5)])
def test_arrays_come_in_the_order_of_the_file(tmp_path, version):
    path, numbers = write(tmp_path, version=version)
    arrays = read(path)
    assert {name: array.shape for name, array in arrays.items()} == SHAPES
    assert_array_equal(np.concatenate([arrays[name].ravel() for name in SHAPES]), numbers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"more": b"1234"}, r"holds 350\.0 numbers; its \.cfg file describes 349|numbers; its \.cfg"),
        ({"cfg": CFG.replace("[maxpool]", "[lstm]")}, r"\[lstm\], section 2 of the \.cfg file, is not known"),
        ({"cfg": CFG.replace("filters=5", "filters=many")}, r"has filters='many'; allowed is a whole number"),
        ({"cfg": CFG.replace("-1, 0", "-1, 9")}, r"\[route\], section 4 of the \.cfg file, names layer 9"),
        (
            {"cfg": CFG.replace("-1, 0", "-1,")},
            r"\[route\] of the \.cfg file has layers='-1,'; allowed are whole numbers",
        ),
        ({"cfg": CFG.replace("layers = -1, 0", "")}, r"\[route\] of the \.cfg file has layers=''"),
        ({"cfg": CFG.replace("filters=5", "Filters=5")}, r"has filters=''; allowed is a whole number"),
        ({"cfg": CFG.replace("filters=5", "filters=5\ngroups=5")}, r"\[convolutional\], section 3 of .* has groups"),
        ({"cfg": "weights"}, "line 1: 'weights' is neither"),
        ({"cfg": "[convolutional]"}, r"must begin with \[net\]"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, message):
    path, _ = write(tmp_path, **change)
    with pytest.raises(ValueError, match=message):
        read(path)


def test_a_cfg_may_begin_with_a_byte_order_mark(tmp_path):
    write(tmp_path, cfg="\ufeff" + CFG.strip())
    assert read(tmp_path / "net.weights").keys() == SHAPES.keys()


def test_a_file_cut_off_or_alone_is_refused(tmp_path):
    path, _ = write(tmp_path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"net\.weights holds [\d.,]+ numbers; its \.cfg file describes"):
        read(path)
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="it has 5 bytes"):
        read(path)
    (tmp_path / "net.cfg").unlink()
    with pytest.raises(ValueError, match=r"needs its \.cfg: there is no .*net\.cfg"):
        read(path)


def cfg_of(layers):
    """Sections for a list of (filters, size, normalised), or the text of another section."""
    sections = ["[net]\nchannels=3"]
    for layer in layers:
        if isinstance(layer, str):
            sections.append(layer)
        else:
            sections.append(f"[convolutional]\nfilters={layer[0]}\nsize={layer[1]}\nbatch_normalize={int(layer[2])}")
    return "\n".join(sections)


TINY = [
    *((4 * 2**i, 3, True) for i in range(7)),
    *((64, 1, True), (128, 3, True), (16, 1, False), "[yolo]", "[route]\nlayers=-4", (32, 1, True)),
    *("[upsample]", "[route]\nlayers=-1, 4", (64, 3, True), (16, 1, False), "[yolo]"),
]
"""YOLOv3-tiny a quarter as wide, for 3 classes and 2 priors; without its pooling, of which no channel knows."""


def test_the_network_takes_every_number_of_its_file(tmp_path):
    arrays = darknet._shapes(darknet.convolutions(darknet.read_cfg(_cfg(tmp_path, cfg_of(TINY)))))
    network = YOLOv3Tiny(DarknetTiny(4), 3, 2)
    spec = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))
    given = {name: np.full(shape, i, np.float32) for i, (name, shape) in enumerate(arrays.items())}
    loaded = load(darknet.sources(spec), given, spec)
    assert loaded.report.numbers == sum(array.size for array in given.values())
    kernel = loaded.variables["params"]["conv11"]["conv"]["kernel"]
    assert (kernel == list(given).index("conv11.weights")).all()


def _cfg(folder, text):
    path = folder / "net.cfg"
    path.write_text(text)
    return path


def test_published_numbers_of_parameters():
    for make, numbers in ((yolov3, 62_001_757), (yolov3_tiny, 8_858_734)):
        spec = jax.eval_shape(
            lambda make=make: make(80).init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False)
        )
        # yolov3.weights has 248,007,048 bytes, 20 of them before the numbers; yolov3-tiny.weights has 35,434,956.
        assert sum(leaf.size for leaf in jax.tree.leaves(spec)) == numbers


def test_maps_have_their_strides():
    network = YOLOv3(Darknet53((1, 1, 1, 1, 1), 2), 3)
    images = jax.ShapeDtypeStruct((2, 64, 96, 3), np.float32)
    outputs, _ = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=False), images)
    assert [x.shape for x in outputs] == [(2, 2, 3, 3, 8), (2, 4, 6, 3, 8), (2, 8, 12, 3, 8)]
