"""Corruptions: equal to the published code, on grey and small images, and what is refused."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from corruption_draws import NAMES as PHOTOS
from corruption_draws import LegacyDraws, ice, places, seed_of, shown
from PIL import Image

from jaxvision.errors import ConfigError, DataError
from jaxvision.trust import corruptions
from jaxvision.trust import frost as frost_module
from jaxvision.trust.corruption import Corruption
from jaxvision.trust.corruptions import COMMON, NAMES, choose, corrupt, family_of

with np.load(Path(__file__).parent / "golden/corruptions.npz") as golden:
    GOLDEN = dict(golden)
"""Some pixels of each picture, by golden/make_corruptions.py: imagecorruptions-imaug 1.1.5 and hendrycks/robustness."""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of made photographs of ice in the place of those that we may not keep."""
    folder, digests = tmp_path_factory.mktemp("ice"), {}
    for number, name in enumerate(frost_module.SHA256, 1):
        path = folder / name
        Image.fromarray(ice(number)).save(path, "PNG")
        digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frost_module, "SHA256", digests)
        yield folder
        frost_module._photographs.cache_clear()


def agree(size, name, photographs, family):
    """Checks that the kept pixels of all severities and photographs are within one grey level."""
    found = []
    for severity in corruptions.SEVERITIES:
        chosen = choose(name, severity, family, photographs)
        for photo in PHOTOS:
            image, seed = shown(photo, size), seed_of(name, severity)
            draws = np.random.default_rng(seed) if name == "impulse_noise" else LegacyDraws(seed)
            pixels = corrupt(image, chosen, draws)
            assert pixels.shape == image.shape
            found.append(pixels.reshape(-1, 3)[places(size, GOLDEN[f"{size}/{name}"].shape[2], image.shape)])
    wanted = GOLDEN[f"{size}/{name}"]
    difference = np.abs(np.reshape(found, wanted.shape).astype(int) - wanted)
    assert difference.max() <= 1, difference.max((1, 2, 3))


@pytest.mark.parametrize("name", NAMES)
def test_crops_equal_imagecorruptions(name, photographs):
    agree("crop", name, photographs, "imagenet")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_photographs_equal_imagecorruptions(name, photographs):
    agree("whole", name, photographs, "imagenet")


@pytest.mark.parametrize("name", [key.removeprefix("cifar/") for key in GOLDEN if key.startswith("cifar/")])
def test_small_pictures_equal_the_published_cifar_c(name, photographs):
    agree("cifar", name, photographs, "cifar")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(40, 33, 3), (32, 50, 1), (16, 23, 1), (28, 28, 3)])
def test_colour_and_grey_images_of_any_size_keep_their_shape(name, size, photographs):
    family = "imagenet" if min(size[:2]) >= 32 else "cifar"
    image = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    before = image.copy()
    for severity in (1, 5):
        found = corrupt(image, choose(name, severity, family, photographs), np.random.default_rng(1))
        assert found.shape == image.shape
        assert found.dtype == np.uint8
        assert (image == before).all()
        if (name, size[2]) != ("saturate", 1):
            assert (found != image).any()


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("name", NAMES)
def test_an_image_of_one_colour_stays_finite(name, value, photographs):
    image = np.full((32, 32, 3), value, np.uint8)
    with np.errstate(all="raise", under="ignore"):
        corrupt(image, choose(name, 3, photographs=photographs), np.random.default_rng(1))


def test_there_are_15_common_and_4_held_out_corruptions_with_five_severities(photographs):
    assert len(COMMON) == 15
    assert len(set(NAMES)) == 19
    for name in NAMES:
        made = choose(name, 1, photographs=photographs).corruption
        assert isinstance(made, Corruption)
        assert len(made.imagenet) == len(made.cifar) == 5


def test_small_canvases_take_the_constants_of_cifar():
    assert [family_of(*size) for size in ((28, 28), (63, 20), (64, 20), (224, 224))] == ["cifar"] * 2 + ["imagenet"] * 2


REFUSED = {
    "a near name": (
        lambda: choose("gausian_noise", 1),
        ConfigError,
        "no corruption 'gausian_noise'; did you mean 'gaussian_noise'",
    ),
    "another name": (lambda: choose("rain_", 1), ConfigError, "no corruption 'rain_'"),
    "severity 0": (lambda: choose("fog", 0), ConfigError, "severity is 0; allowed are the whole numbers 1 to 5"),
    "severity 6": (lambda: choose("fog", 6), ConfigError, "severity is 6"),
    "severity 2.5": (lambda: choose("fog", 2.5), ConfigError, "severity is 2.5"),  # pyright: ignore[reportArgumentType]
    "no photographs": (lambda: choose("frost", 1), ConfigError, "frost needs a folder with its photographs"),
    "a folder of none": (
        lambda: choose("frost", 1, photographs=Path("/nowhere")),
        DataError,
        "frost needs /nowhere/frost1.png",
    ),
    "too small": (
        lambda: corrupt(np.zeros((31, 90, 3), np.uint8), choose("fog", 1), np.random.default_rng(0)),
        DataError,
        "fog can't corrupt an image of 31x90 pixels: .* ImageNet-C each side must have at least 32 .16 with those of CIFAR",
    ),
    "far too small": (
        lambda: corrupt(np.zeros((15, 15, 1), np.uint8), choose("snow", 1, "cifar"), np.random.default_rng(0)),
        DataError,
        "snow can't corrupt an image of 15x15 pixels: .* CIFAR-10-C each side must have at least 16$",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_done_is_told(case):
    call, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        call()


def test_another_photograph_of_frost_is_refused(tmp_path):
    (tmp_path / "frost1.png").write_bytes(b"no ice")
    with pytest.raises(DataError, match="frost1.png is not the photograph of ImageNet-C: its SHA-256 begins with"):
        choose("frost", 1, photographs=tmp_path)


def test_spatter_of_water_without_opencv_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    image = shown("rocket", "crop")
    corrupt(image, choose("spatter", 5), np.random.default_rng(0))
    with pytest.raises(DataError, match=r"the water of spatter needs OpenCV: pip install 'jaxvision\[proposals\]'"):
        corrupt(image, choose("spatter", 1), np.random.default_rng(0))
