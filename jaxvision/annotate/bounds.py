"""Bounds on a fraction, from a sample of images whose objects err together.

The unit is the image. Of each image two counts are known: how many objects it adds (`total`) and how many of them are wrong
(`wrong`). Objects of one image err together, so that n objects tell less than n independent ones: as many as
n / design effect, the variance of the fraction between images over that of independent objects (Kish 1965). At that
effective number the bound is Clopper and Pearson's, as surveys do it (Korn and Graubard, Survey Methodology 24, 1998).

A small sample without an error shows no variance between images, and would be trusted too much. So one further image, all
of whose objects are wrong, is added where the design effect is measured: without an error, each image counts about once.
It is as large as the image of an object taken at random (`crowd`), which few large images make larger than the mean: where
one image in 50 holds half of the objects, the few that a sample has of them, or none, decide.

The limit: the sizes of all images are known, what is wrong in them only of the sample. Rare images whose objects are wrong,
and that are no larger than others, are missed by a sample that has none of them: of n images, with a chance of one in ten,
where they are one in n / 2.3.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy import special

MOST_OBJECTS = 1e9
"""Effective objects beyond which a fraction is taken to be beyond proof."""


def chance(
    total: Float[np.ndarray, "*t n"],
    wrong: Float[np.ndarray, "*t n"],
    allowed: float,
    doubt: float,
    crowded: Float[np.ndarray, "*t"] | float = 0.0,
) -> Float[np.ndarray, "*t"]:
    """Chance of so few wrong objects, or fewer, if the fraction `allowed` were wrong.

    Args:
      total: objects of each image.
      wrong: the wrong ones among them.
      allowed: the fraction that is tested.
      doubt: the chance of a false promise; a few images tell the design effect badly, for which Student's t makes up.
      crowded: as `effective` has it.

    Returns:
      The chance, for each row of counts; 1 where there is no object.
    """
    objects = effective(total, wrong, crowded) * _students(np.count_nonzero(total, axis=-1), doubt)
    count = total.sum(-1)
    return tail(objects, wrong.sum(-1) / np.maximum(count, 1), allowed)


def most(total: Float[np.ndarray, "n"], wrong: Float[np.ndarray, "n"], doubt: float, crowded: float = 0.0) -> float:
    """Largest fraction of wrong objects that is not refuted: more are wrong with at most the chance `doubt`; 1 of none.

    Arguments as those of `chance`.
    """
    low, high = 0.0, 1.0
    if not total.any():
        return high
    for _ in range(40):
        middle = (low + high) / 2
        refuted = chance(total, wrong, middle, doubt, crowded) <= doubt
        low, high = (low, middle) if refuted else (middle, high)
    return high


def tail(objects: np.ndarray | float, fraction: np.ndarray | float, allowed: float) -> np.ndarray:
    """Chance of at most `fraction * objects` of independent objects being wrong, if `allowed` of all are.

    The binomial distribution's, continued to numbers that are not whole by the beta function.
    """
    wrong = fraction * np.asarray(objects, float)
    right = np.maximum(objects - wrong, 1e-9)
    return np.where(np.asarray(objects) > 0, 1 - special.betainc(wrong + 1, right, allowed), 1.0)


def effective(
    total: Float[np.ndarray, "*t n"],
    wrong: Float[np.ndarray, "*t n"],
    crowded: Float[np.ndarray, "*t"] | float = 0.0,
) -> Float[np.ndarray, "*t"]:
    """Number of independent objects that tell as much as those of the images.

    Args:
      total: objects of each image.
      wrong: the wrong ones among them.
      crowded: the `crowd` of all images that the sample is of, where it is known; the sample's counts where that is larger.
    """
    count = total.sum(-1)
    further = np.maximum(crowd(total), crowded)
    whole = np.maximum(count + further, 1e-9)
    fraction = (wrong.sum(-1) + further) / whole
    residual = ((wrong - fraction[..., None] * total) ** 2).sum(-1) + ((1 - fraction) * further) ** 2
    independent = fraction * (1 - fraction) * whole
    return count / np.maximum(np.divide(residual, independent, out=np.ones(np.shape(count)), where=independent > 0), 1)


def crowd(total: Float[np.ndarray, "*t n"]) -> Float[np.ndarray, "*t"]:
    """Expected number of objects of the image of an object taken at random; 0 of none."""
    return (total**2).sum(-1) / np.maximum(total.sum(-1), 1)


def _students(images: Int[np.ndarray, "*t"], doubt: float) -> Float[np.ndarray, "*t"]:
    """Factor by which few images make the effective number smaller."""
    return (special.ndtri(1 - doubt) / special.stdtrit(np.maximum(images - 1, 1), 1 - doubt)) ** 2


def enough(fraction: float, allowed: float, doubt: float) -> float:
    """Number of independent objects that proves less than `allowed` wrong where `fraction` is; infinite where it can't."""
    if fraction >= allowed:
        return np.inf
    low, high = 0.0, 1.0
    while tail(high, fraction, allowed) > doubt:
        low, high = high, 2 * high
        if high > MOST_OBJECTS:
            return np.inf
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle, fraction, allowed) > doubt else (low, middle)
    return high


def passed(chances: Float[np.ndarray, "t"], doubt: float) -> int:
    """How many hypotheses of a sequence are refused, one after another until the first that is not.

    With a sequence that was fixed before the objects were looked at, a true one is refused with at most the chance `doubt`,
    however long the sequence is (fixed sequence testing; Maurer, Hothorn and Lehmacher 1995).
    """
    failed = np.flatnonzero(~(chances <= doubt))
    return int(failed[0]) if len(failed) else len(chances)
