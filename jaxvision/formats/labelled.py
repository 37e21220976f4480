"""Datasets to be written: images and their objects with all that an annotation file can hold.

The form between any two formats: what is read from one and written into another. `formats.annotation` has what training
reads; this form loses nothing. Boxes are `x0 y0 x1 y1` in pixels of the upright image file, with decimals, `x1 y1` exclusive.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxvision.formats.annotation import Box
from jaxvision.formats.image_file import Size
from jaxvision.masks.runs import Runs

Value = str | bool | int | float | tuple[str, ...]
"""Value of an attribute; several texts where it has several, such as the words on a sign."""
Polygons = tuple[tuple[float, ...], ...]
"""Polygons `x0 y0 x1 y1 ...` of one object, in pixels of the image file, with decimals."""
Segmentation = Polygons | Runs
"""A mask as it was annotated: told apart by `isinstance(mask, Runs)`."""


class LabelledObject(NamedTuple):
    """Object of an image."""

    label: str
    """Name of its class."""
    box: Box
    segmentation: Segmentation | None = None
    score: float | None = None
    """Confidence of the model that found it, from 0 to 1; None where a person drew it."""
    attributes: Mapping[str, Value] = {}
    crowd: bool = False
    """COCO's iscrowd."""
    difficult: bool = False
    """VOC's difficult."""
    model: str | None = None
    """Name and version of the model that found it; None where a person drew it."""
    id: int | None = None
    """Number that the file gives it."""
    area: float | None = None
    """COCO's area, by which its metrics tell small from large; None where it is that of the mask or the box."""


class LabelledImage(NamedTuple):
    """Image with its objects; with none, too, it is part of the dataset."""

    name: str
    """Path below the folder of the images, with forward slashes."""
    size: Size
    """Height and width of the upright image."""
    objects: tuple[LabelledObject, ...] = ()
    id: int | None = None
    attributes: Mapping[str, Value] = {}


class Dataset(NamedTuple):
    """Dataset of labelled images."""

    classes: tuple[str, ...]
    images: Sequence[LabelledImage]
    category_ids: tuple[int, ...] | None = None
    """COCO's ids of the classes, with gaps perhaps; None: 1, 2, ..."""


class Loss(NamedTuple):
    """What a format has no place for, and so is lost on the way."""

    what: str
    """In the singular: "score", "attribute colour", "mask with a hole"."""
    count: int
