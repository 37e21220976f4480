"""Features of regions at a fixed size, of one image: ROIAlign (arXiv:1703.06870) and ROIPool (arXiv:1504.08083).

Equal to torchvision's, borders and regions outside included. Boxes are `x0 y0 x1 y1` in pixels of the image; `scale` is the
size of the features by that of the image: 1 / stride.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops.options import COUNT, POSITIVE, allowed

Features = Float[Array, "h w c"]
Regions = Float[Array, "n 4"]
Pooled = Float[Array, "n {size} {size} c"]

FAR = 2.0**20
"""Pixels of the features beyond which ROIPool takes a corner for as far away as this."""


@allowed(size=COUNT, scale=POSITIVE, samples=COUNT)
def roi_align(
    features: Features, boxes: Regions, *, size: int, scale: float | int, samples: int = 2, aligned: bool = False
) -> Pooled:
    """The mean of `samples x samples` bilinear samples in each of `size x size` cells of a box.

    Args:
      features: those of the image.
      boxes: the regions.
      size: cells along each side.
      scale: size of the features by that of the image.
      samples: samples along each side of a cell.
      aligned: pixel (i, j) lies at (i + 0.5, j + 0.5), as it should; False as in the first implementations, which
        torchvision's detectors keep: half a pixel off, and regions are at least one pixel of the features wide.

    Raises:
      ValueError: if `size` or `samples` is less than 1, or `scale` not above 0.
    """
    height, width, channels = features.shape
    low, extent = _extent(boxes, scale, aligned)
    x, y = (_places(low[:, axis], extent[:, axis] / size, size, samples) for axis in (0, 1))
    rows, columns = _by_sample(_neighbours(y, height), samples), _by_sample(_neighbours(x, width), samples)
    corners = [(row, column) for row in rows for column in columns]
    pixels = jnp.stack([row[:, :, None] * width + column[:, None] for (row, _), (column, _) in corners])
    weights = jnp.stack([row[:, :, None] * column[:, None] for (_, row), (_, column) in corners])
    weights = weights.astype(adds_up_in(features.dtype)) / samples**2
    return weighted_sum(features.reshape(height * width, channels), pixels, weights)


@jax.custom_vjp
def weighted_sum(
    features: Float[Array, "m c"], pixels: Int[Array, "k *b"], weights: Float[Array, "k *b"]
) -> Float[Array, "*b c"]:
    """The sum of `k` pixels, each times its weight. Gradients are added up in one place: on CPU in a fifth of the time, and
    much less memory, than the derivative of the gathers takes.
    """

    def add(total: Array, one: tuple[Array, Array]) -> tuple[Array, None]:
        pixel, weight = one
        return total + _taken(features, pixel).astype(total.dtype) * weight[..., None], None

    total = jnp.zeros((*pixels.shape[1:], features.shape[-1]), weights.dtype)
    return jax.lax.scan(add, total, (pixels, weights), unroll=FUSED)[0].astype(features.dtype)


FUSED = 16
"""Pixels that are summed in one loop; more would only take longer to compile."""


def _weighted_sum_forward(features: Array, pixels: Array, weights: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return weighted_sum(features, pixels, weights), (features, pixels, weights)


def _weighted_sum_backward(kept: tuple[Array, Array, Array], gradient: Array) -> tuple[Array, None, Array]:
    """That of the weights in a loop of its own, which a compiler leaves out where nobody wants it."""
    features, pixels, weights = kept
    gradient = gradient.astype(weights.dtype)

    def add(total: Array, one: tuple[Array, Array]) -> tuple[Array, None]:
        pixel, weight = one
        return total.at[pixel].add(gradient * weight[..., None], mode="promise_in_bounds"), None

    total, _ = jax.lax.scan(add, jnp.zeros(features.shape, weights.dtype), (pixels, weights))
    of_weights = jax.lax.map(lambda pixel: (_taken(features, pixel).astype(gradient.dtype) * gradient).sum(-1), pixels)
    return total.astype(features.dtype), None, of_weights


weighted_sum.defvjp(_weighted_sum_forward, _weighted_sum_backward)


def _taken(features: Float[Array, "m c"], pixel: Int[Array, "*b"]) -> Float[Array, "*b c"]:
    return features.at[pixel].get(mode="promise_in_bounds")


@allowed(size=COUNT, scale=POSITIVE)
def roi_pool(features: Features, boxes: Regions, *, size: int, scale: float | int) -> Pooled:
    """The maximum of each of `size x size` cells of a box whose corners are rounded to whole pixels; 0 of an empty cell.

    The gradient of a cell goes to its maximum, of equal ones to the first in reading order, as in torchvision. A box that is
    NaN anywhere gives NaN.

    Raises:
      ValueError: if `size` is less than 1, or `scale` not above 0.
    """
    height, width, _ = features.shape
    corners = _round_half_away(jnp.clip(boxes * scale, -FAR, FAR))
    extent = jnp.maximum(corners[:, 2:] - corners[:, :2] + 1, 1)
    columns, rows = (
        _cells(corners[:, axis], extent[:, axis], size, limit) for axis, limit in ((0, width), (1, height))
    )
    known = ~jnp.isnan(boxes).any(1)[:, None, None, None]
    return jnp.where(known, _largest_of_cells(features, rows, columns), jnp.nan)


AT_ONCE = 8
"""Regions that are pooled together: memory grows with the map times cells of each."""
Cells = tuple[Bool[Array, "*n s h"], Bool[Array, "*n s w"]]
"""Which rows and which columns of the map each of `s` rows and columns of cells takes in."""


@jax.custom_vjp
def _largest_of_cells(
    features: Features, rows: Bool[Array, "n s h"], columns: Bool[Array, "n s w"]
) -> Float[Array, "n s s c"]:
    """The largest value in each cell, 0 where there is none."""

    def one(cells: Cells) -> Float[Array, "s s c"]:
        rows, columns = cells
        of_row = jnp.where(columns[None, :, :, None], features[:, None], -jnp.inf).max(2)
        return jnp.where(_nonempty(cells), jnp.where(rows[:, :, None, None], of_row[None], -jnp.inf).max(1), 0)

    return jax.lax.map(one, (rows, columns), batch_size=AT_ONCE)


def _forward(features: Features, rows: Array, columns: Array) -> tuple[Array, tuple[Features, Array, Array]]:
    return _largest_of_cells(features, rows, columns), (features, rows, columns)


def _backward(kept: tuple[Features, Array, Array], gradient: Float[Array, "n s s c"]) -> tuple[Array, None, None]:
    """Computed anew from the map, which need not be kept for every row of cells of every region."""
    features, *cells = kept
    padding, wide = -len(gradient) % AT_ONCE, adds_up_in(features.dtype)
    turns = jax.tree.map(
        lambda x: jnp.pad(x, ((0, padding), *((0, 0),) * (x.ndim - 1))).reshape(-1, AT_ONCE, *x.shape[1:]),
        (*cells, gradient.astype(wide)),
    )

    def add(total: Array, turn: tuple[Array, Array, Array]) -> tuple[Array, None]:
        of_each = jax.vmap(lambda rows, columns, g: _to_the_largest(features, (rows, columns), g))
        return total + of_each(*turn).sum(0), None

    total, _ = jax.lax.scan(add, jnp.zeros(features.shape, wide), turns)
    return total.astype(features.dtype), None, None


_largest_of_cells.defvjp(_forward, _backward)


def _to_the_largest(features: Features, cells: Cells, gradient: Float[Array, "s s c"]) -> Features:
    """The gradient of each cell at the place of its largest value, of equal ones the first in reading order.

    Places, not values, are compared: a value that is computed anew may be rounded otherwise, and then equals none.
    """
    rows, columns = cells
    within = jnp.where(columns[None, :, :, None], features[:, None], -jnp.inf)
    column, of_row = within.argmax(2), within.max(2)
    row = jnp.where(rows[:, :, None, None], of_row[None], -jnp.inf).argmax(1)
    here = row[:, None] == jnp.arange(features.shape[0])[None, :, None, None]
    by_row = jnp.where(here, jnp.where(_nonempty(cells), gradient, 0)[:, None], 0).sum(0)
    here = column[:, :, None] == jnp.arange(features.shape[1])[None, None, :, None]
    return jnp.where(here, by_row[:, :, None], 0).sum(1)


def _nonempty(cells: Cells) -> Bool[Array, "s s 1"]:
    rows, columns = cells
    return (rows.any(1)[:, None] & columns.any(1)[None])[..., None]


def adds_up_in(dtype: DTypeLike) -> jnp.dtype:
    """Dtype of sums over many samples and regions: float64 for float64, else float32, since half precision loses some."""
    return jnp.dtype(dtype if jnp.finfo(dtype).bits > 32 else jnp.float32)


def _extent(boxes: Regions, scale: float | int, aligned: bool) -> tuple[Float[Array, "n 2"], Float[Array, "n 2"]]:
    """The low corner of each box on the features, and its width and height on them."""
    corners = boxes * scale - (0.5 if aligned else 0.0)
    extent = corners[:, 2:] - corners[:, :2]
    return corners[:, :2], extent if aligned else jnp.maximum(extent, 1)


def _places(low: Float[Array, "n"], cell: Float[Array, "n"], size: int, samples: int) -> Float[Array, "n p"]:
    """Where the samples of all cells lie along one axis; rounded as torchvision's sums are: a border decides by a bit."""
    begins = low[:, None] + jnp.arange(size, dtype=low.dtype)[None] * cell[:, None]
    inside = (jnp.arange(samples, dtype=low.dtype) + 0.5)[None] * cell[:, None] / samples
    return (begins[:, :, None] + inside[:, None]).reshape(len(low), size * samples)


def _neighbours(at: Float[Array, "n p"], limit: int) -> list[tuple[Int[Array, "n p"], Float[Array, "n p"]]]:
    """The two pixels beside each place along one axis, and their weights; no weight more than a pixel outside."""
    outside = (at < -1) | (at > limit)  # what is not a number is not, and then shows in the result
    at = jnp.clip(at, 0, limit - 1)
    low = jnp.minimum(jnp.floor(at), limit - 1)
    high = jnp.minimum(low + 1, limit - 1)
    upper = at - low
    known = lambda pixel: jnp.where(jnp.isnan(pixel), 0, pixel).astype(jnp.int32)
    return [(known(low), jnp.where(outside, 0, 1 - upper)), (known(high), jnp.where(outside, 0, upper))]


def _by_sample(
    neighbours: list[tuple[Int[Array, "n p"], Float[Array, "n p"]]], samples: int
) -> list[tuple[Int[Array, "n s"], Float[Array, "n s"]]]:
    """Pixels and weights of the first sample of every cell, then of the second, and so on."""
    return [
        (pixel[:, sample::samples], weight[:, sample::samples])
        for sample in range(samples)
        for pixel, weight in neighbours
    ]


def _round_half_away(x: Array) -> Array:
    """`x` rounded as C rounds: 0.5 to 1, -0.5 to -1."""
    return jnp.trunc(x + jnp.where(x < 0, -0.5, 0.5).astype(x.dtype))


def _cells(start: Float[Array, "n"], extent: Float[Array, "n"], size: int, limit: int) -> Bool[Array, "n s {limit}"]:
    """Which pixels along one axis each cell of each box takes in.

    Computed in whole numbers: XLA divides by a constant as it likes, and rounding up would then take in one pixel too many.
    """
    number = jnp.arange(size, dtype=jnp.int32)[None]
    begin, whole = (x.astype(jnp.int32)[:, None] for x in (start, extent))
    low = jnp.clip(number * whole // size + begin, 0, limit)
    high = jnp.clip(-(-(number + 1) * whole // size) + begin, 0, limit)
    pixel = jnp.arange(limit, dtype=jnp.int32)[None, None]
    return (pixel >= low[..., None]) & (pixel < high[..., None])
