"""Labelme JSON read: the files of `formats.labelme`, of labelme and of X-AnyLabeling."""

import base64
import io
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from jaxvision.errors import DataError, raised_as, shown
from jaxvision.formats import json_file, segmentation
from jaxvision.formats.annotation import numbers
from jaxvision.formats.files import is_inside, regular
from jaxvision.formats.image_file import Size, is_possible, upright_size
from jaxvision.formats.labelled import Dataset, LabelledImage, LabelledObject, Polygons, Segmentation, Value
from jaxvision.formats.labelme import LABELS, words
from jaxvision.formats.losses import Opened, Tally, attributes_of, score_of
from jaxvision.formats.text import read_lines
from jaxvision.masks import runs
from jaxvision.masks.runs import Runs

PLACEHOLDERS = ("__ignore__", "_background_")
"""Lines of `labels.txt` in labelme's examples that are no classes."""
DRIVE = re.compile("[A-Za-z]:/")
"""The beginning of a path from the root of one of Windows' drives, with forward slashes."""
MAX_BYTES = 1 << 28
"""Bytes of a file, which may hold its image; a larger one is refused unread."""
POLYGONS = ("polygon", "rotation", "oriented_rectangle")
OF_FILES = ("version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth", "attributes", "id")
OF_SHAPES = (
    *("label", "points", "group_id", "shape_type", "flags", "description", "mask", "score", "attributes", "difficult"),
    *("model", "crowd", "box", "id"),
)


def is_labelme(path: Path) -> bool:
    """Whether a JSON file is one of labelme's; those that speak of no shapes at all are not parsed."""
    try:
        with regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if len(text) > MAX_BYTES or min(text.find(b'"shapes"'), text.find(b'"imagePath"')) < 0:
                return False
        found = json_file.read(path, MAX_BYTES)
    except (OSError, ValueError):  # ValueError: an empty file, or a DataError
        return False
    return isinstance(found, dict) and isinstance(found.get("shapes"), list) and "imagePath" in found


def read(path: Path, images: Path | None = None) -> Opened:
    """The dataset of a file, or of all files of labelme below a folder.

    Args:
      path: of the file or the folder.
      images: the folder of the images, which they are named from; None for that of the path.

    Raises:
      DataError: for a file that can't be used, with the shape and the field.
      FileNotFoundError: if it is not there.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    folder = path if path.is_dir() else path.parent
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    tally, found = Tally(), list[LabelledImage]()
    for file in (each for each in files if not each.name.startswith(".")):
        said = json_file.read(file, MAX_BYTES)
        if not isinstance(said, dict) or not isinstance(said.get("shapes"), list):
            tally.note("file .json without shapes")
            continue
        found.append(_image(file, said, folder, images, tally))
    used = {each.label for image in found for each in image.objects}
    said = read_lines(folder / LABELS) if (folder / LABELS).is_file() else []
    kept = [name for name in dict.fromkeys(said) if name and (name not in PLACEHOLDERS or name in used)]
    return Opened(Dataset((*kept, *sorted(used - set(kept))), found), tally.losses())


def _image(file: Path, said: dict[str, Any], folder: Path, images: Path | None, tally: Tally) -> LabelledImage:
    tally.note_fields(said, OF_FILES, " of an image")
    path = json_file.field(said, "imagePath", str, str(file), "the path of the image").replace("\\", "/")
    size = _size(said, file, images, path)
    with raised_as(DataError):
        attributes = attributes_of(said.get("attributes") or {}, tally, str(file))
    flags = _flags(said, str(file))
    shapes = [_checked(each, f"{file}: shape {place}") for place, each in enumerate(said["shapes"], start=1)]
    objects = tuple(_objects(shapes, size, str(file), tally))
    id = said.get("id")
    return LabelledImage(
        _name(file, path, folder, images), size, objects, id if type(id) is int else None, flags | attributes
    )


def _name(file: Path, path: str, folder: Path, images: Path | None) -> str:
    """The name of an image: from the folder of the images, if it leads there, else it lies as its file does in the folder."""
    place, elsewhere = file.parent / path, os.name != "nt" and DRIVE.match(path) is not None
    for root in (images, folder):
        if root is not None and not elsewhere and is_inside(place, root):
            return Path(os.path.relpath(os.path.abspath(place), os.path.abspath(root))).as_posix()
    return str(PurePosixPath(file.relative_to(folder).as_posix()).with_name(PurePosixPath(path).name))


def _size(said: dict[str, Any], file: Path, images: Path | None, path: str) -> Size:
    height, width = said.get("imageHeight"), said.get("imageWidth")
    if type(height) is int and type(width) is int and is_possible((height, width)):
        return height, width
    places = [file.parent / path, *([images / PurePosixPath(path).name] if images else [])]
    found = next((size for size in map(upright_size, places) if size is not None), None)
    if found is None:
        value = f"imageHeight is {shown(height)} and imageWidth {shown(width)}"
        raise DataError(f"{file}: {value}, and the image {shown(path)} can't be read; allowed are its pixels")
    return found


def _flags(holder: dict[str, Any], where: str) -> dict[str, Value]:
    flags = holder.get("flags") or {}
    if not isinstance(flags, dict) or not all(isinstance(each, bool) for each in flags.values()):
        raise DataError(f"{where}: flags is {shown(flags)}; allowed are names with true or false")
    return dict(flags)


def _checked(shape: object, where: str) -> dict[str, Any]:
    """A shape with `points` as a list of x y x y ..., and `where` it stands."""
    label = json_file.field(shape, "label", str, where, "a text")
    kind = json_file.field(shape, "shape_type", str, where, "a text")
    points = json_file.field(shape, "points", list, where, "a list of points [x, y]")
    pairs = [numbers(each, 2) for each in points]
    if not pairs or any(each is None for each in pairs):
        raise DataError(f"{where}: points is {shown(points)}; allowed are points [x, y], finite numbers")
    least = {"polygon": (3,), "rectangle": (2, 4), "mask": (2,)}.get(kind)
    if least is not None and (len(pairs) < 3 if kind == "polygon" else len(pairs) not in least):
        raise DataError(f"{where}: a {kind} of {len(pairs)} points; allowed are {' or '.join(map(str, least))}")
    assert isinstance(shape, dict)
    flat = tuple(side for pair in pairs for side in pair or ())
    return shape | {"label": label, "points": flat, "where": where}


def _objects(shapes: Sequence[dict[str, Any]], size: Size, file: str, tally: Tally) -> Iterator[LabelledObject]:
    """The objects: a shape each, but polygons of one group and label together."""
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    order: list[list[dict[str, Any]]] = []
    for shape in shapes:
        kind, group = shape["shape_type"], shape.get("group_id")
        if kind not in (*POLYGONS, "rectangle", "mask"):
            tally.note(f"shape {kind}")
            continue
        if kind not in POLYGONS or type(group) is not int:
            tally.note("number of a group", group is not None)
            order.append([shape])
        elif (group, shape["label"]) in groups:
            groups[group, shape["label"]].append(shape)
        else:
            order.append(groups.setdefault((group, shape["label"]), [shape]))
    yield from (_object(each, size, tally) for each in order)


def _object(shapes: Sequence[dict[str, Any]], size: Size, tally: Tally) -> LabelledObject:
    first, where = shapes[0], shapes[0]["where"]
    for shape in shapes:
        tally.note_fields(shape, (*OF_SHAPES, "where"))
    mask = _segmentation(shapes, size)
    xs, ys = first["points"][::2], first["points"][1::2]
    box = segmentation.around(mask) if mask is not None else (min(xs), min(ys), max(xs), max(ys))
    said = numbers(first.get("box"), 4) if first.get("box") is not None else None
    model, id = first.get("model"), first.get("id")
    return LabelledObject(
        first["label"],
        box if said is None else (said[0], said[1], said[2], said[3]),
        mask,
        score_of(first.get("score"), where),
        _attributes(first, tally),
        bool(first.get("crowd")),
        bool(first.get("difficult")),
        model if isinstance(model, str) else None,
        id if type(id) is int else None,
    )


def _attributes(shape: dict[str, Any], tally: Tally) -> dict[str, Value]:
    with raised_as(DataError):
        found = attributes_of(shape.get("attributes") or {}, tally, shape["where"])
    description = shape.get("description") or ""
    if not isinstance(description, str):
        raise DataError(f"{shape['where']}: description is {shown(description)}; allowed is a text")
    described = {"description": description} if description not in ("", words(found)) else {}
    return _flags(shape, shape["where"]) | found | described


def _segmentation(shapes: Sequence[dict[str, Any]], size: Size) -> Segmentation | None:
    kind = shapes[0]["shape_type"]
    if kind == "rectangle":
        return None
    if kind == "mask":
        return _read_mask(shapes[0], size)
    polygons: Polygons = tuple(shape["points"] for shape in shapes)
    return polygons


def _read_mask(shape: dict[str, Any], size: Size) -> Runs:
    text = json_file.field(shape, "mask", str, shape["where"], "an image in base64")
    try:
        with Image.open(io.BytesIO(base64.b64decode(text)), formats=["PNG"]) as image:
            if image.width > size[1] or image.height > size[0]:
                raise ValueError(f"is of {image.width}x{image.height} pixels")
            mask = np.asarray(image.convert("L")) > 0
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, zlib.error, ... for broken files
        raise DataError(
            f"{shape['where']}: mask {error}; allowed is a PNG in base64, no larger than the image"
        ) from None
    corner = (round(shape["points"][1]), round(shape["points"][0]))
    if min(corner) < 0 or corner[0] + mask.shape[0] > size[0] or corner[1] + mask.shape[1] > size[1]:
        raise DataError(f"{shape['where']}: mask at x {corner[1]}, y {corner[0]} reaches out of the image")
    return runs.of_window(mask, corner, size)
