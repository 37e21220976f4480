"""What every dataset must hold to before it is written: names, sizes, finite numbers, classes that there are."""

import math
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from jaxvision.errors import DataError, nearest, shown
from jaxvision.formats.annotation import FAR, repeated
from jaxvision.formats.image_file import MAX_SIDE, is_possible
from jaxvision.formats.labelled import Dataset, LabelledImage, LabelledObject, Value
from jaxvision.masks.runs import Runs


def check(dataset: Dataset) -> None:
    """Raises DataError, naming the image and the object, for what no format could hold."""
    for what, names in (("classes", dataset.classes), ("images", [image.name for image in dataset.images])):
        if repeated(names):
            raise DataError(f"{what} has {shown(repeated(names)[0])} twice; allowed is once")
    if dataset.category_ids is not None and (
        len(dataset.category_ids) != len(dataset.classes) or len(set(dataset.category_ids)) != len(dataset.classes)
    ):
        raise DataError(f"category_ids is {shown(dataset.category_ids)}; allowed is another number for each class")
    classes = frozenset(dataset.classes)
    for image in dataset.images:
        _check_image(image)
        for place, each in enumerate(image.objects, start=1):
            where = f"{shown(image.name)}: object {place}"
            if each.label not in classes:
                raise DataError(f"{where}: label is {shown(each.label)}{nearest(each.label[:200], dataset.classes)}")
            _check_object(each, image, where)


def _check_image(image: LabelledImage) -> None:
    if not is_possible(image.size):
        raise DataError(
            f"{shown(image.name)}: size is {image.size}; allowed are heights and widths of 1 to {MAX_SIDE:,}"
        )
    for name, value in image.attributes.items():
        _check_attribute(name, value, shown(image.name))


def _check_object(each: LabelledObject, image: LabelledImage, where: str) -> None:
    x0, y0, x1, y1 = each.box
    if not all(abs(side) < FAR for side in each.box) or x0 > x1 or y0 > y1:
        raise DataError(f"{where}: box is {each.box}; allowed are finite x0 y0 x1 y1, no maximum below its minimum")
    if each.score is not None and not 0 <= each.score <= 1:
        raise DataError(f"{where}: score is {each.score}; allowed is 0 to 1")
    if each.area is not None and not 0 <= each.area < FAR:
        raise DataError(f"{where}: area is {each.area}; allowed is a finite number, not below 0")
    if isinstance(each.segmentation, Runs):
        if tuple(each.segmentation.size) != tuple(image.size):
            raise DataError(f"{where}: its mask is of {each.segmentation.size} pixels, the image of {image.size}")
    elif each.segmentation is not None:
        for polygon in each.segmentation:
            if len(polygon) < 6 or len(polygon) % 2 or not all(abs(side) < FAR for side in polygon):
                raise DataError(f"{where}: polygon is {shown(polygon)}; allowed are three points or more, finite")
    for name, value in each.attributes.items():
        _check_attribute(name, value, where)


def _check_attribute(name: str, value: Value, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{where}: attribute {shown(name)} is {value}; allowed are finite numbers")


def check_classes(classes: Sequence[str], fault: Callable[[str], str | None], format: str) -> None:
    """Raises DataError for a class whose name the format can't hold; `fault` says what is wrong with a name."""
    for name in classes:
        why = fault(name)
        if why is not None:
            raise DataError(f"class {shown(name)} can't be written as {format}: {why}; give it another name")


def line_fault(name: str) -> str | None:
    """What is wrong with a name that is to be a line of a text."""
    if name != name.strip() or not name:
        return "it is empty, or begins or ends with a space"
    if len(name.splitlines()) > 1:
        return "it has a line break"
    return encoding_fault(name)


def encoding_fault(name: str) -> str | None:
    """What is wrong with a name that is to be in a text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "it is no Unicode"
    return None


def places(dataset: Dataset, suffix: str, format: str) -> dict[str, str]:
    """The file of each image, of the same name but for its suffix.

    Raises:
      DataError: for two images that would have the same file, and a name that leads out of the folder.
    """
    found: dict[str, str] = {}
    by_file: dict[str, str] = {}
    for image in dataset.images:
        path = PurePosixPath(image.name)
        if path.is_absolute() or ".." in path.parts or not path.name or "\0" in image.name:
            raise DataError(f"image {shown(image.name)}: allowed are paths of files below the folder of the images")
        file = str(path.with_suffix(suffix))
        if file in by_file:
            both = f"{shown(by_file[file])} and {shown(image.name)}"
            raise DataError(
                f"{both} would both have the file {shown(file)}: {format} has a file for each name without suffix"
            )
        found[image.name], by_file[file] = file, image.name
    return found
