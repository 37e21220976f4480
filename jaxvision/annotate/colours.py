"""Colours by name: the eleven basic terms of English (Berlin & Kay, 1969), by a survey of what people call which colour.

A colour gets the vote of its nearest neighbours among the survey colours that Matplotlib ships (`XKCD_COLORS`, of the
xkcd.com colour survey, 2010) whose names end in a basic term. Distances are those of OKLab (Ottosson, 2020), in which equal
ones look about equally large. What has hardly a chroma is black, grey or white by its lightness, whatever the survey has
nearby: of 558 colours four are called black or white. Each colour of the survey left out in turn, the others name 90 % of
them as the survey does.
"""

import functools

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

TERMS = ("black", "white", "grey", "red", "green", "yellow", "blue", "brown", "purple", "pink", "orange")
NEIGHBOURS = 11
"""Colours that vote, each with the inverse square of its distance."""
GREY = 0.025
"""Chroma below which a colour is black, grey or white."""
DARK, LIGHT = 0.25, 0.92
"""Lightness of such a colour below which it is black, and above which it is white."""
DARK_CHROMA, DARKEST = 0.05, 0.14
"""Chroma below which a colour darker than `DARK` is black, and lightness below which any is: dark pixels are noisy."""
CELLS = 64
"""Cells of the table along red, green and blue: of random colours 98 % have the name of their cell's centre."""
MOST = 512
"""Rows and columns of a region that are looked at; of more, equally spaced ones."""


def fractions(pixels: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"] | None = None) -> dict[str, float]:
    """The fraction of the pixels that each basic term names, the largest first; those of no pixel are left out.

    Args:
      pixels: red, green and blue, 0-255, of sRGB.
      mask: which pixels count; None: all.
    """
    seen = _looked_at(pixels, mask)
    counts = np.bincount(named(seen), minlength=len(TERMS))
    order = np.argsort(-counts, kind="stable")
    return {TERMS[term]: float(counts[term] / len(seen)) for term in order if counts[term]}


def _looked_at(pixels: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"] | None) -> UInt8[np.ndarray, "n 3"]:
    """Pixels of the mask, in equally spaced rows and columns; all of a mask that lies between these."""
    rows, columns = (slice(None, None, -(-side // MOST)) for side in pixels.shape[:2])
    if mask is None:
        return pixels[rows, columns].reshape(-1, 3)
    chosen = pixels[rows, columns][mask[rows, columns]]
    return chosen if len(chosen) else pixels[mask]


def named(pixels: UInt8[np.ndarray, "n 3"]) -> Int[np.ndarray, "n"]:
    """The number of the term, in `TERMS`, of each pixel, by the table."""
    cells = pixels.astype(np.int32) * CELLS // 256
    return _table()[(cells[:, 0] * CELLS + cells[:, 1]) * CELLS + cells[:, 2]]


def nearest_terms(
    colours: Float[np.ndarray, "n 3"], survey: Float[np.ndarray, "m 3"], terms: Int[np.ndarray, "m"]
) -> Int[np.ndarray, "n"]:
    """The number of the term of each colour: the rule that the table is filled by.

    Args:
      colours: in OKLab.
      survey: colours that vote, in OKLab, `NEIGHBOURS` or more.
      terms: what each of them is called, numbers in `TERMS`.
    """
    from scipy.spatial import KDTree

    distance, neighbour = KDTree(survey).query(colours, k=NEIGHBOURS)
    weight = 1 / (distance**2 + 1e-12)
    votes = np.stack([np.where(terms[neighbour] == term, weight, 0).sum(1) for term in range(len(TERMS))], 1)
    black, white, grey = (TERMS.index(name) for name in ("black", "white", "grey"))
    lightness, chroma = colours[:, 0], np.hypot(colours[:, 1], colours[:, 2])
    term = np.where(chroma < GREY, np.where(lightness > LIGHT, white, grey), votes.argmax(1))
    return np.where((lightness < DARKEST) | ((lightness < DARK) & (chroma < DARK_CHROMA)), black, term)


@functools.cache
def survey() -> tuple[Float[np.ndarray, "m 3"], Int[np.ndarray, "m"]]:
    """The colours of the survey whose names end in a basic term, in OKLab, and the numbers of these terms."""
    from matplotlib.colors import XKCD_COLORS, to_rgb

    last = {name: name.removeprefix("xkcd:").replace("gray", "grey").split()[-1] for name in XKCD_COLORS}
    known = [name for name in XKCD_COLORS if last[name] in TERMS]
    rgb = np.asarray([to_rgb(XKCD_COLORS[name]) for name in known])
    return oklab(rgb), np.asarray([TERMS.index(last[name]) for name in known])


@functools.cache
def _table() -> UInt8[np.ndarray, "_"]:
    """The term of the centre of every cell, red changing slowest. Half a second."""
    centres = (np.arange(CELLS) + 0.5) / CELLS * 256 - 0.5
    grid = np.stack(np.meshgrid(centres, centres, centres, indexing="ij"), -1).reshape(-1, 3)
    return nearest_terms(oklab(grid / 255), *survey()).astype(np.uint8)


def oklab(rgb: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Lightness, green to red, blue to yellow, of colours of sRGB from 0 to 1.

    Björn Ottosson, "A perceptual color space for image processing", 2020: bottosson.github.io/posts/oklab.
    """
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _CONES.T) @ _OPPONENT.T


_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_OPPONENT = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
