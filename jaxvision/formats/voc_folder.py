"""Pascal VOC folders read, for another format: those of `formats.voc_file`, and others."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from jaxvision.errors import DataError, raised_as, shown
from jaxvision.formats import voc
from jaxvision.formats.annotation import number, refuse
from jaxvision.formats.files import content
from jaxvision.formats.image_file import SUFFIXES, upright_size
from jaxvision.formats.labelled import Dataset, LabelledImage, LabelledObject, Value
from jaxvision.formats.losses import Opened, Tally
from jaxvision.formats.text import read_lines
from jaxvision.formats.voc_file import FLAGS, KNOWN, LABELS, UNSPECIFIED


def read(folder: Path) -> Opened:
    """The dataset of a folder, all that its `Annotations` have, those in folders below them too.

    Raises:
      DataError: for a file that can't be used, with the object and the field.
      FileNotFoundError: for no such folder.
    """
    with raised_as(DataError):
        year = voc.year_folder(folder)
    found = sorted(path for path in (year / "Annotations").rglob("*.xml") if not path.name.startswith("."))
    tally, lying = Tally(), cache(_images_in)
    images = [_image(path, year, lying, tally) for path in found]
    classes = _classes(year, {each.label for image in images for each in image.objects})
    names = voc.splits(year)
    tally.note("split", len(names) if len(names) > 1 else 0)
    tally.note("map of objects", len(list((year / "SegmentationObject").glob("*.png"))))
    return Opened(Dataset(classes, images), tally.losses())


def _root(path: Path) -> ElementTree.Element:
    try:
        return voc.parsed(content(path, voc.MAX_BYTES))
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path} {error}") from None


def _images_in(folder: Path) -> Mapping[str, str]:
    """The image of each name without suffix in a folder, the first of several."""
    files = sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
    return {PurePosixPath(name).stem: name for name in reversed(files) if name.lower().endswith(SUFFIXES)}


def _classes(year: Path, used: Collection[str]) -> tuple[str, ...]:
    """The classes of `labelmap.txt`, and after them others that objects have, sorted; an unused background is none."""
    lines = read_lines(year / LABELS) if (year / LABELS).is_file() else []
    mapped = [each.rsplit(":", 3)[0] for each in lines if each and not each.startswith("#")]
    kept = [name for name in dict.fromkeys(mapped) if name != "background" or name in used]
    kept = list(dict.fromkeys(mapped)) if _is_only_ours(lines) else kept
    return (*kept, *sorted(set(used) - set(kept)))


def _is_only_ours(lines: Sequence[str]) -> bool:
    """Whether no class has a colour: then a class of the name background is one."""
    return all(each.startswith("#") or each.endswith(":::") for each in lines)


def _image(path: Path, year: Path, lying: Callable[[Path], Mapping[str, str]], tally: Tally) -> LabelledImage:
    """The image of a file; `lying` are the images in a folder by their names without suffix."""
    root = _root(path)
    nodes = root.findall("object")
    classes = sorted({(node.findtext("name") or "").strip() for node in nodes} - {""})
    with raised_as(DataError):
        objects = voc.objects_in(root, str(path), {name: label for label, name in enumerate(classes)}, refuse)
    name = _name(path, root, year, lying)
    size = voc.stated_size(root) or upright_size(year / "JPEGImages" / name)
    if size is None:
        raise DataError(f"{path}: size is not said, and {year / 'JPEGImages' / name} can't be read")
    found = tuple(
        LabelledObject(
            classes[each.label],
            each.box,
            attributes=_read_attributes(node, f"{path}: {each.where}", tally),
            difficult=each.ignore,
        )
        for each, node in zip(objects, nodes, strict=True)
    )
    return LabelledImage(name, size, found)


def _name(path: Path, root: ElementTree.Element, year: Path, lying: Callable[[Path], Mapping[str, str]]) -> str:
    """The name of the image: as the file says, if it is named as the file; else that of the image that lies there."""
    said = (root.findtext("filename") or "").replace("\\", "/").rsplit("/", 1)[-1]
    said = said if PurePosixPath(said).stem == path.stem else said.strip()
    below = PurePosixPath(path.relative_to(year / "Annotations").as_posix())
    if PurePosixPath(said).stem == path.stem and said != path.stem:
        return str(below.with_name(said))
    image = lying(year / "JPEGImages" / below.parent).get(path.stem)
    return str(below.with_name(image or f"{path.stem}{PurePosixPath(said).suffix or '.jpg'}"))


def _read_attributes(node: ElementTree.Element, where: str, tally: Tally) -> dict[str, Value]:
    found: dict[str, Value] = {}
    pose = (node.findtext("pose") or "").strip()
    if pose not in ("", UNSPECIFIED):
        found["pose"] = pose
    found |= {name: True for name in FLAGS if (node.findtext(name) or "").strip() == "1"}
    for each in node.iterfind("attributes/attribute"):
        name, value = each.findtext("name"), each.find("value")
        if name is None or value is None:
            raise DataError(f"{where}: an attribute has no name or no value; allowed are those that have both")
        found[name] = _read_value(value, f"{where}: attribute {shown(name)}")
    tally.note_fields({child.tag: True for child in node}, KNOWN)
    return found


def _read_value(node: ElementTree.Element, where: str) -> Value:
    text, kind = node.text or "", node.get("type")
    if kind not in ("number", "list"):
        return text == "true" if kind is None and text in ("true", "false") else text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if kind == "number" and value is not None and number(value) is not None:
        return value
    if kind == "list" and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise DataError(
        f"{where} is {shown(text)}; allowed is {'a finite number' if kind == 'number' else 'a list of texts'}"
    )
