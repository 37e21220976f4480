"""Pixels of one image, taken from between its pixels and from beyond its border."""

from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from jaxvision.ops.levels import as_float, as_levels

Interpolation = Literal["nearest", "bilinear"]
Extension = Literal["nearest", "reflect", "wrap", "constant"]
Fill = Extension | float | int
"""How an image goes on beyond its border: its outermost pixels (`nearest`), mirrored there (`reflect`: dcba|abcd|dcba),
repeated (`wrap`: abcd|abcd|abcd), black (`constant`), or one grey level (a number, 0-255)."""

FAR = 2.0**20


def warp(
    values: Shaped[Array, "h w *c"],
    size: Int[Array, "2"],
    source: Float[Array, "3 3"],
    fill: Fill = "nearest",
    interpolation: Interpolation = "bilinear",
) -> Shaped[Array, "h w *c"]:
    """Each pixel taken from the place that `source` moves its centre to (a matrix of `homography`), as `sample`.

    A place behind the horizon of a perspective lies far outside.

    Raises:
      ValueError: a fill or an interpolation other than those.
    """
    return sample(values, size, *places(source, *values.shape[:2]), fill, interpolation)


def sample(
    values: Shaped[Array, "h w *c"],
    size: Int[Array, "2"],
    y: Float[Array, "h w"],
    x: Float[Array, "h w"],
    fill: Fill = "nearest",
    interpolation: Interpolation = "bilinear",
) -> Shaped[Array, "h w *c"]:
    """Each pixel taken from a place of its own, row `y` and column `x`, counted from the centre of the first pixel.

    The content, the top-left `size` (height, width), is continued as `fill` says; then the value is that of the nearest
    pixel, or of the four around it in between (bilinear: 0-255, rounded where the type is whole). The result has the type
    of `values`.

    Raises:
      ValueError: a fill or an interpolation other than those.
    """
    check(fill, interpolation)
    if interpolation == "nearest":
        return _taken(values, _whole(y + 0.5), _whole(x + 0.5), size, fill)
    levels = as_float(values)
    shape = (*y.shape, *(1,) * (values.ndim - 2))
    down, right = ((at - jnp.floor(at)).astype(levels.dtype).reshape(shape) for at in (y, x))

    def between(row: int) -> Array:
        left, other = (_taken(levels, _whole(y) + row, _whole(x) + column, size, fill) for column in (0, 1))
        return left + right * (other - left)

    upper = between(0)
    return as_levels(upper + down * (between(1) - upper), values.dtype)


def stretch(
    values: Shaped[Array, "h w *c"],
    size: Int[Array, "2"],
    source: Float[Array, "3 3"],
    fill: Fill = "nearest",
    interpolation: Interpolation = "bilinear",
) -> Shaped[Array, "h w *c"]:
    """`warp` by a matrix that only scales and shifts; equal up to rounding, and faster: whole rows are taken, then columns.

    Raises:
      ValueError: a fill or an interpolation other than those.
    """
    check(fill, interpolation)
    levels = values if interpolation == "nearest" else as_float(values)
    for axis in (0, 1):
        scale, shift = source[1 - axis, 1 - axis], source[1 - axis, 2]
        place = (scale * (jnp.arange(len(levels), dtype=source.dtype) + 0.5) + shift) / source[2, 2] - 0.5
        along = _along(levels, jnp.clip(place, -FAR, FAR), size[axis], fill, interpolation)
        levels = jnp.swapaxes(along, 0, 1)
    return levels if interpolation == "nearest" else as_levels(levels, values.dtype)


def _along(
    values: Shaped[Array, "n *rest"],
    place: Float[Array, "n"],
    extent: Int[Array, ""],
    fill: Fill,
    interpolation: Interpolation,
) -> Shaped[Array, "n *rest"]:
    """Rows taken from these places, counted from the centre of the first row."""
    column = (-1, *(1,) * (values.ndim - 1))

    def taken(row: Array) -> Array:
        found = values.at[_folded(row, extent, fill)].get(mode="promise_in_bounds")
        if fill in ("nearest", "reflect", "wrap"):
            return found
        level = jnp.asarray(0 if isinstance(fill, str) else fill, values.dtype)
        return jnp.where(_inside(row, extent).reshape(column), found, level)

    if interpolation == "nearest":
        return taken(_whole(place + 0.5))
    part = (place - jnp.floor(place)).astype(values.dtype).reshape(column)
    before = taken(_whole(place))
    return before + part * (taken(_whole(place) + 1) - before)


def reaches(size: Int[Array, "2"], source: Float[Array, "3 3"], height: int, width: int) -> Bool[Array, "h w"]:
    """True where the nearest pixel to the place that a pixel is taken from lies in the content."""
    return known(size, *places(source, height, width))


def known(size: Int[Array, "2"], y: Float[Array, "h w"], x: Float[Array, "h w"]) -> Bool[Array, "h w"]:
    """True where the nearest pixel to a place lies in the content."""
    return _inside(_whole(y + 0.5), size[0]) & _inside(_whole(x + 0.5), size[1])


def check(fill: str | float | int, interpolation: str) -> None:
    """Checks that both are known.

    Raises:
      ValueError: an unknown fill or interpolation.
    """
    if interpolation not in get_args(Interpolation):
        raise ValueError(f"interpolation={interpolation!r}; allowed: {', '.join(get_args(Interpolation))}")
    if fill not in get_args(Extension) and (isinstance(fill, str) or not 0 <= fill <= 255):
        raise ValueError(f"fill={fill!r}; allowed: {', '.join(get_args(Extension))}, or a grey level, 0 to 255")


def places(source: Float[Array, "3 3"], height: int, width: int) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """Row and column that each pixel is taken from, counted from the centre of the first pixel."""
    x = jnp.arange(width, dtype=source.dtype)[None, :] + 0.5
    y = jnp.arange(height, dtype=source.dtype)[:, None] + 0.5
    to_x, to_y, deep = (row[0] * x + row[1] * y + row[2] for row in source)
    seen = deep > 0
    safe = jnp.where(seen, deep, 1)
    return tuple(jnp.clip(jnp.where(seen, to / safe - 0.5, -FAR), -FAR, FAR) for to in (to_y, to_x))  # type: ignore


def _taken(
    values: Shaped[Array, "h w *c"], y: Int[Array, "h w"], x: Int[Array, "h w"], size: Int[Array, "2"], fill: Fill
) -> Shaped[Array, "h w *c"]:
    height, width, *channels = values.shape
    place = _folded(y, size[0], fill) * width + _folded(x, size[1], fill)
    flat = values.reshape(height * width, *channels)  # one index a pixel in place of two: half the time on CPUs
    found = flat.at[place].get(mode="promise_in_bounds")
    if fill in ("nearest", "reflect", "wrap"):
        return found
    level = jnp.asarray(0 if isinstance(fill, str) else fill, values.dtype)
    known = _inside(y, size[0]) & _inside(x, size[1])
    return jnp.where(known.reshape(*y.shape, *(1,) * (values.ndim - 2)), found, level)


def _folded(place: Int[Array, "*h"], extent: Int[Array, ""], fill: Fill) -> Int[Array, "*h"]:
    """A place beyond the border as the place inside that it repeats."""
    extent = jnp.maximum(extent.astype(place.dtype), 1)
    match fill:
        case "reflect":
            twice = jnp.mod(place, 2 * extent)
            return jnp.minimum(twice, 2 * extent - 1 - twice)
        case "wrap":
            return jnp.mod(place, extent)
    return jnp.clip(place, 0, extent - 1)


def _inside(place: Int[Array, "*h"], extent: Int[Array, ""]) -> Bool[Array, "*h"]:
    return (place >= 0) & (place < extent.astype(place.dtype))


def _whole(place: Float[Array, "*h"]) -> Int[Array, "*h"]:
    return jnp.floor(place).astype(jnp.int32)
