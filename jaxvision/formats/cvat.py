"""CVAT for images 1.1, an XML file, in and out: boxes, polygons, masks, attributes that are declared, `source`.

What a model found has the source `auto`, and the attributes `score` and `model`, by which CVAT filters and sorts. Polygons of
one `group_id` and label are one object. Several texts of an attribute are a JSON list. Turned boxes are read as polygons.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from jaxvision.errors import DataError, shown
from jaxvision.formats import decimals, destination, segmentation, soundness, xml_file
from jaxvision.formats.annotation import Box, number, number_in
from jaxvision.formats.image_file import Size, is_possible
from jaxvision.formats.labelled import Dataset, LabelledImage, LabelledObject, Loss, Polygons, Value
from jaxvision.formats.losses import Opened, Place, Tally, unplaced
from jaxvision.formats.xml_file import escaped, line, opening
from jaxvision.masks import runs
from jaxvision.masks.runs import Runs

NAME = "CVAT"
PLACES: tuple[Place, ...] = ("score", "model", "attributes", "classes", "mask")
OURS = ("score", "model")
"""Attributes that are fields of an object."""
GUESSED = ("auto", "semi-auto", "consensus")
"""Sources of what no person drew alone."""
CORNERS = ("xtl", "ytl", "xbr", "ybr")
Kind = str
"""Input type of an attribute: checkbox, number, text; or that of a file, as radio and select."""


class Declared(NamedTuple):
    """An attribute of a label."""

    kind: Kind
    values: str = ""
    default: str = ""


def write(dataset: Dataset, xml: Path, replace: bool = False) -> list[Loss]:
    """Writes the file; returns what it has no place for.

    Raises:
      DataError: for a file that is there already, unless `replace`, a dataset that is not sound, and names of classes and
        images that XML can't hold.
    """
    destination.check_file(xml, replace)
    soundness.check(dataset)
    soundness.check_classes(dataset.classes, _fault, NAME)
    soundness.check_classes([image.name for image in dataset.images], _fault, NAME)
    tally = unplaced(dataset, PLACES)
    declared = declarations(dataset)
    parts = [
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n',
        *_meta(dataset, declared),
        *(part for place, image in enumerate(dataset.images) for part in _image(image, place, declared, tally)),
        "</annotations>\n",
    ]
    destination.write_file(xml, "".join(parts).encode(), replace)
    return tally.losses()


def _fault(name: str) -> str | None:
    if not name:
        return "it is empty"
    return None if xml_file.is_writable(name) else "it has a character that XML has not"


def declarations(dataset: Dataset) -> dict[str, Declared]:
    """The attributes by their names, of one kind for all labels."""
    found: dict[str, list[Value]] = {}
    for each in (each for image in dataset.images for each in image.objects):
        for name, value in _attributes(each).items():
            found.setdefault(name, []).append(value)
    return {name: _declared(values) for name, values in sorted(found.items())}


def _declared(values: Sequence[Value]) -> Declared:
    if all(isinstance(each, bool) for each in values):
        return Declared("checkbox", "", "false")
    numeric = [each for each in values if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(numeric) < len(values):
        return Declared("text")
    step = "1" if all(isinstance(each, int) for each in numeric) else "0.01"
    low = math.floor(min(numeric))
    return Declared("number", f"{low};{math.ceil(max(numeric))};{step}", str(low))


def _attributes(each: LabelledObject) -> dict[str, Value]:
    """All attributes of an object, its score and its model among them."""
    rest = {name: value for name, value in each.attributes.items() if name not in OURS}
    if rest.get("occluded") is True:
        del rest["occluded"]
    ours: dict[str, Value | None] = {"score": None if each.score is None else float(each.score), "model": each.model}
    return rest | {name: value for name, value in ours.items() if value is not None}


def _meta(dataset: Dataset, declared: Mapping[str, Declared]) -> Iterator[str]:
    used: dict[str, set[str]] = {name: set() for name in dataset.classes}
    for each in (each for image in dataset.images for each in image.objects):
        used[each.label].update(_attributes(each))
    yield f"  <meta>\n    <task>\n      <size>{len(dataset.images)}</size>\n      <mode>annotation</mode>\n      <labels>\n"
    for name in dataset.classes:
        yield f"        <label>\n{line(5, 'name', name)}          <type>any</type>\n          <attributes>\n"
        yield from (_declaration(each, declared[each]) for each in sorted(used[name]))
        yield "          </attributes>\n        </label>\n"
    yield "      </labels>\n    </task>\n  </meta>\n"


def _declaration(name: str, declared: Declared) -> str:
    parts = [
        f"{'  ' * 6}<attribute>\n",
        line(7, "name", name),
        line(7, "mutable", "False"),
        line(7, "input_type", declared.kind),
        line(7, "default_value", declared.default),
        line(7, "values", declared.values),
        f"{'  ' * 6}</attribute>\n",
    ]
    return "".join(parts)


def _image(image: LabelledImage, place: int, declared: Mapping[str, Declared], tally: Tally) -> Iterator[str]:
    height, width = image.size
    said = {"id": str(place), "name": image.name, "width": str(width), "height": str(height)}
    yield f"  <{opening('image', said)}>\n"
    for group, each in enumerate(image.objects, start=1):
        yield from _object(each, group, declared, tally)
    yield "  </image>\n"


def _object(each: LabelledObject, group: int, declared: Mapping[str, Declared], tally: Tally) -> Iterator[str]:
    for name in OURS:
        tally.note(f"attribute {name}", name in each.attributes)
    source = "manual" if each.score is None and each.model is None else "file" if each.model is None else "auto"
    said = {"label": each.label, "source": source, "occluded": str(int(each.attributes.get("occluded") is True))}
    forms = list(_forms(each, tally))
    for place, (tag, form) in enumerate(forms):
        yield f"    <{opening(tag, said | form | {'z_order': '0'} | ({'group_id': str(group)} if len(forms) > 1 else {}))}>\n"
        if place == 0:
            for name, value in _attributes(each).items():
                tally.note("text with a character that XML has not", not xml_file.is_writable(f"{name}{value}"))
                tag_ = opening("attribute", {"name": name})
                yield f"      <{tag_}>{escaped(_spelled(value, declared[name].kind, name, tally))}</attribute>\n"
        yield f"    </{tag}>\n"


def _forms(each: LabelledObject, tally: Tally) -> Iterator[tuple[str, dict[str, str]]]:
    """The tag and the geometry of each element of an object."""
    if isinstance(each.segmentation, Runs) and runs.area(each.segmentation):
        yield "mask", _mask(each.segmentation)
    elif each.segmentation and not isinstance(each.segmentation, Runs):
        for polygon in each.segmentation:
            texts = [decimals.text(side) for side in polygon]
            yield "polygon", {"points": ";".join(map(",".join, zip(texts[::2], texts[1::2], strict=True)))}
    else:
        tally.note("mask without a pixel", each.segmentation is not None and bool(each.segmentation))
        yield "box", dict(zip(CORNERS, map(decimals.text, each.box), strict=True))


def _mask(mask: Runs) -> dict[str, str]:
    """Run lengths inside the box around the pixels, row by row, off first."""
    x0, y0, x1, y1 = (int(side) for side in runs.box(mask))
    flat = runs.decode(mask)[y0:y1, x0:x1].reshape(-1)
    changes = np.flatnonzero(np.diff(flat)) + 1
    borders = [0, *([0] if flat[0] else []), *changes.tolist(), len(flat)]
    return {
        "rle": ", ".join(map(str, np.diff(borders).tolist())),
        **{"left": str(x0), "top": str(y0), "width": str(x1 - x0), "height": str(y1 - y0)},
    }


def _spelled(value: Value, kind: Kind, name: str, tally: Tally) -> str:
    """The text of a value."""
    if isinstance(value, bool):
        tally.note(f"type of attribute {name}", kind != "checkbox")
        return "true" if value else "false"
    if isinstance(value, int | float):
        tally.note(f"type of attribute {name}", kind != "number")
        return json.dumps(value)
    if isinstance(value, tuple) or _is_json(value):
        return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
    return value


def _is_json(text: str) -> bool:
    """Whether a text would be taken for several, or for one in quotes."""
    return _texts(text) is not None


def _texts(text: str) -> str | tuple[str, ...] | None:
    """What a JSON list of texts, or a JSON text, says; None for other texts."""
    if not text.startswith(("[", '"')):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, list) and all(isinstance(each, str) for each in found):
        return tuple(found)
    return found if isinstance(found, str) else None


def read(xml: Path) -> Opened:
    """The dataset of a file.

    Raises:
      DataError: for a file that can't be used, with the element and the field.
      FileNotFoundError: if it is not there.
    """
    root, tally = xml_file.read(xml, "annotations", "CVAT XML"), Tally()
    labels = [node for node in root.iterfind("meta//label") if node.find("name") is not None]
    declared = {
        (label.findtext("name") or "", each.findtext("name") or ""): each.findtext("input_type") or "text"
        for label in labels
        for each in label.iterfind("attributes/attribute")
    }
    tally.note("video track", len(root.findall("track")))
    images = [
        _read_image(node, f"{xml}: image {place}", declared, tally) for place, node in enumerate(root.findall("image"))
    ]
    classes = list(dict.fromkeys(label.findtext("name") or "" for label in labels))
    used = {each.label for image in images for each in image.objects}
    return Opened(Dataset((*classes, *sorted(used - set(classes))), images), tally.losses())


def _read_image(node: Element, where: str, declared: Mapping[tuple[str, str], Kind], tally: Tally) -> LabelledImage:
    name = _said(node, "name", where)
    height, width = (int(_number(node, side, where)) for side in ("height", "width"))
    if not is_possible((height, width)):
        raise DataError(f"{where}: height and width are {height} and {width}; allowed are whole numbers from 1")
    objects: list[LabelledObject] = []
    groups: dict[tuple[str, str], int] = {}
    for place, each in enumerate(node, start=1):
        here = f"{where} ({name}): {each.tag} {place}"
        found = _read_object(each, (height, width), here, declared, tally)
        if found is None:
            continue
        key = (found.label, each.get("group_id") or "0")
        if each.tag == "polygon" and key in groups:
            objects[groups[key]] = _together(objects[groups[key]], found)
            continue
        if each.tag == "polygon" and key[1] != "0":
            groups[key] = len(objects)
        elif key[1] != "0":
            tally.note("number of a group")
        objects.append(found)
    return LabelledImage(name, (height, width), tuple(objects))


def _together(first: LabelledObject, more: LabelledObject) -> LabelledObject:
    """An object with the polygon of another."""
    polygons: Any = (*(first.segmentation or ()), *(more.segmentation or ()))
    return first._replace(segmentation=polygons, box=segmentation.around(polygons))


def _said(node: Element, field: str, where: str) -> str:
    value = node.get(field)
    if value is None:
        raise DataError(f"{where}: there is no {field}")
    return value


def _number(node: Element, field: str, where: str) -> float:
    value = number_in(_said(node, field, where))
    if value is None:
        raise DataError(f"{where}: {field} is {shown(node.get(field))}; allowed is a finite number")
    return value


def _read_object(
    node: Element, size: Size, where: str, declared: Mapping[tuple[str, str], Kind], tally: Tally
) -> LabelledObject | None:
    if node.tag not in ("box", "polygon", "mask"):
        tally.note(f"element {node.tag}")
        return None
    label = _said(node, "label", where)
    attributes = {
        _said(each, "name", where): _value(each, declared.get((label, each.get("name") or ""), "text"))
        for each in node.iterfind("attribute")
    }
    if node.get("occluded") == "1":
        attributes.setdefault("occluded", True)
    score, model = attributes.get("score"), attributes.get("model")
    scored = isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 1
    named = isinstance(model, str)
    for name, is_field in zip(OURS, (scored, named), strict=True):
        if is_field:
            del attributes[name]
    guessed = node.get("source") if node.get("source") in GUESSED else None
    mask, box = _geometry(node, size, where)
    return LabelledObject(
        label, box, mask, float(str(score)) if scored else None, attributes, model=str(model) if named else guessed
    )


def _geometry(node: Element, size: Size, where: str) -> tuple[Polygons | Runs | None, Box]:
    if node.tag == "mask":
        mask = _read_mask(node, size, where)
        return mask, segmentation.around(mask)
    if node.tag == "polygon":
        polygons: Polygons = (_points(node, where),)
        return polygons, segmentation.around(polygons)
    x0, y0, x1, y1 = (_number(node, corner, where) for corner in CORNERS)
    if x0 > x1 or y0 > y1:
        raise DataError(f"{where}: xtl ytl xbr ybr are {x0} {y0} {x1} {y1}; allowed is no maximum below its minimum")
    turn = _number(node, "rotation", where) if node.get("rotation") else 0.0
    if not turn:
        return None, (x0, y0, x1, y1)
    polygons = (_turned((x0, y0, x1, y1), turn),)
    return polygons, segmentation.around(polygons)


def _turned(box: Box, degrees: float) -> tuple[float, ...]:
    """The corners of a box that is turned clockwise about its centre."""
    x0, y0, x1, y1 = box
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    centre = np.array([x0 + x1, y0 + y1]) / 2
    return tuple(((corners - centre) @ np.array([[cos, sin], [-sin, cos]]) + centre).reshape(-1).tolist())


def _points(node: Element, where: str) -> tuple[float, ...]:
    text = _said(node, "points", where)
    found = [number_in(side) for pair in text.split(";") for side in pair.split(",")]
    if len(found) < 6 or any(pair.count(",") != 1 for pair in text.split(";")) or any(each is None for each in found):
        raise DataError(f"{where}: points is {shown(text)}; allowed are three or more, x,y;x,y;..., finite numbers")
    return tuple(each for each in found if each is not None)


def _read_mask(node: Element, size: Size, where: str) -> Runs:
    left, top, width, height = (int(_number(node, side, where)) for side in ("left", "top", "width", "height"))
    if min(left, top) < 0 or min(width, height) < 1 or left + width > size[1] or top + height > size[0]:
        raise DataError(f"{where}: left top width height are {left} {top} {width} {height}, outside of the image")
    text = _said(node, "rle", where)
    try:
        counts = np.array([int(each) for each in text.split(",")])
    except (ValueError, OverflowError):
        counts = np.array([-1])
    if counts.min() < 0 or counts.max() > width * height or counts.sum() != width * height:
        raise DataError(f"{where}: rle is {shown(text)}; allowed are run lengths, {width * height:,} pixels together")
    mask = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
    return runs.of_window(mask, (top, left), size)


def _value(node: Element, kind: Kind) -> Value:
    """The value of an attribute of a kind; its text where it is none of the kind."""
    text = node.text or ""
    if kind == "checkbox" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind == "number":
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = number_in(text)
        if number(found) is not None:
            return found
    texts = _texts(text)
    return text if texts is None else texts
