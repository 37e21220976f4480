"""Masks on the device against NumPy, SciPy and loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mask_cases import boxes_of, cut_out, roi_align, shapes
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from jaxvision.ops import masks as ops
from jaxvision.types import CutMasks, PackedMasks


def random_cells(seed, n=6, cells=16):
    """Grids of which whole rows and columns are off, some mirrored, one of no extent."""
    random = np.random.default_rng(seed)
    grids = random.random((n, cells, cells)) < 0.3
    grids[:, :2] = grids[:, :, 11:] = False
    low, extent = random.uniform(-4, 12, (n, 2)), random.uniform(8, 30, (n, 2))
    frames = np.concatenate([low, low + extent], 1)
    frames[1] = frames[1][[2, 1, 0, 3]]
    frames[2] = frames[2][[0, 3, 2, 1]]
    frames[3] = 0
    return grids, frames, CutMasks(jnp.asarray(np.packbits(grids, -1)), jnp.asarray(frames))


@pytest.mark.parametrize("width", [1, 7, 8, 9, 30])
def test_bits_are_those_of_numpy(width):
    masks = np.random.default_rng(width).random((2, 3, 5, width)) < 0.5
    with jax.numpy_dtype_promotion("strict"):
        packed = jax.jit(ops.packed)(jnp.asarray(masks))
        back = ops.unpack(packed.bits, packed.width)
    assert_array_equal(packed.bits, np.packbits(masks, -1))
    assert packed.bits.dtype == jnp.uint8
    assert_array_equal(back, masks)
    assert back.dtype == bool


def test_the_smallest_boxes_equal_scipys():
    masks = np.random.default_rng(0).random((30, 9, 11)) > np.linspace(0.5, 1.0, 30)[:, None, None]
    masks[-1] = False
    for form in (jnp.asarray(masks), ops.packed(jnp.asarray(masks))):
        boxes, nonempty = jax.jit(lambda form: ops.boxes_around(form, jnp.float32))(form)
        assert boxes.dtype == jnp.float32
        for mask, box, found in zip(masks, np.asarray(boxes), np.asarray(nonempty), strict=True):
            places = ndimage.find_objects(mask.astype(int))
            assert found == bool(places)
            (y, x), *_ = places or [(slice(0, 0), slice(0, 0))]
            assert_array_equal(box, [x.start, y.start, x.stop, y.stop])


def test_the_smallest_boxes_around_cells(float64):
    grids, frames, cut = random_cells(1)
    grids[4] = False
    cut = cut.replace(bits=jnp.asarray(np.packbits(grids, -1)))
    boxes, nonempty = ops.boxes_around(cut, jnp.float64)
    assert nonempty.tolist() == grids.any((1, 2)).tolist()
    for grid, (x0, y0, x1, y1), box in zip(grids, frames, boxes, strict=True):
        rows, columns = np.nonzero(grid)
        if len(rows):
            edges_x = x0 + (x1 - x0) * np.array([columns.min(), columns.max() + 1]) / 16
            edges_y = y0 + (y1 - y0) * np.array([rows.min(), rows.max() + 1]) / 16
            assert_allclose(box, [min(edges_x), min(edges_y), max(edges_x), max(edges_y)], atol=1e-12)
        else:
            assert not box.any()


def test_a_pixel_is_on_where_the_cell_around_its_centre_is(float64):
    grids, frames, cut = random_cells(2)
    found = np.asarray(jax.jit(lambda cut: ops.unpacked(cut, (24, 30)))(cut))
    expected = np.zeros((6, 24, 30), bool)
    for n, y, x in np.ndindex(*expected.shape):
        x0, y0, x1, y1 = frames[n]
        if x1 != x0:
            column, row = np.floor([(x + 0.5 - x0) / (x1 - x0) * 16, (y + 0.5 - y0) / (y1 - y0) * 16]).astype(int)
            expected[n, y, x] = 0 <= column < 16 and 0 <= row < 16 and grids[n, row, column]
    assert_array_equal(found, expected)
    assert expected[:3].any((1, 2)).all()
    assert not found[3].any()
    masks = np.random.default_rng(0).random((2, 5, 9)) < 0.5
    for form in (jnp.asarray(masks), ops.packed(jnp.asarray(masks))):
        assert_array_equal(ops.unpacked(form, (5, 9)), masks)


def test_cells_whose_centre_lies_outside_a_window_are_cleared(float64):
    grids, frames, cut = random_cells(3)
    window = np.array([4.0, 6.0, 20.0, 17.0])
    found = ops.cut_at(cut, jnp.asarray(window)[None])
    expected = grids.copy()
    for n, row, column in np.ndindex(*grids.shape):
        x0, y0, x1, y1 = frames[n]
        x, y = x0 + (column + 0.5) / 16 * (x1 - x0), y0 + (row + 0.5) / 16 * (y1 - y0)
        expected[n, row, column] &= window[0] <= x < window[2] and window[1] <= y < window[3]
    assert_array_equal(ops.unpack(found.bits, 16), expected)
    assert 0 < expected.sum() < grids.sum()


BOXES = np.array([[3.3, 2.2, 20.7, 29.9], [0, 0, 40, 40], [10.5, 11.5, 11.2, 12.1], [33, 30, 40, 40], [5, 5, 5, 5]])


@pytest.mark.parametrize("geometry", ["aligned", "torchvision"])
def test_targets_equal_roi_align_by_loops(float64, geometry):
    masks = shapes(3, 40, seed=3, least=24)
    match = np.int32([0, 1, 2, 1, 0])
    boxes = jnp.asarray(BOXES)
    run = jax.jit(lambda form: ops.targets_in_boxes(form, jnp.asarray(match), boxes, 7, geometry))
    expected = []
    for number, (x0, y0, x1, y1) in zip(match, BOXES, strict=True):
        extent = np.array([x1 - x0, y1 - y0])
        low, extent = (
            (np.array([x0, y0]) - 0.5, extent) if geometry == "aligned" else (np.array([x0, y0]), np.maximum(extent, 1))
        )
        expected.append(roi_align(masks[number].astype(float), low, extent, 7))
    with jax.numpy_dtype_promotion("strict"):
        found = run(jnp.asarray(masks))
    assert_allclose(found, expected, atol=1e-12)
    assert 0.05 < np.mean(expected) < 0.9
    assert_array_equal(run(ops.packed(jnp.asarray(masks))), found)


@pytest.mark.parametrize("geometry", ["aligned", "torchvision"])
def test_targets_of_masks_that_were_cut_out_are_sampled_on_their_cells(float64, geometry):
    random, cells = np.random.default_rng(5), 16
    grids = np.zeros((3, cells, cells), bool)
    grids[:, 1:14, 2:] = random.random((3, 13, 14)) < 0.7
    frames = np.array([[3.0, 2, 21, 30], [21.0, 2, 3, 30], [0.0, 0, 0, 0]])
    cut = CutMasks(jnp.asarray(np.packbits(grids, -1)), jnp.asarray(frames))
    match = np.int32([0, 1, 0, 1, 2])
    boxes = np.array([[3, 2, 21, 30], [3, 2, 21, 30], [0, 1, 16, 26], [6, 9, 19.5, 31], [1, 1, 9, 9.0]])
    run = lambda cut: ops.targets_in_boxes(cut, jnp.asarray(match), jnp.asarray(boxes), 7, geometry)
    found = np.asarray(jax.jit(run)(cut))
    for n, (number, (x0, y0, x1, y1)) in enumerate(zip(match[:4], boxes, strict=False)):
        grid = np.pad(grids[number].astype(float), 20)
        to_cells = cells / (frames[number, 2:] - frames[number, :2])
        low = (np.array([x0, y0]) + (geometry == "torchvision") * 0.5 - frames[number, :2]) * to_cells
        expected = roi_align(grid, low - 0.5 + 20, np.array([x1 - x0, y1 - y0]) * to_cells, 7)
        assert_allclose(found[n], expected, atol=1e-12)
    assert not found[4].any()


def test_targets_of_whole_and_of_cut_masks_agree():
    masks = shapes(8, 96, seed=1, least=20)
    boxes = boxes_of(masks)
    near = boxes + np.random.default_rng(0).uniform(-4, 4, boxes.shape).astype(np.float32)
    match, near = jnp.arange(8, dtype=jnp.int32), jnp.asarray(near)
    for geometry in ("aligned", "torchvision"):
        run = jax.jit(lambda form, g=geometry: ops.targets_in_boxes(form, match, near, 28, g))
        whole, cut = run(jnp.asarray(masks)), run(jax.tree.map(jnp.asarray, cut_out(masks, boxes)))
        assert np.abs(whole - cut).mean() < 0.01
        assert np.abs(np.asarray(whole).mean((1, 2)) - np.asarray(cut).mean((1, 2))).max() < 0.005


def test_boxes_that_are_no_numbers_leave_targets_finite():
    masks = jnp.asarray(shapes(1, 20))
    boxes = jnp.asarray([[np.nan, 0, 5, 5], [0, 0, np.inf, 5], [-9, -9, -8, -8]])
    for form in (masks, ops.packed(masks), jax.tree.map(jnp.asarray, cut_out(np.asarray(masks), boxes_of(masks), 8))):
        found = jax.jit(lambda form: ops.targets_in_boxes(form, jnp.int32([-1, 0, 0]), boxes, 4))(form)
        assert np.isfinite(found).all()


def test_the_forms_are_pytrees_that_a_program_takes():
    masks = jnp.asarray(shapes(2, 20))
    packed = jax.jit(lambda form: form)(ops.packed(masks))
    assert isinstance(packed, PackedMasks)
    assert packed.width == 20
