"""Labelme JSON, a file an image, written; `formats.labelme_files` reads it: shapes of rectangles, polygons and masks.

Attributes that are true or false are labelme's `flags`, others the field `attributes` of a shape, which X-AnyLabeling reads,
as it does `score` and `difficult`. Labelme keeps these fields, and `model`, `crowd`, `box` (where it is not that around
the shape) and `id`. `description` shows the attribute of that name, or the words of the attribute `text`. Polygons of one
`group_id` and label are one object. The classes are in `labels.txt`. A rectangle's second point is the end of its box; the
second of a mask is its last pixel.
"""

import base64
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from jaxvision.errors import DataError, shown
from jaxvision.formats import decimals, destination, json_file, segmentation, soundness
from jaxvision.formats.image_file import SUFFIXES
from jaxvision.formats.labelled import Dataset, LabelledImage, LabelledObject, Loss, Value
from jaxvision.formats.losses import Place, listed, unplaced
from jaxvision.masks import runs
from jaxvision.masks.runs import Runs

NAME = "labelme"
VERSION = "5.5.0"
"""Version of labelme whose fields these are."""
PLACES: tuple[Place, ...] = (
    *("score", "model", "attributes", "attributes of images", "crowd", "difficult", "ids", "classes", "mask", "box"),
)
LABELS = "labels.txt"


def belongs(path: PurePosixPath) -> bool:
    """Whether it is a file of such a folder that `write` makes."""
    return path.suffix == ".json" or path.parts == (LABELS,)


def stays(path: PurePosixPath) -> bool:
    """Whether it is an image, which may lie beside its file: replacing leaves them."""
    return path.suffix.lower() in SUFFIXES


def write(dataset: Dataset, folder: Path, replace: bool = False, images: Path | None = None) -> list[Loss]:
    """Writes a folder of files named as the images; returns what they have no place for.

    Args:
      dataset: the dataset.
      folder: where to write.
      replace: whether a folder that holds such files is written again.
      images: the folder of the images, which labelme looks for; None: they are to be put beside the files,
        where `replace` leaves them.

    Raises:
      DataError: for a folder that is not empty (`destination.folder`), a dataset that is not sound, and names that are none
        here.
    """
    destination.check_folder(folder, replace, belongs, stays)
    soundness.check(dataset)
    soundness.check_classes(dataset.classes, soundness.line_fault, NAME)
    files = soundness.places(dataset, ".json", NAME)
    for image in dataset.images:
        if "\\" in image.name:
            raise DataError(
                f"image {shown(image.name)} can't be written as {NAME}, which takes a backslash for a slash"
            )
    with destination.folder(folder, replace, belongs, stays) as partial:
        (partial / LABELS).write_bytes(
            "".join(f"{name}\n" for name in dataset.classes).encode("utf-8", "surrogatepass")
        )
        for image in dataset.images:
            path = partial / files[image.name]
            path.parent.mkdir(parents=True, exist_ok=True)
            above = (folder / files[image.name]).parent
            where = path.with_name(PurePosixPath(image.name).name).name
            where = where if images is None else Path(os.path.relpath(images / image.name, above)).as_posix()
            path.write_bytes(json_file.data(content(image, where), indent=2))
    return unplaced(dataset, PLACES).losses()


def content(image: LabelledImage, where: str) -> dict[str, Any]:
    """The content of the file of an image; `where` is its path from there."""
    flags, attributes = _divided(image.attributes)
    shapes = [shape for place, each in enumerate(image.objects, start=1) for shape in _shapes(each, place)]
    more = {"attributes": attributes or None, "id": image.id}
    return {
        "version": VERSION,
        "flags": flags,
        "shapes": shapes,
        "imagePath": where,
        "imageData": None,
        "imageHeight": image.size[0],
        "imageWidth": image.size[1],
        **{name: value for name, value in more.items() if value is not None},
    }


def _divided(attributes: Mapping[str, Value]) -> tuple[dict[str, bool], dict[str, Any]]:
    """Those that are true or false, and the others."""
    flags = {name: value for name, value in attributes.items() if isinstance(value, bool)}
    return flags, {name: listed(value) for name, value in attributes.items() if name not in flags}


def words(attributes: Mapping[str, Any]) -> str:
    """The words of the attribute `text`."""
    value = attributes.get("text")
    return " ".join(value) if isinstance(value, list | tuple) else value if isinstance(value, str) else ""


def _shapes(each: LabelledObject, place: int) -> list[dict[str, Any]]:
    """The shapes of an object; of several polygons the first has what is known of it."""
    flags, attributes = _divided(each.attributes)
    spoken = words(attributes)
    described = isinstance(attributes.get("description"), str) and attributes["description"] not in ("", spoken)
    description = attributes.pop("description") if described else spoken
    forms = list(_forms(each))
    group = place if len(forms) > 1 else None
    shapes = [_shape(each.label, form, group) for form in forms]
    shapes[0] |= {"flags": flags, "description": description}
    box = (
        list(map(decimals.brief, each.box))
        if each.segmentation and segmentation.around(each.segmentation) != each.box
        else None
    )
    more = {
        "score": each.score,
        "attributes": attributes or None,
        "difficult": each.difficult or None,
        "model": each.model,
        "crowd": each.crowd or None,
        "box": box,
        "id": each.id,
    }
    shapes[0] |= {name: value for name, value in more.items() if value is not None}
    return shapes


def _shape(label: str, form: dict[str, Any], group: int | None) -> dict[str, Any]:
    return {"label": label, **form, "group_id": group, "description": "", "flags": {}}


def _forms(each: LabelledObject) -> Iterator[dict[str, Any]]:
    """Type, points and mask of each of its shapes."""
    if isinstance(each.segmentation, Runs):
        yield _mask(each.segmentation)
    elif each.segmentation:
        yield from ({"shape_type": "polygon", "points": _pairs(polygon), "mask": None} for polygon in each.segmentation)
    else:
        yield {"shape_type": "rectangle", "points": _pairs(each.box), "mask": None}


def _pairs(sides: Sequence[float]) -> list[list[float]]:
    return [[x, y] for x, y in zip(sides[::2], sides[1::2], strict=True)]


def _mask(mask: Runs) -> dict[str, Any]:
    """A mask, cut to the box around its pixels; one without a pixel to the first of the image, which is off."""
    x0, y0, x1, y1 = (int(side) for side in runs.box(mask))
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    file = io.BytesIO()
    Image.fromarray(runs.decode(mask)[y0:y1, x0:x1].astype(np.uint8) * 255).convert("1").save(file, "PNG")
    points = [[float(x0), float(y0)], [float(x1 - 1), float(y1 - 1)]]
    return {"shape_type": "mask", "points": points, "mask": base64.b64encode(file.getvalue()).decode("ascii")}
