"""CVAT for images 1.1 read: the files of `formats.cvat`, and those that CVAT exports."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from jaxvision.errors import DataError, shown
from jaxvision.formats import segmentation, xml_file
from jaxvision.formats.annotation import Box, number, number_in
from jaxvision.formats.cvat import CORNERS, GUESSED, OURS, Kind, texts_in
from jaxvision.formats.image_file import Size, is_possible
from jaxvision.formats.labelled import Dataset, LabelledImage, LabelledObject, Polygons, Value
from jaxvision.formats.losses import Opened, Tally
from jaxvision.masks import runs
from jaxvision.masks.runs import Runs


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
    polygons = (segmentation.turned((x0, y0, x1, y1), turn, ((x0 + x1) / 2, (y0 + y1) / 2)),)
    return polygons, segmentation.around(polygons)


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
        if found is not None and number(found) is not None:
            return found
    texts = texts_in(text)
    return text if texts is None else texts
