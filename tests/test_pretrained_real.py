"""Real weights on real photographs, against a NumPy forward pass of the same files: python -m pytest -m network."""

import pickle

import numpy as np
import pytest
from parity_networks import filled, spec_of
from PIL import Image
from scipy.special import softmax

from jaxvision import run
from jaxvision.data import samples
from jaxvision.pretrained import published
from jaxvision.pretrained.files import read
from jaxvision.pretrained.start import start
from jaxvision.run import prediction

pytestmark = pytest.mark.network
PHOTOS = ("astronaut", "chelsea", "coffee", "grace_hopper", "rocket")


def pixels(name, resize, size, interpolation):
    """The centre of a photograph, `h w c`, uint8, as the networks' own code has it."""
    image = Image.open(samples.photos_dir() / f"{name}.jpg").convert("RGB")
    short = min(image.size)
    image = image.resize(tuple(int(resize * side / short) for side in image.size), interpolation)
    left, top = (round((side - size) / 2) for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def logits_of(published):
    """Ours, of all photographs, from the files."""
    model = run.load(published)
    canvases = [model.preprocessing((samples.photos_dir() / f"{name}.jpg").read_bytes()) for name in PHOTOS]
    batch = prediction.batch_of(canvases, prediction.with_rows(model.spec, len(PHOTOS)), 0)
    return model, np.asarray(model.apply(batch).logits)


def same(x, kernel, stride, value=0.0):
    """TensorFlow's "same" padding of `h w c`."""
    pads = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[:2]]
    return np.pad(x, [(p // 2, p - p // 2) for p in pads] + [(0, 0)], constant_values=value)


def windows(x, kernel, stride):
    """All shifts of `h w c` under a kernel: y, x, pixels."""
    height, width = ((n - kernel) // stride + 1 for n in x.shape[:2])
    for i in range(kernel):
        for j in range(kernel):
            yield i, j, x[i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride]


def convolved(x, weight, stride=1):
    """Of `h w i` with `o i h w`."""
    return sum(part @ weight[:, :, i, j].T for i, j, part in windows(x, weight.shape[2], stride))


def depthwise(x, weight, stride):
    return sum(part * weight[:, 0, i, j] for i, j, part in windows(x, weight.shape[2], stride))


def lite0(w, x):
    """EfficientNet-Lite0 of EfficientNet-PyTorch's names, on normalised RGB `h w c`."""

    def norm(x, name):
        mean, var, scale, bias = (w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return (x - mean) / np.sqrt(var + 1e-3) * scale + bias

    x = np.clip(norm(convolved(same(x, 3, 2), w["_conv_stem.weight"], 2), "_bn0"), 0, 6)
    strides = {1: 2, 3: 2, 5: 2, 11: 2}
    for number in range(16):
        block, shortcut, stride = f"_blocks.{number}.", x, strides.get(number, 1)
        if number:
            x = np.clip(norm(convolved(x, w[f"{block}_expand_conv.weight"]), f"{block}_bn0"), 0, 6)
        kernel = w[f"{block}_depthwise_conv.weight"]
        x = depthwise(same(x, kernel.shape[2], stride), kernel, stride)
        x = norm(convolved(np.clip(norm(x, f"{block}_bn1"), 0, 6), w[f"{block}_project_conv.weight"]), f"{block}_bn2")
        x = x + shortcut if x.shape == shortcut.shape else x
    x = np.clip(norm(convolved(x, w["_conv_head.weight"]), "_bn1"), 0, 6)
    return x.mean((0, 1)) @ w["_fc.weight"].T + w["_fc.bias"]


def squeezenet(w, x):
    """SqueezeNet 1.1 with kernels `h w i o`, on BGR less its mean; pooling rounds up, as Caffe's does."""

    def layer(x, name):
        kernel, bias = w[name]
        padding = 1 if kernel.shape[0] == 3 and name != "conv1" else 0
        x = np.pad(x, [(padding, padding)] * 2 + [(0, 0)])
        return np.maximum(convolved(x, kernel.transpose(3, 2, 0, 1), 2 if name == "conv1" else 1) + bias, 0)

    def pooled(x):
        over = [(n - 3) % 2 for n in x.shape[:2]]
        x = np.pad(x, [(0, over[0]), (0, over[1]), (0, 0)], constant_values=-np.inf)
        return np.max([part for _, _, part in windows(x, 3, 2)], axis=0)

    x = pooled(layer(x, "conv1"))
    for number in range(2, 10):
        x = pooled(x) if number in (4, 6) else x
        x = layer(x, f"fire{number}/squeeze1x1")
        x = np.concatenate([layer(x, f"fire{number}/expand{side}") for side in ("1x1", "3x3")], axis=-1)
    return layer(x, "conv10").mean((0, 1))


def best(logits, count=5):
    return np.argsort(-logits, axis=-1, kind="stable")[..., :count]


def compare(published, expected):
    """What ours finds on each photograph, best first, the probabilities known to be those of the reference."""
    model, ours = logits_of(published)
    error = np.abs(softmax(ours, -1) - softmax(expected, -1)).max()
    of_logits = np.abs(ours - expected).max() / np.abs(expected).max()
    print(f"largest difference {error:.1e} in a probability, {of_logits:.1e} of the largest logit")
    for photo, classes in zip(PHOTOS, best(ours), strict=True):
        print(f"  {photo}: {', '.join(f'{model.classes[i]} ({i})' for i in classes)}")
    assert error < 1e-3
    assert of_logits < 1e-4
    np.testing.assert_array_equal(best(ours), best(expected))
    return dict(zip(PHOTOS, best(ours), strict=True))


def test_efficientnet_lite0():
    weights = {name: array.astype(np.float64) for name, array in read(published.EFFICIENTNET_LITE0.file()).items()}
    prepared = (pixels(name, 256, 224, Image.Resampling.BICUBIC) for name in PHOTOS)
    expected = [lite0(weights, (each - 127.0) / 128.0) for each in prepared]
    found = compare(published.EFFICIENTNET_LITE0, np.stack(expected))
    assert all(281 <= i <= 285 for i in found["chelsea"][:3])
    assert (found["coffee"][0], found["rocket"][0]) == (967, 657)
    assert [published.EFFICIENTNET_LITE0.classes()[i] for i in (967, 657)] == ["espresso", "missile"]


def test_squeezenet1_1():
    with published.SQUEEZENET1_1.file().open("rb") as file:
        weights = pickle.load(file)
    prepared = (pixels(name, 256, 227, Image.Resampling.BILINEAR) for name in PHOTOS)
    expected = [squeezenet(weights, each[..., ::-1] - np.array([103.939, 116.779, 123.68])) for each in prepared]
    found = compare(published.SQUEEZENET1_1, np.stack(expected))
    assert {281, 282, 285} == set(found["chelsea"][:3])
    assert found["coffee"][0] == 967


def test_a_run_for_other_classes_starts_from_them(capsys):
    there = published.EFFICIENTNET_LITE0
    fresh = filled(spec_of(there.network(10), (1, 224, 224, 3)))
    found = start(there.sources, there.file, new=("head/.*",))(fresh)
    kernel = read(there.file())["_blocks.3._depthwise_conv.weight"]
    stem = found["params"]["backbone"]["stage3_block1"]["depthwise_conv"]["kernel"]
    np.testing.assert_array_equal(stem, kernel.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(found["params"]["head"]["kernel"], fresh["params"]["head"]["kernel"])
    assert "2 new: params/head/" in capsys.readouterr().out
