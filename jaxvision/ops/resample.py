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
    """Each pixel taken from the place that `source` moves its centre to (a matrix of `homography`).

    The content, the top-left `size` (height, width), is continued as `fill` says; then the value is that of the nearest
    pixel, or of the four around it in between (bilinear: 0-255, rounded where the type is whole). The result has the type
    of `values`. A place behind the horizon of a perspective lies far outside.

    Raises:
      ValueError: a fill or an interpolation other than those.
    """
    check(fill, interpolation)
    y, x = _places(source, *values.shape[:2])
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


def reaches(size: Int[Array, "2"], source: Float[Array, "3 3"], height: int, width: int) -> Bool[Array, "h w"]:
    """True where the nearest pixel to the place that a pixel is taken from lies in the content."""
    y, x = _places(source, height, width)
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


def _places(source: Float[Array, "3 3"], height: int, width: int) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
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
    rows, columns = _folded(y, size[0], fill), _folded(x, size[1], fill)
    found = values.at[rows, columns].get(mode="promise_in_bounds")
    if fill in ("nearest", "reflect", "wrap"):
        return found
    level = jnp.asarray(0 if isinstance(fill, str) else fill, values.dtype)
    known = _inside(y, size[0]) & _inside(x, size[1])
    return jnp.where(known.reshape(*y.shape, *(1,) * (values.ndim - 2)), found, level)


def _folded(place: Int[Array, "h w"], extent: Int[Array, ""], fill: Fill) -> Int[Array, "h w"]:
    """A place beyond the border as the place inside that it repeats."""
    extent = jnp.maximum(extent.astype(place.dtype), 1)
    match fill:
        case "reflect":
            twice = jnp.mod(place, 2 * extent)
            return jnp.minimum(twice, 2 * extent - 1 - twice)
        case "wrap":
            return jnp.mod(place, extent)
    return jnp.clip(place, 0, extent - 1)


def _inside(place: Int[Array, "h w"], extent: Int[Array, ""]) -> Bool[Array, "h w"]:
    return (place >= 0) & (place < extent.astype(place.dtype))


def _whole(place: Float[Array, "h w"]) -> Int[Array, "h w"]:
    return jnp.floor(place).astype(jnp.int32)
