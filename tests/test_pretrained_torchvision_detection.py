"""Names of torchvision for SSD: the golden file lists them all; VGG16's own weights fill the backbone alone."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from parity_networks import shapes_of

from jaxvision.nn.vgg import vgg16
from jaxvision.pretrained import torchvision, torchvision_detection
from jaxvision.pretrained.strict import load
from jaxvision.tasks.ssd import ssd300_vgg16

GOLDEN = Path(__file__).parent / "golden" / "ssd300_vgg16.npz"


def spec_of(network, side):
    return jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, side, side, 3)), train=False))


def test_every_array_of_torchvisions_ssd_is_used_once():
    with np.load(GOLDEN) as golden:
        shapes = shapes_of(golden)
    spec = spec_of(ssd300_vgg16(6), 300)
    sources = torchvision_detection.ssd_sources(spec)
    loaded = load(sources, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, spec)
    assert loaded.report.numbers == sum(leaf.size for leaf in jax.tree.leaves(spec))


def test_the_weights_of_vgg16_fill_the_backbone():
    plain = spec_of(vgg16(10), 32)
    names = {
        source.name: np.full(_back(leaf.shape), number, np.float32)
        for number, (source, leaf) in enumerate(_pairs(torchvision.vgg_sources(plain), plain))
    }
    spec = spec_of(ssd300_vgg16(6), 300)
    patterns = ("features/(conv|extra|norm).*", "(classes|boxes).*")
    loaded = load(torchvision_detection.ssd_backbone_sources(spec), names, spec, new=patterns, unused=("classifier.*",))
    backbone = loaded.variables["params"]["features"]["backbone"]
    assert (np.asarray(backbone["stage4_conv3"]["kernel"]) == names["features.21.weight"].flat[0]).all()
    assert (np.asarray(backbone["stage5_conv1"]["bias"]) == names["features.24.bias"].flat[0]).all()


def _pairs(sources, spec):
    for path, source in sources.items():
        leaf = spec
        for part in path:
            leaf = leaf[part]
        yield source, leaf


def _back(shape):
    """Ours to torch's: `h w i o` to `o i h w`, `i o` to `o i`."""
    order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[len(shape)]
    return tuple(shape[axis] for axis in order)
