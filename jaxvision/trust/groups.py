"""Groups by what is annotated or measured, and groups crossed; those of a CSV file are in `trust.group_file`."""

import itertools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxvision.errors import amount
from jaxvision.metrics.tables import completed
from jaxvision.ops import pixels
from jaxvision.types import Batch, Groups, Objects, Rows

MEASURED = "measured:"
"""Beginning of the names of columns that groups are told from; of `MEASURED` and the attribute."""
SIZES = ("small", "medium", "large")
LEAST_AREAS = (32**2, 96**2)
"""Square pixels from which an object is medium, and large: COCO's."""
BETWEEN = " & "
"""What stands between the values of attributes that are crossed."""


def listed(attribute: str, names: Sequence[str], numbers: Int[np.ndarray, "examples"]) -> Groups:
    """Groups of examples from a list: the number of the group of every example of the data, -1 for none.

    Raises:
      ValueError: for no group, a name twice, or a number of no group.
    """
    numbers = np.asarray(numbers)
    check_names(attribute, names)
    if numbers.size and not -1 <= numbers.min() <= numbers.max() < len(names):
        raise ValueError(
            f"groups by {attribute}: numbers go from {numbers.min()} to {numbers.max()}, allowed are -1 to "
            f"{len(names) - 1}"
        )
    return Groups(attribute, tuple(names), lambda rows: numbers[rows["index"]])


def by_class(classes: Sequence[str]) -> Groups:
    """Groups of examples by their class."""
    check_names("class", classes)
    return Groups("class", tuple(classes), lambda rows: np.asarray(rows["label"]))


def of_objects(attribute: str, values: Sequence[str]) -> Groups:
    """Groups of objects by an attribute of theirs, whose numbers these values are.

    The target must have it: `data.target.objects(rows, attributes=(attribute,))`.

    Raises:
      ValueError: for no value, or one twice.
      TypeError: in `observe`, for a target without it.
    """
    check_names(attribute, values)
    column = MEASURED + attribute

    def observe(batch: Batch) -> Rows:
        found = batch.target.attributes if isinstance(batch.target, Objects) else None
        if found is None or attribute not in found:
            raise TypeError(
                f"the objects of the target have no attribute {attribute!r}: target.objects(rows, attributes="
                f"({attribute!r},)) has it, of a source whose objects do"
            )
        return {column: found[attribute]}

    def number(rows: Mapping[str, np.ndarray]) -> np.ndarray:
        found = np.asarray(rows[column])
        return found[:, : completed(rows)["annotated"].shape[1]] if "true_objects" in rows else found

    return Groups(attribute, tuple(values), number, observe, objects=True)


def size() -> Groups:
    """Groups of objects by their area as COCO has it: small, medium, large."""

    def number(rows: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.digitize(completed(rows)["area"], LEAST_AREAS)

    return Groups("size", SIZES, number, objects=True)


def brightness(edges: Sequence[float] = (85.0, 170.0)) -> Groups:
    """Groups of examples by the mean of all their pixels and channels, 0 to 255, between these edges.

    Raises:
      ValueError: for no edge, or edges that do not rise.
    """
    if not edges or any(low >= high for low, high in itertools.pairwise(edges)):
        raise ValueError(f"brightness(edges={edges}): allowed are numbers that rise, 1 or more")
    between = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)]
    names = (f"below {edges[0]:g}", *between, f"from {edges[-1]:g}")
    column = MEASURED + "brightness"

    def number(rows: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.digitize(rows[column], edges)

    return Groups("brightness", names, number, lambda batch: {column: mean_pixel(batch)})


def mean_pixel(batch: Batch) -> Float[Array, "b"]:
    """Mean over the pixels and channels of the content of each image."""

    def mean(image: Array, size: Array) -> Array:
        inside = pixels.inside(size, *image.shape[:2])[..., None]
        return jnp.mean(image.astype(jnp.float32), where=jnp.broadcast_to(inside, image.shape))

    return jax.vmap(mean)(jnp.asarray(batch.image), jnp.asarray(batch.size))


def cross(first: Groups, *others: Groups) -> Groups:
    """Groups by several attributes at once: every pair of their values, and so on.

    Of groups of objects and groups of examples, objects are grouped, each with the group of its image.
    """
    for other in others:
        first = _pairs(first, other)
    return first


def _pairs(a: Groups, b: Groups) -> Groups:
    def number(rows: Mapping[str, np.ndarray]) -> np.ndarray:
        of_a, of_b = (np.asarray(each.number(rows)) for each in (a, b))
        if of_a.ndim != of_b.ndim:
            of_a, of_b = (each if each.ndim == 2 else each[:, None] for each in (of_a, of_b))
        return np.where((of_a < 0) | (of_b < 0), -1, of_a * len(b.names) + of_b)

    return Groups(
        f"{a.attribute}{BETWEEN}{b.attribute}",
        tuple(f"{x}{BETWEEN}{y}" for x in a.names for y in b.names),
        number,
        lambda batch: {**a.observe(batch), **b.observe(batch)},
        a.objects or b.objects,
    )


def check_names(attribute: str, names: Sequence[str]) -> None:
    """Raises ValueError for no group, or two of one name."""
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"groups by {attribute}: allowed are names that differ, 1 or more; got {amount(len(names), 'name')}"
            f" of which {len(set(names))} differ"
        )
