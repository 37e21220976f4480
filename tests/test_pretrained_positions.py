"""Positions of a ViT for another size: PIL's bicubic interpolation, and timm's, live in `parity`."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from parity_networks import filled, spec_of
from PIL import Image

from jaxvision.nn import vit
from jaxvision.pretrained import export, positions, timm
from jaxvision.pretrained.start import start

GRIDS = [(10, 10), (4, 4), (9, 5), (7, 7)]


def given(side=7, width=6):
    return np.random.RandomState(0).standard_normal((1, side**2 + 1, width)).astype(np.float32)


@pytest.mark.parametrize("grid", GRIDS)
def test_equals_pil(grid):
    before = given()
    after = positions.resized(before, grid)
    assert after.shape == (1, grid[0] * grid[1] + 1, 6)
    assert_array_equal(after[:, 0], before[:, 0])
    for channel in range(6):
        image = Image.fromarray(before[0, 1:, channel].reshape(7, 7))
        expected = np.asarray(image.resize(grid[::-1], Image.Resampling.BICUBIC))
        assert_allclose(after[0, 1:, channel].reshape(grid), expected, atol=1e-5)


def test_the_size_that_it_has_stays_bit_for_bit():
    assert_array_equal(positions.resized(given(), (7, 7)), given())


def test_no_square():
    with pytest.raises(ValueError, match="the positions of 6 patches are not those of a square image"):
        positions.resized(np.zeros((1, 7, 2)), (3, 3))


def test_a_vit_starts_at_another_size(tmp_path):
    small = vit.vit_tiny(5, depth=1, width=24)
    variables = {"params": params_of(small, 48)}
    export.torch_safetensors(timm.vit_sources, variables, tmp_path / "vit.safetensors")
    larger = {"params": params_of(small, 80)}
    with pytest.raises(ValueError, match=r"1 of another shape: pos_embed \(1, 10, 24\)"):
        start(timm.vit_sources, tmp_path / "vit.safetensors")(larger)
    found = start(positions.for_grid(timm.vit_sources, (5, 5)), tmp_path / "vit.safetensors")(larger)
    expected = positions.resized(np.asarray(variables["params"]["positions"]), (5, 5))
    assert_array_equal(found["params"]["positions"], expected)
    with pytest.raises(ValueError, match="1 of another shape: pos_embed"):
        start(positions.for_grid(timm.vit_sources, (5, 4)), tmp_path / "vit.safetensors")(larger)


def params_of(network, side):
    return filled(spec_of(network, (1, side, side, 3)))["params"]


@pytest.mark.parity
@pytest.mark.parametrize("grid", GRIDS)
def test_equals_timm(grid):
    torch = pytest.importorskip("torch", reason="needs torch and timm: install the parity extra")
    from timm.layers import resample_abs_pos_embed

    before = given(width=48)
    expected = resample_abs_pos_embed(torch.from_numpy(before), grid, num_prefix_tokens=1).numpy()
    error = np.abs(positions.resized(before, grid) - expected).max()
    print(f"positions 7x7 to {grid}: error {error:.1e}")
    assert error < 1e-5
