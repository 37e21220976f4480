"""Placement against torchvision's transforms. Needs the parity extra."""

import numpy as np
import pytest
from data_encoding import smooth
from PIL import Image
from scipy import stats

from jaxvision.data import placement
from jaxvision.data.decode import decode

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def transforms():
    return pytest.importorskip("torchvision.transforms")


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (333, 501), (256, 256), (50, 400), (231, 1000)])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (64, 64), (100, 61)])
def test_evaluation_crops_are_torchvisions(transforms, size, resize, crop):
    image = Image.fromarray(smooth(*size))
    expected = np.asarray(transforms.Compose([transforms.Resize(resize), transforms.CenterCrop(crop)])(image))
    found = decode(np.asarray(image), placement.resize_and_centre_crop(resize, crop)).image
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert (found == expected).mean() > 0.99  # the rest differs by one: PIL holds boxes in 32 bits


@pytest.mark.parametrize("size", [(375, 500), (100, 1000), (30, 300)])
def test_random_boxes_are_distributed_as_torchvisions(transforms, size):
    import torch

    torch.manual_seed(0)
    blank, rng = torch.zeros(3, *size), np.random.default_rng(0)
    get = transforms.RandomResizedCrop.get_params
    theirs = np.array([get(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)])  # top, left, height, width
    boxes = np.array([placement.random_resized_crop(8).place(rng, size).box for _ in range(3000)])
    ours = np.stack([boxes[:, 1], boxes[:, 0], boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]], axis=1)
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
