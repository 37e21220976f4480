"""Linear interpolation along one axis of a grid, whose cells have their values at their centres."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Taps(NamedTuple):
    """The two cells beside each place, and the weight of the second."""

    first: Int[np.ndarray, "p"]
    second: Int[np.ndarray, "p"]
    weight: Float[np.ndarray, "p"]

    def of(self, places: slice | Int[np.ndarray, "q"]) -> "Taps":
        """The taps of these places."""
        return Taps(*(each[places] for each in self))


def taps(places: Float[np.ndarray, "p"], cells: int) -> Taps:
    """The taps of places, of which 0 is the centre of the first cell; those beyond the outermost have their values."""
    places = np.clip(places, 0, cells - 1)
    first = np.floor(places)
    return Taps(first.astype(np.intp), np.minimum(first + 1, cells - 1).astype(np.intp), places - first)
