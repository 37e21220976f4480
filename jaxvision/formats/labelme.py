"""Labelme JSON in and out: a file an image, shapes of rectangles, polygons and masks.

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

from jaxvision.errors import DataError, raised_as, shown
from jaxvision.formats import decimals, destination, json_file, segmentation, soundness
from jaxvision.formats.annotation import numbers
from jaxvision.formats.files import is_inside
from jaxvision.formats.image_file import Size, is_possible, upright_size
from jaxvision.formats.labelled import Dataset, LabelledImage, LabelledObject, Loss, Polygons, Segmentation, Value
from jaxvision.formats.losses import Opened, Place, Tally, attributes_of, listed, score_of, unplaced
from jaxvision.formats.text import read_lines
from jaxvision.masks import runs
from jaxvision.masks.runs import Runs

NAME = "labelme"
VERSION = "5.5.0"
"""Version of labelme whose fields these are."""
PLACES: tuple[Place, ...] = (
    *("score", "model", "attributes", "attributes of images", "crowd", "difficult", "ids", "classes", "mask", "box"),
)
LABELS = "labels.txt"
PLACEHOLDERS = ("__ignore__", "_background_")
"""Lines of `labels.txt` in labelme's examples that are no classes."""
MAX_BYTES = 1 << 28
"""Bytes of a file, which may hold its image; a larger one is refused unread."""
POLYGONS = ("polygon", "rotation", "oriented_rectangle")
OF_FILES = ("version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth", "attributes", "id")
OF_SHAPES = (
    *("label", "points", "group_id", "shape_type", "flags", "description", "mask", "score", "attributes", "difficult"),
    *("model", "crowd", "box", "id"),
)


def belongs(path: PurePosixPath) -> bool:
    """Whether it is a file of such a folder that `write` makes."""
    return path.suffix == ".json" or path.parts == (LABELS,)


def write(dataset: Dataset, folder: Path, replace: bool = False, images: Path | None = None) -> list[Loss]:
    """Writes a folder of files named as the images; returns what they have no place for.

    Args:
      dataset: the dataset.
      folder: where to write.
      replace: whether a folder that holds such files is written again.
      images: the folder of the images, which labelme looks for; None: they are to be put beside the files.

    Raises:
      DataError: for a folder that is not empty (`destination.folder`), a dataset that is not sound, and names that are none
        here.
    """
    destination.check_folder(folder, replace, belongs)
    soundness.check(dataset)
    soundness.check_classes(dataset.classes, soundness.line_fault, NAME)
    files = soundness.places(dataset, ".json", NAME)
    for image in dataset.images:
        if "\\" in image.name:
            raise DataError(
                f"image {shown(image.name)} can't be written as {NAME}, which takes a backslash for a slash"
            )
    with destination.folder(folder, replace, belongs) as partial:
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


def _words(attributes: Mapping[str, Any]) -> str:
    """The words of the attribute `text`."""
    value = attributes.get("text")
    return " ".join(value) if isinstance(value, list | tuple) else value if isinstance(value, str) else ""


def _shapes(each: LabelledObject, place: int) -> list[dict[str, Any]]:
    """The shapes of an object; of several polygons the first has what is known of it."""
    flags, attributes = _divided(each.attributes)
    words = _words(attributes)
    described = isinstance(attributes.get("description"), str) and attributes["description"] not in ("", words)
    description = attributes.pop("description") if described else words
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


def is_labelme(path: Path) -> bool:
    """Whether a JSON file looks like labelme's: its beginning speaks of shapes or of no image data, and of no annotations."""
    try:
        found = json_file.read(path, MAX_BYTES)
    except (OSError, DataError):
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
    place = file.parent / path
    for root in (images, folder):
        if root is not None and is_inside(place, root):
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
    described = {"description": description} if description not in ("", _words(found)) else {}
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
