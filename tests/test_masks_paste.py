"""Predicted masks at the size of the file against loops over its pixels, and the way of a mask to a target and back."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mask_cases import boxes_of, cut_out, shapes
from numpy.testing import assert_array_equal

from jaxvision.masks.paste import run_lengths
from jaxvision.masks.runs import decode
from jaxvision.ops.masks import targets_in_boxes
from jaxvision.types import BoxMasks, Canvas, MapMasks, PrototypeMasks


def canvas_of(file, content=None, window=None):
    """An image of which the content is shown on a canvas as large."""
    size = content or file
    return Canvas(np.zeros((*size, 3), np.uint8), size, file, window=window)


STRAIGHT = canvas_of((30, 40))
LETTERBOX = canvas_of((41, 60), (27, 40))
CROPPED = canvas_of((50, 64), (30, 33), (-3.0, 4.0, 55.0, 44.0))
CANVASES = {"as it is": STRAIGHT, "shrunk": LETTERBOX, "cropped": CROPPED}
canvases = pytest.mark.parametrize("canvas", CANVASES.values(), ids=CANVASES)


def clamped(values, y, x):
    """The value between four, those at the border going on."""
    y, x = (min(max(at, 0), side - 1) for at, side in zip((y, x), values.shape, strict=True))
    top, left = int(y), int(x)
    below, right = min(top + 1, values.shape[0] - 1), min(left + 1, values.shape[1] - 1)
    upper = values[top, left] * (1 - x + left) + values[top, right] * (x - left)
    lower = values[below, left] * (1 - x + left) + values[below, right] * (x - left)
    return upper * (1 - y + top) + lower * (y - top)


def pixels(canvas):
    """Every pixel of the file, and where its centre lies on the canvas."""
    (height, width), (rows, columns) = canvas.original_size, canvas.size
    x0, y0, x1, y1 = canvas.window or (0, 0, width, height)
    for row, column in np.ndindex(height, width):
        yield row, column, (row + 0.5 - y0) / (y1 - y0) * rows, (column + 0.5 - x0) / (x1 - x0) * columns


def decoded(masks, canvas, rows=None):
    count = len(masks.boxes if hasattr(masks, "boxes") else masks.logits)
    found = list(run_lengths(masks, range(count) if rows is None else rows, canvas))
    assert {each.size for each in found} == {canvas.original_size}
    return np.stack([decode(each) for each in found])


def assert_equal_where_sure(found, values, threshold):
    """The masks are the values above the threshold; those that rounding could decide are left aside, and are few."""
    sure = np.abs(values - threshold) > 1e-6
    assert sure.mean() > 0.99
    assert_array_equal(found[sure], (values > threshold)[sure])
    assert 0.02 < found.mean() < 0.9


BOXES = np.float32(
    [
        [4.3, 5.2, 22.8, 19.4],
        [-6, -4, 12, 9],
        [25, 18, 55.5, 44],
        [7.2, 8.3, 7.9, 8.9],
        [20, 20, 10, 5],
        [60, 60, 70, 70],
    ]
)


@canvases
def test_aligned_masks_equal_the_loop_over_pixels(canvas):
    random = np.random.default_rng(0)
    probabilities = random.uniform(0, 1, (len(BOXES), 6, 6)).astype(np.float32)
    probabilities[3] = 1
    values = np.zeros((len(BOXES), *canvas.original_size))
    for n, (x0, y0, x1, y1) in enumerate(np.float64(BOXES)):
        grid = np.pad(probabilities[n].astype(np.float64), 1)
        for row, column, y, x in pixels(canvas):
            if x0 <= x < x1 and y0 <= y < y1:
                values[n, row, column] = clamped(grid, (y - y0) / (y1 - y0) * 6 + 0.5, (x - x0) / (x1 - x0) * 6 + 0.5)
    found = decoded(BoxMasks(probabilities, BOXES), canvas)
    assert_equal_where_sure(found, values, 0.5)
    assert found[:3].any((1, 2)).all()
    assert not found[4:].any()


def test_a_box_below_a_pixel_shows_the_pixel_whose_centre_it_holds():
    boxes = np.float32([[7.2, 8.3, 7.9, 8.9], [7.6, 8.6, 7.9, 8.9]])
    found = decoded(BoxMasks(np.ones((2, 4, 4), np.float32), boxes), STRAIGHT)
    assert np.argwhere(found[0]).tolist() == [[8, 7]]
    assert not found[1].any()


@pytest.mark.parametrize("geometry", ["aligned", "torchvision"])
def test_boxes_that_are_no_boxes_show_nothing(geometry):
    boxes = np.float32([[np.nan] * 4, [0, 0, np.inf, 5], [-40, -40, -20, -20], [90, 90, 99, 99], [30, 20, 10, 5]])
    masks = BoxMasks(np.ones((5, 4, 4), np.float32), boxes, geometry)
    assert not decoded(masks, STRAIGHT).any()


def pasted_by_torchvisions_steps(probabilities, box, size):
    """`paste_masks_in_image` in NumPy, in float64, without its floats of the whole image."""
    side = len(probabilities) + 2
    scale = side / len(probabilities)
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * scale
    low, high = np.trunc(centre - half).astype(int), np.trunc(centre + half).astype(int)
    width, height = np.maximum(high - low + 1, 1)
    grid, values = np.pad(probabilities, 1), np.zeros(size)
    for row, column in np.ndindex(*size):
        y, x = row - low[1], column - low[0]
        if 0 <= y < height and 0 <= x < width and column <= high[0] and row <= high[1]:
            at = [max((i + 0.5) * side / extent - 0.5, 0) for i, extent in ((y, height), (x, width))]
            values[row, column] = clamped(grid, *at)
    return values


def test_torchvisions_geometry_equals_its_steps():
    random = np.random.default_rng(1)
    probabilities = random.uniform(0, 1, (len(BOXES), 6, 6))
    boxes = BOXES.astype(np.float64)
    values = [pasted_by_torchvisions_steps(p, box, (30, 40)) for p, box in zip(probabilities, boxes, strict=True)]
    assert_equal_where_sure(decoded(BoxMasks(probabilities, boxes, "torchvision"), STRAIGHT), np.stack(values), 0.5)


@canvases
def test_masks_of_prototypes_equal_the_loop_over_pixels(canvas):
    random, extent = np.random.default_rng(2), (36, 44)
    prototypes, coefficients = random.normal(size=(9, 11, 5)), random.normal(size=(len(BOXES), 5))
    masks = PrototypeMasks(prototypes.astype(np.float32), coefficients.astype(np.float32), BOXES, extent)
    maps = 1 / (1 + np.exp(-np.einsum("hwk,nk->nhw", prototypes, coefficients)))
    values = np.zeros((len(BOXES), *canvas.original_size))
    i, j = np.mgrid[:9, :11]
    for n, (x0, y0, x1, y1) in enumerate(BOXES / 4):
        cut = np.where((i >= y0 - 1) & (i < y1 + 1) & (j >= x0 - 1) & (j < x1 + 1), maps[n], 0)
        for row, column, y, x in pixels(canvas):
            if 0 <= y < canvas.size[0] and 0 <= x < canvas.size[1]:
                values[n, row, column] = clamped(cut, y / 4 - 0.5, x / 4 - 0.5)
    assert_equal_where_sure(decoded(masks, canvas), values, 0.5)


@canvases
def test_masks_of_maps_equal_the_loop_over_pixels(canvas):
    logits = np.random.default_rng(3).normal(size=(2, 8, 9))
    within = lambda y, x: 0 <= y < canvas.size[0] and 0 <= x < canvas.size[1]
    value = lambda each, y, x: clamped(each, y / 4 - 0.5, x / 5 - 0.5) if within(y, x) else -1
    values = [[value(each, y, x) for *_, y, x in pixels(canvas)] for each in np.float64(logits)]
    values = np.reshape(values, (2, *canvas.original_size))
    found = decoded(MapMasks(logits.astype(np.float32), (32, 45)), canvas)
    assert_equal_where_sure(found, values, 0.0)


def test_blocks_of_columns_make_no_difference(monkeypatch):
    masks = BoxMasks(np.random.default_rng(4).uniform(0, 1, (len(BOXES), 6, 6)), BOXES)
    whole = list(run_lengths(masks, range(len(BOXES)), LETTERBOX))
    monkeypatch.setattr("jaxvision.masks.paste.VALUES_AT_ONCE", 70)
    assert list(run_lengths(masks, range(len(BOXES)), LETTERBOX)) == whole
    assert list(run_lengths(masks, [2, 0], LETTERBOX)) == [whole[2], whole[0]]


@pytest.mark.parametrize(
    "form", ["in boxes", *(pytest.param(form, marks=pytest.mark.slow) for form in ("of prototypes", "maps"))]
)
def test_memory_is_that_of_one_mask_at_a_time(form):
    """In a photograph of 4,000 x 3,000 pixels, of which the floats alone would take 48 MB a mask."""
    canvas, random = canvas_of((3000, 4000), (750, 1000)), np.random.default_rng(5)
    boxes, small = np.float32([[0, 0, 1000, 750]] * 3), random.uniform(0, 1, (3, 28, 28)).astype(np.float32)
    masks = {
        "in boxes": BoxMasks(small, boxes),
        "of prototypes": PrototypeMasks(
            random.normal(size=(90, 120, 8)), random.normal(size=(3, 8)), boxes, (750, 1000)
        ),
        "maps": MapMasks(random.normal(size=(3, 30, 40)).astype(np.float32), (750, 1000)),
    }[form]
    tracemalloc.start()
    found = list(run_lengths(masks, range(3), canvas))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150e6
    assert all(each.size == (3000, 4000) and len(each.counts) > 1000 for each in found)


def iou_and_shift(masks, found):
    """IoU of each pair, and by how much the second lies right of and below the first, in pixels."""
    iou = (masks & found).sum((1, 2)) / (masks | found).sum((1, 2))
    y, x = np.mgrid[: masks.shape[1], : masks.shape[2]]
    centre = lambda each: np.array([(x * each).sum((1, 2)), (y * each).sum((1, 2))]) / each.sum((1, 2))
    return iou, (centre(found) - centre(masks)).mean(1)


def there_and_back(form, masks, geometry):
    """Masks as targets at 28 px in their boxes, and these pasted."""
    boxes, match = boxes_of(masks), np.arange(len(masks), dtype=np.int32)
    run = jax.jit(lambda form, match, boxes: targets_in_boxes(form, match, boxes, 28, geometry))
    targets = run(*jax.tree.map(jnp.asarray, (form, match, boxes)))
    return decoded(BoxMasks(np.asarray(targets), boxes, geometry), canvas_of(masks.shape[1:]))


def test_a_mask_comes_back_from_its_target():
    masks = shapes(400, 128, seed=7, least=16)
    iou, shift = iou_and_shift(masks, there_and_back(masks, masks, "aligned"))
    print(f"aligned: IoU {iou.mean():.4f}, 5th percentile {np.quantile(iou, 0.05):.4f}, shift {shift}")
    assert iou.mean() >= 0.995
    assert np.quantile(iou, 0.05) >= 0.985
    assert np.abs(shift).max() <= 0.03
    cut = there_and_back(cut_out(masks, boxes_of(masks)), masks, "aligned")
    of_cut, _ = iou_and_shift(masks, cut)
    print(f"cut at 112: IoU {of_cut.mean():.4f}")
    assert abs(of_cut.mean() - iou.mean()) <= 0.002


def test_torchvisions_geometry_shifts_a_mask():
    masks = shapes(60, 128, seed=7, least=16)
    iou, shift = iou_and_shift(masks, there_and_back(masks, masks, "torchvision"))
    print(f"torchvision: IoU {iou.mean():.4f}, shift {shift}")
    assert iou.mean() < 0.985
    assert (shift < -0.3).all()
