"""Batches in which every object is a rectangle of its own colour, so that its pixels tell where it is."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.types import Batch, Objects

CANVAS, N = (40, 48), 4
BACKGROUND = (250, 250, 250)


def coloured(seed, rows=5, dtype=np.float32, masks=False, **fields):
    """Up to four objects that do not overlap, one in each quarter of contents of several sizes; one to be ignored.

    An object's label is its number in the batch, which gives its colour, and its area stays what it is.
    """
    random = np.random.default_rng(seed)
    size = random.integers(24, [CANVAS[0] + 1, CANVAS[1] + 1], (rows, 2)).astype(np.int32)
    boxes, shown = np.zeros((rows, N, 4), np.float32), np.zeros((rows, N, *CANVAS), bool)
    image = np.full((rows, *CANVAS, 3), 17, dtype)  # what lies outside the content
    for i, (h, w) in enumerate(size):
        image[i, :h, :w] = BACKGROUND
        for j in range(N):
            (y0, y1), (x0, x1) = (interval(random, h // 2), interval(random, w // 2))
            down, right = (j // 2) * (h // 2), (j % 2) * (w // 2)
            boxes[i, j] = x0 + right, y0 + down, x1 + right, y1 + down
            shown[i, j, y0 + down : y1 + down, x0 + right : x1 + right] = True
    valid = random.random((rows, N)) < 0.8
    for i, j in np.argwhere(valid):
        image[i][shown[i, j]] = colour(i * N + j)
    labels = np.arange(rows * N, dtype=np.int32).reshape(rows, N)
    ignore = random.random((rows, N)) < 0.2
    area = (1000 + labels).astype(np.float32)
    target = Objects(boxes, labels, valid, ignore, masks=shown if masks else None, area=area, **fields)
    index = np.arange(rows, dtype=np.int32)
    return jax.tree.map(jnp.asarray, Batch(image, size, size, index, np.ones(rows, bool), target))


def interval(random, extent):
    start = int(random.integers(0, extent - 5))
    return start, int(random.integers(start + 4, extent + 1))


def colour(label):
    """Far enough from those of all other labels, below 60."""
    return np.array([20 + 40 * (label % 5), 20 + 40 * (label // 5 % 5), 20 + 40 * (label // 25 % 5)])


def pixels_of(image, label, tolerance=1.0):
    return (np.abs(np.asarray(image, np.float64) - colour(label)) <= tolerance).all(-1)


def box_of(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def apply(augment, batch, seed=0, step=0):
    with jax.numpy_dtype_promotion("strict"):
        return jax.tree.map(np.asarray, jax.jit(augment)(jax.random.key(seed), jnp.int32(step), batch))


def same(a, b):
    """Bit for bit, types included."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).dtype == np.asarray(y).dtype
        np.testing.assert_array_equal(x, y)


def no_nan(batch):
    for each in jax.tree.leaves(batch):
        if np.issubdtype(np.asarray(each).dtype, np.floating):
            assert np.isfinite(each).all()
