"""Label Studio's tasks read: those that `formats.label_studio` writes, and those that Label Studio exports.

Of a task that a person submitted, the first annotation that was not cancelled is read, and no prediction: they came before.
Boxes that are turned, as Label Studio does about their top left corner, are read as polygons.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from jaxvision.errors import DataError, raised_as, shown
from jaxvision.formats import brush, decimals, json_file, segmentation, xml_file
from jaxvision.formats.annotation import Box, number
from jaxvision.formats.image_file import Size, is_possible, upright_size
from jaxvision.formats.label_studio import CONFIG, CONTROLS, IMAGE, OF_DATA, PREFIX, TASKS
from jaxvision.formats.labelled import Dataset, LabelledImage, LabelledObject, Polygons, Segmentation, Value
from jaxvision.formats.losses import Opened, Tally, attributes_of, score_of
from jaxvision.masks import runs

UPLOADED = re.compile(r"(?:.*/)?upload/(?:\d+/)?[0-9a-f]{8}-")
"""What Label Studio puts before the name of a file that was uploaded."""
REGIONS = {tag.lower(): name for name, tag in CONTROLS.items()}
SUBMITTED = ("id", "completed_by", "created_at")
"""Fields of an annotation that Label Studio gives it; one that is only to be imported has none."""


def read(path: Path, images: Path | None = None) -> Opened:
    """The dataset of a folder of `tasks.json` and `label_config.xml`, or of such a file of tasks with or without the other.

    Args:
      path: of the folder or the file.
      images: the folder of the images, which are read only where a task without regions does not say their size.

    Raises:
      DataError: for a file that can't be used, with the task, the result and the field.
      FileNotFoundError: if it is not there.
    """
    file = path / TASKS if path.is_dir() else path
    tasks, tally = json_file.read(file), Tally()
    if not isinstance(tasks, list):
        raise DataError(f"{file} has no tasks of Label Studio: it is {shown(tasks, 40)}; allowed is a list")
    found = [_image(each, f"{file}: task {place}", images, tally) for place, each in enumerate(tasks, start=1)]
    classes = _classes(file.with_name(CONFIG))
    used = {each.label for image in found for each in image.objects}
    return Opened(Dataset((*classes, *sorted(used - set(classes))), found), tally.losses())


def _classes(config: Path) -> tuple[str, ...]:
    if not config.is_file():
        return ()
    root = xml_file.read(config, "View", "configuration of Label Studio")
    tags = (node for node in root.iter() if node.tag in CONTROLS.values())
    return tuple(dict.fromkeys(label.get("value") or "" for tag in tags for label in tag.iter("Label")))


def _image(task: object, where: str, images: Path | None, tally: Tally) -> LabelledImage:
    data = json_file.field(task, "data", dict, where, "an object")
    assert isinstance(task, dict)
    address = json_file.field(data, IMAGE, str, f"{where}: data", "the address of an image")
    name = _name(address)
    results = list(_results(task, where, tally))
    with raised_as(DataError):
        attributes = attributes_of({key: data[key] for key in data.keys() - set(OF_DATA)}, tally, where)
    stated = [_stated(each.result) for each in results] + [_stated(data, "")]
    size = next((each for each in stated if each is not None), None) or upright_size((images or Path()) / name)
    if size is None:
        raise DataError(
            f"{where}: no result says original_width and original_height, and {name} can't be read (--images)"
        )
    objects = tuple(_objects(results, size, tally))
    return LabelledImage(name, size, objects, None, attributes)


def _name(address: str) -> str:
    """The path of an image: of the local storage from its root, of others without what Label Studio or a server adds."""
    if "?d=" in address:
        return unquote(address.split("?d=", 1)[1], errors="surrogateescape")
    path = unquote(re.sub(r"^[a-z0-9]+://[^/]*/", "", address).split("?", 1)[0], errors="surrogateescape")
    return UPLOADED.sub("", path).lstrip("/")


def _stated(holder: Mapping[str, Any], prefix: str = "original_") -> Size | None:
    height, width = holder.get(f"{prefix}height"), holder.get(f"{prefix}width")
    return (height, width) if type(height) is int and type(width) is int and is_possible((height, width)) else None


class Found(NamedTuple):
    """A result of an annotation or a prediction."""

    result: dict[str, Any]
    model: str | None
    """The model that found it; None where a person drew it."""
    holder: int
    """Number of the prediction that it stands in, 0 for the annotation; in each its id names another region."""
    where: str

    def key(self, id: object) -> "Key":
        """The key of the region of this id in its annotation or prediction."""
        return self.holder, str(id)


Key = tuple[int, str]


def _results(task: Mapping[str, Any], where: str, tally: Tally) -> Iterator[Found]:
    drawn = [each for each in task.get("annotations") or () if isinstance(each, dict)]
    kept = [each for each in drawn if not each.get("was_cancelled")]
    tally.note("cancelled annotation", len(drawn) - len(kept))
    tally.note("annotation after the first of a task", max(len(kept) - 1, 0))
    predictions = [each for each in task.get("predictions") or () if isinstance(each, dict)]
    if kept and any(name in kept[0] for name in SUBMITTED):
        tally.note("prediction before an annotation", len(predictions))
        predictions = []
    for each in kept[:1]:
        yield from _each(each, None, 0, f"{where}: annotation")
    for place, each in enumerate(predictions, start=1):
        model = each.get("model_version")
        yield from _each(each, str(model) if model else None, place, f"{where}: prediction {place}")


def _each(found: Mapping[str, Any], model: str | None, holder: int, where: str) -> Iterator[Found]:
    results = found.get("result")
    if not isinstance(results, list):
        raise DataError(f"{where}: result is {shown(results)}; allowed is a list")
    for place, each in enumerate(results, start=1):
        here = f"{where}: result {place}"
        json_file.field(each, "type", str, here, "a text")
        json_file.field(each, "value", dict, here, "an object") if each["type"] != "relation" else None
        yield Found(each, model, holder, here)


def _objects(results: list[Found], size: Size, tally: Tally) -> list[LabelledObject]:
    """The objects, in the order of their ids where these are numbers, else as they stand."""
    regions: dict[Key, LabelledObject] = {}
    for place, each in enumerate(results):
        if each.result["type"] in REGIONS:
            _add_region(each, place, regions, size, tally)
    for each in results:
        if each.result["type"] not in REGIONS:
            _add_value(each, regions, tally)
    ids = [id for _, id in regions]
    numeric = all(id.isascii() and id.isdecimal() for id in ids) and len(set(ids)) == len(ids)
    return [regions[key] for key in (sorted(regions, key=lambda key: int(key[1])) if numeric else regions)]


def _add_region(each: Found, place: int, regions: dict[Key, LabelledObject], size: Size, tally: Tally) -> None:
    """Adds the object of a region, or its polygon to the object that it is a part of."""
    result, found = each.result, _object(each, size, tally)
    id, parent = result.get("id"), result.get("parentID")
    key, above = each.key(f"#{place}" if id is None else id), each.key("" if parent is None else parent)
    if above in regions and result["type"] == "polygonlabels" and _is_part(found, regions[above]):
        regions[above] = _together(regions[above], found)
        return
    tally.note("parent of a region", parent is not None)
    regions[key if key not in regions else each.key(f"{key[1]}#{place}")] = found


def _is_part(found: LabelledObject, above: LabelledObject) -> bool:
    return found.label == above.label and bool(above.segmentation) and not isinstance(above.segmentation, runs.Runs)


def _together(first: LabelledObject, more: LabelledObject) -> LabelledObject:
    """An object with the polygons of another."""
    polygons: Any = (*(first.segmentation or ()), *(more.segmentation or ()))
    return first._replace(segmentation=polygons, box=segmentation.around(polygons))


def _object(each: Found, size: Size, tally: Tally) -> LabelledObject:
    result, where = each.result, each.where
    value, kind = result["value"], result["type"]
    labels = value.get(kind)
    if not isinstance(labels, list) or not labels or not all(isinstance(each, str) for each in labels):
        raise DataError(f"{where}: {kind} is {shown(labels)}; allowed is a list of one name")
    tally.note("label after the first of a region", len(labels) - 1)
    turn = _turn(value, "rotation", where)
    tally.note("rotation of a region", bool(turn) and kind != "rectanglelabels")
    tally.note("rotation of the image of a region", bool(_turn(result, "image_rotation", where)))
    mask = _mask(value, kind, size, where)
    box = segmentation.around(mask) if mask is not None else _box(value, size, where)
    if turn and mask is None:
        mask = (segmentation.turned(box, turn, box[:2]),)
        box = segmentation.around(mask)
    return LabelledObject(labels[0], box, mask, score_of(result.get("score"), where), {}, model=each.model)


def _turn(holder: Mapping[str, Any], name: str, where: str) -> float:
    """Degrees of a turn, below 360; 0 where none is said."""
    return 0.0 if holder.get(name) is None else _number(holder, name, where) % 360


def _number(value: Mapping[str, Any], name: str, where: str) -> float:
    found = number(value.get(name))
    if found is None:
        raise DataError(f"{where}: {name} is {shown(value.get(name))}; allowed is a finite number")
    return found


def _box(value: Mapping[str, Any], size: Size, where: str) -> Box:
    x, y, width, height = (decimals.exact(_number(value, name, where)) for name in ("x", "y", "width", "height"))
    if width < 0 or height < 0:
        raise DataError(f"{where}: width and height are {width} and {height}; allowed is 0 or more")
    ends = (
        (x, size[1]),
        (y, size[0]),
        (decimals.EXACT.add(x, width), size[1]),
        (decimals.EXACT.add(y, height), size[0]),
    )
    x0, y0, x1, y1 = (decimals.pixels(part, side, 100) for part, side in ends)
    return x0, y0, x1, y1


def _mask(value: Mapping[str, Any], kind: str, size: Size, where: str) -> Segmentation | None:
    if kind == "polygonlabels":
        points = value.get("points")
        pairs = points if isinstance(points, list) else []
        flat = [
            number(side) for pair in pairs for side in (pair if isinstance(pair, list) and len(pair) == 2 else (None,))
        ]
        if len(flat) < 6 or any(each is None for each in flat):
            raise DataError(f"{where}: points is {shown(points)}; allowed are three or more, [x, y] in percent")
        sides = (size[1], size[0]) * (len(flat) // 2)
        polygons: Polygons = (
            tuple(decimals.pixels(part or 0.0, side, 100) for part, side in zip(flat, sides, strict=True)),
        )
        return polygons
    if kind == "brushlabels":
        data = json_file.field(value, "rle", list, where, "a list of bytes")
        try:
            return runs.encode(brush.decode(data, size))
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
    return None


def _add_value(each: Found, regions: dict[Key, LabelledObject], tally: Tally) -> None:
    """Gives the value of a control to its region."""
    result, key = each.result, each.key(each.result.get("id"))
    value, kind = result.get("value", {}), result["type"]
    if key not in regions or kind not in ("choices", "number", "textarea"):
        tally.note(f"result {kind}")
        return
    name = json_file.field(result, "from_name", str, each.where, "the name of a control").removeprefix(PREFIX)
    attributes = dict(regions[key].attributes) | {name: _value(value, kind, each.where)}
    regions[key] = regions[key]._replace(attributes=attributes)


def _value(value: Mapping[str, Any], kind: str, where: str) -> Value:
    if kind == "number":
        found = value.get("number")
        _number(value, "number", where)
        return found if isinstance(found, int | float) else 0.0
    texts = value.get("choices" if kind == "choices" else "text")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise DataError(f"{where}: its value is {shown(value)}; allowed is a list of texts")
    if kind == "choices" and texts in (["true"], ["false"]):
        return texts == ["true"]
    return texts[0] if len(texts) == 1 and not value.get("several") else tuple(texts)
