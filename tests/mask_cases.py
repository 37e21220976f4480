"""Shapes drawn by NumPy and Pillow, masks cut out at their boxes, and ROIAlign as loops: what the tests of masks share."""

import math

import numpy as np
from PIL import Image, ImageDraw

from jaxvision.types import CutMasks


def shapes(count, side, seed=0, least=8):
    """Masks of ellipses, rectangles, stars and triangles anywhere on a canvas, none of them cut by its border."""
    random, drawn = np.random.default_rng(seed), []
    for number in range(count):
        reach = random.uniform(least / 2, side / 2.5)
        centre, turn = random.uniform(reach, side - reach, 2), random.uniform(0, 2 * math.pi)
        stretch = random.uniform(0.4, 1)
        corners = (4, 10, 3, 40)[number % 4]
        angle = np.arange(corners) * 2 * math.pi / corners
        far = np.where(np.arange(corners) % 2, 0.5, 1.0) if corners == 10 else np.ones(corners)
        x, y = far * reach * np.cos(angle), far * reach * stretch * np.sin(angle)
        points = centre[:, None] + [x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)]
        large = Image.new("L", (4 * side, 4 * side))
        ImageDraw.Draw(large).polygon([tuple(point) for point in 4 * points.T], fill=1)
        drawn.append(np.asarray(large)[2::4, 2::4] > 0)
    return np.stack(drawn)


def boxes_of(masks):
    """The smallest box around each mask, x0 y0 x1 y1, by the definition."""
    found = []
    for mask in masks:
        y, x = np.nonzero(mask)
        found.append([x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [0, 0, 0, 0])
    return np.float32(found).reshape(-1, 4)


def cut_out(masks, boxes, cells=112):
    """Masks cut out at their boxes: each cell is the pixel around its centre."""
    grids = np.zeros((len(masks), cells, cells), bool)
    for grid, mask, (x0, y0, x1, y1) in zip(grids, masks, np.float64(boxes), strict=True):
        centre = (np.arange(cells) + 0.5) / cells
        rows, columns = (np.floor(low + centre * (high - low)).astype(int) for low, high in ((y0, y1), (x0, x1)))
        inside_y, inside_x = ((at >= 0) & (at < side) for at, side in zip((rows, columns), mask.shape, strict=True))
        taken = mask[np.clip(rows, 0, mask.shape[0] - 1)][:, np.clip(columns, 0, mask.shape[1] - 1)]
        grid[:] = taken & inside_y[:, None] & inside_x[None]
    return CutMasks(np.packbits(grids, -1), np.asarray(boxes))


def bilinear(values, y, x):
    """The value between four pixels, y and x from the centre of the first; that of the border up to a pixel beyond."""
    height, width = values.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, along = y - top, x - left
    upper = values[top, left] * (1 - along) + values[top, right] * along
    return upper * (1 - down) + (values[below, left] * (1 - along) + values[below, right] * along) * down


def roi_align(values, low, extent, size):
    """ROIAlign of one box by its definition, with as many samples as there are pixels in a cell.

    Low and extent are x and y, low counted from the centre of the first pixel.
    """
    counts = [max(math.ceil(abs(side) / size), 1) for side in extent]
    found = np.zeros((size, size))
    for row, column in np.ndindex(size, size):
        places = [
            [low[axis] + (cell + (i + 0.5) / counts[axis]) * extent[axis] / size for i in range(counts[axis])]
            for axis, cell in ((0, column), (1, row))
        ]
        found[row, column] = np.mean([bilinear(values, y, x) for y in places[1] for x in places[0]])
    return found
