"""Crops of objects, and the attributes to be learned of them: each object of a source of images is an example of its own.

train, groups = crops.of_coco("train.json")
stream = streams.training(lambda: train, target=crops.attributes(groups), given=crops.PLACE, placer=stretch(64), ...)
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from jaxvision.data import objects as object_files
from jaxvision.data.decode import pixels_of
from jaxvision.data.placement import Placement
from jaxvision.data.source import Annotations, Example, Source, annotations
from jaxvision.data.target import TargetForm
from jaxvision.formats import coco as coco_format
from jaxvision.formats.fingerprint import digest
from jaxvision.formats.image_file import BadImage, Size
from jaxvision.types import Labels

CONTEXT = 0.2
"""How much of what is around an object a crop shows on each side, over the longer side of its box."""
MOST = 100
"""Values of an attribute that can be learned; one of more is taken for free text."""
YES_OR_NO = ("false", "true")
"""Values of an attribute that is true or false."""
PLACE_NAME = "place"
"""Attribute under which an example has its place in the image; no file's."""


class Group(NamedTuple):
    """Values of an attribute."""

    values: tuple[str, ...]
    several: bool = False
    """Whether an object may have several at once, or none; else it has one."""


Groups = Mapping[str, Group]


def of_coco(
    json: str | PathLike, images: str | PathLike | None = None, groups: Groups | None = None
) -> tuple[Source, Groups]:
    """Crops of the objects of a COCO file whose annotations have `attributes`, a dict, and the values that these have.

    A text is a value; true and false are two; of a list each member is one. Numbers with a fraction and attributes of more
    than `MOST` values are left out, and so are crowds and objects without area. For the second of two files, give the groups
    of the first: a value that they don't have counts as unknown.

    Raises:
      ValueError: as `data.objects.coco` does; for a file without attributes that can be learned.
      FileNotFoundError: if the file or an image is not there.
    """
    listing = coco_format.read_listing(json, images)
    told = [[_texts(each.raw.get("attributes")) for each in image.objects] for image in listing.images]
    groups = groups_of(each for image in told for each in image) if groups is None else groups
    if not groups:
        raise ValueError(
            f"{json}: no annotation has attributes that can be learned: texts, lists of texts, true or false"
        )
    numbers = [numbered(each, groups) for each in told]
    source = object_files.listing_source(str(json), listing)
    return of_objects(with_attributes(source, numbers), groups), groups


def _texts(attributes: Any) -> dict[str, str | tuple[str, ...]]:
    """The attributes of an object that can be learned, as texts."""
    found: dict[str, str | tuple[str, ...]] = {}
    for name, value in (attributes if isinstance(attributes, dict) else {}).items():
        if isinstance(value, list | tuple):
            found[name] = tuple(map(str, value))
        elif isinstance(value, bool):
            found[name] = YES_OR_NO[value]
        elif isinstance(value, str | int):
            found[name] = str(value)
    return found


def groups_of(objects: Iterable[Mapping[str, str | tuple[str, ...]]]) -> Groups:
    """The attributes of objects, by name, each with its values, sorted; those of one value, or of too many, are left out."""
    values: defaultdict[str, set[str]] = defaultdict(set)
    lists = set()
    for each in objects:
        for name, value in each.items():
            values[name] |= {value} if isinstance(value, str) else set(value)
            lists |= set() if isinstance(value, str) else {name}
    least = {name: 1 if name in lists else 2 for name in values}
    return {
        name: Group(tuple(sorted(values[name])), name in lists)
        for name in sorted(values)
        if least[name] <= len(values[name]) <= MOST
    }


def numbered(objects: Sequence[Mapping[str, str | tuple[str, ...]]], groups: Groups) -> dict[str, np.ndarray]:
    """The attributes of the objects of an image: int32 `n`, or `n k` of 0 and 1 where there may be several; -1 is unknown.

    A value that a group does not have is unknown, and of several that have none of the group's so are all of them.
    """
    found = {}
    for name, group in groups.items():
        place = {value: number for number, value in enumerate(group.values)}
        rows = [each.get(name) for each in objects]
        if group.several:
            lists = [(row,) if isinstance(row, str) else row for row in rows]
            known = [row is not None and (not row or not place.keys().isdisjoint(row)) for row in lists]
            numbers = [
                [int(value in (row or ())) if is_known else -1 for value in group.values]
                for row, is_known in zip(lists, known, strict=True)
            ]
        else:
            numbers = [place.get(row, -1) if isinstance(row, str) else -1 for row in rows]
        found[name] = np.asarray(numbers, np.int32).reshape(len(rows), *([len(place)] if group.several else []))
    return found


def with_attributes(source: Source, attributes: Sequence[dict[str, np.ndarray]]) -> Source:
    """A source of objects, those of each image with these attributes."""
    objects = source.objects
    assert objects is not None

    def read(indices: np.ndarray) -> list[Example]:
        return [
            each._replace(objects=each.objects and each.objects._replace(attributes=attributes[index]))
            for index, each in zip(np.asarray(indices).tolist(), source.read(indices), strict=True)
        ]

    def all_objects() -> list[Annotations]:
        return [each._replace(attributes=more) for each, more in zip(objects(), attributes, strict=True)]

    return source._replace(read=read, objects=all_objects)


def of_objects(source: Source, groups: Groups, context: float = CONTEXT) -> Source:
    """The crops of the objects of a source, image by image, those of crowds and those without area left out.

    Args:
      source: whose objects have attributes of these names.
      groups: attributes by name.
      context: what is seen around an object, as `cut` has it.

    Raises:
      ValueError: for a source without objects, or whose objects have no such attribute.
    """
    if source.objects is None:
        raise ValueError("crops are of objects, and the source has none")
    found = source.objects()
    for name in groups:
        if any(each.attributes is None or name not in each.attributes for each in found):
            raise ValueError(f"the objects of the source have no attribute {name!r}")
    kept = [np.flatnonzero(~each.ignore & (each.boxes[:, 2:] > each.boxes[:, :2]).all(1)) for each in found]
    image = np.repeat(np.arange(len(found)), list(map(len, kept)))
    number = np.concatenate([np.zeros(0, np.int64), *kept])

    def read(indices: np.ndarray) -> list[Example]:
        indices = np.asarray(indices)
        wanted = np.unique(image[indices])
        examples = {int(i): _readable(each) for i, each in zip(wanted, source.read(wanted), strict=True)}
        return [_crop(examples[int(image[i])], int(number[i]), groups, context) for i in indices]

    return Source(
        length=len(image),
        read=read,
        labels=lambda: np.concatenate([each.labels[rows] for each, rows in zip(found, kept, strict=True)]).astype(
            np.int64
        ),
        classes=source.classes,
        name=lambda index: f"{source.name(int(image[index]))}, object {number[index] + 1}",
        fingerprint=digest("crops", source.fingerprint, repr((context, sorted(groups.items())))),
        notes=source.notes,
        doubts=source.doubts,
    )


def _readable(example: Example) -> Example:
    """The example with its pixels, or with why there are none."""
    if example.fault is not None:
        return example
    try:
        return example._replace(image=pixels_of(example.image))
    except BadImage as error:
        return example._replace(fault=str(error))


def _crop(example: Example, number: int, groups: Groups, context: float) -> Example:
    """The example of one object of an image."""
    objects, pixels = example.objects, example.image
    assert objects is not None
    if example.fault is not None:
        return Example(b"", fault=example.fault, objects=annotations([], []))
    assert isinstance(pixels, np.ndarray)
    seen = cut(pixels, objects.boxes[number], context)
    more = {name: np.asarray((objects.attributes or {})[name])[number : number + 1] for name in groups}
    place = place_of(objects.boxes[number], (pixels.shape[0], pixels.shape[1]))
    whole = annotations([[0, 0, seen.shape[1], seen.shape[0]]], objects.labels[number : number + 1])
    return Example(seen, int(objects.labels[number]), whole._replace(attributes=more | {PLACE_NAME: place[None]}))


def cut(pixels: UInt8[np.ndarray, "h w *c"], box: np.ndarray, context: float = CONTEXT) -> UInt8[np.ndarray, "s s 3"]:
    """A square around a box, its middle that of the box, with `context` of the box's longer side beyond it on each side.

    Pixels are not resized; beyond the image they are black, and grey is repeated for three channels.
    """
    box = np.asarray(box, np.float64)
    side = max(float((box[2:] - box[:2]).max()) * (1 + 2 * context), 1.0)
    x0, y0 = np.floor((box[:2] + box[2:] - side) / 2).astype(int).tolist()
    size = int(np.ceil(side))
    seen = np.zeros((size, size, 3), np.uint8)
    whole = pixels if pixels.ndim == 3 else pixels[..., None]
    rows, columns = (
        slice(max(start, 0), min(start + size, limit)) for start, limit in zip((y0, x0), pixels.shape[:2], strict=True)
    )
    if rows.start < rows.stop and columns.start < columns.stop:
        seen[rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0] = whole[rows, columns]
    return seen


def place_of(box: np.ndarray, size: Size) -> Float[np.ndarray, "4"]:
    """A box `x0 y0 x1 y1` in fractions of the image's sides, float32."""
    return (np.asarray(box, np.float64) / [size[1], size[0], size[1], size[0]]).astype(np.float32)


def attributes(groups: Groups) -> TargetForm:
    """The attributes of an object as `Labels` by name; the weight of what is unknown is 0, several values are `probs`."""

    def empty(n: int, canvas: Size) -> dict[str, Labels]:
        del canvas
        return {name: _unknown(n, group) for name, group in groups.items()}

    def fill(target: dict[str, Labels], row: int, example: Example, placement: Placement) -> None:
        del placement
        found = example.objects.attributes if example.objects is not None else None
        if found is None:
            raise ValueError("the source has no attributes of objects (data.crops)")
        for name, group in groups.items():
            value, labels = np.asarray(found[name])[0], target[name]
            known = bool(np.all(value >= 0))
            np.asarray(labels.weight)[row] = known
            if group.several:
                np.asarray(labels.probs)[row] = np.maximum(value, 0)
            else:
                np.asarray(labels.label)[row] = max(int(value), 0)

    return TargetForm(empty, fill)


def _unknown(n: int, group: Group) -> Labels:
    label: Any = np.zeros(n, np.int32)
    weight: Any = np.zeros(n, np.float32)
    probs: Any = np.zeros((n, len(group.values)), np.float32) if group.several else None
    return Labels(label, probs, weight)


def _fill_place(given: Any, row: int, example: Example, placement: Placement) -> None:
    del placement
    found = None if example.objects is None else example.objects.attributes
    given[row] = [0, 0, 1, 1] if found is None else found[PLACE_NAME][0]


PLACE = TargetForm(lambda n, canvas: np.zeros((n, 4), np.float32), _fill_place)
"""Place of the object in its image, `b 4`: its box in fractions of the image's sides. An image alone is all object."""
