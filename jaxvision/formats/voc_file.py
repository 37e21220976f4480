"""Pascal VOC folders in and out: boxes with decimals, `difficult`, `pose`, `truncated`, `occluded`, and other attributes.

A box is stored as the devkit does, its first pixel 1 and its last one included: `xmin` is x0 + 1, `xmax` is x1. Attributes
that VOC does not know stand as CVAT has them, `<attributes><attribute><name/><value/></attribute></attributes>`; the `type`
of a value, `number`, `list` or `text`, says what it is where it is neither plain text nor `true` or `false`. The classes are
in `labelmap.txt`.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from jaxvision.errors import DataError, raised_as, shown
from jaxvision.formats import decimals, destination, soundness, voc, xml_file
from jaxvision.formats.annotation import number, refuse
from jaxvision.formats.files import content
from jaxvision.formats.image_file import SUFFIXES, upright_size
from jaxvision.formats.labelled import Dataset, LabelledImage, LabelledObject, Loss, Value
from jaxvision.formats.losses import Opened, Place, Tally, unplaced
from jaxvision.formats.text import read_lines
from jaxvision.formats.xml_file import escaped, line

NAME = "VOC"
PLACES: tuple[Place, ...] = ("attributes", "difficult")
LABELS = "labelmap.txt"
SPLIT = "trainval"
FLAGS = ("truncated", "occluded")
UNSPECIFIED = "Unspecified"
"""The devkit's pose of an object whose pose nobody said."""
KNOWN = ("name", "difficult", "bndbox", "attributes", "pose", *FLAGS)


def belongs(path: PurePosixPath) -> bool:
    """Whether it is a file of such a folder that `write` makes."""
    inside = path.parts[0] == "Annotations" and path.suffix == ".xml"
    return inside or path.parts in ((LABELS,), ("ImageSets", "Main", f"{SPLIT}.txt"))


def write(dataset: Dataset, folder: Path, replace: bool = False) -> list[Loss]:
    """Writes the folder; returns what it has no place for. The images are to be put into its `JPEGImages`.

    Raises:
      DataError: for a folder that is not empty (`destination.folder`), a dataset that is not sound, and names that XML can't
        hold.
    """
    destination.check_folder(folder, replace, belongs)
    soundness.check(dataset)
    soundness.check_classes(dataset.classes, _class_fault, NAME)
    files = soundness.places(dataset, ".xml", NAME)
    tally, mapped = _losses(dataset), _mapped(dataset.classes)
    with destination.folder(folder, replace, belongs) as partial:
        (partial / "JPEGImages").mkdir()
        (partial / "ImageSets" / "Main").mkdir(parents=True)
        (partial / "Annotations").mkdir()
        for image in dataset.images:
            path = partial / "Annotations" / files[image.name]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(annotation(image, tally).encode())
        names = [file.removesuffix(".xml") for file in files.values()]
        listed = "".join(f"{name}\n" for name in names if soundness.line_fault(name) is None)
        (partial / "ImageSets" / "Main" / f"{SPLIT}.txt").write_bytes(os.fsencode(listed))
        if mapped is not None:
            (partial / LABELS).write_text(mapped, encoding="utf-8", newline="\n")
    return tally.losses()


def _class_fault(name: str) -> str | None:
    if name != name.strip() or not name:
        return "it is empty, or begins or ends with a space"
    return None if xml_file.is_writable(name) else "it has a character that XML has not"


def _losses(dataset: Dataset) -> Tally:
    for image in dataset.images:
        if not xml_file.is_writable(image.name):
            raise DataError(
                f"image {shown(image.name)} can't be written as {NAME}: it has a character that XML has not"
            )
    if _mapped(dataset.classes) is not None:
        return unplaced(dataset, (*PLACES, "classes"))
    tally, used = unplaced(dataset, PLACES), {each.label for image in dataset.images for each in image.objects}
    kept = [name for name in dataset.classes if name in used]
    tally.note("order of classes", kept != sorted(kept))
    return tally


def _mapped(classes: Sequence[str]) -> str | None:
    """The text of `labelmap.txt`; None where a line can't hold a name."""
    if any(soundness.line_fault(name) or name.startswith("#") for name in classes):
        return None
    return "".join(["# label:color_rgb:parts:actions\n", *(f"{name}:::\n" for name in classes)])


def annotation(image: LabelledImage, tally: Tally) -> str:
    """The text of the file of an image; counts the texts that XML can't hold as they are."""
    height, width = image.size
    parts = [
        "<annotation>\n",
        line(1, "filename", PurePosixPath(image.name).name),
        f"  <size>\n    <width>{width}</width>\n    <height>{height}</height>\n    <depth>3</depth>\n  </size>\n",
        "  <segmented>0</segmented>\n",
        *(_object(each, tally) for each in image.objects),
        "</annotation>\n",
    ]
    return "".join(parts)


def _object(each: LabelledObject, tally: Tally) -> str:
    x0, y0, x1, y1 = each.box
    first = (decimals.trimmed(decimals.EXACT.add(decimals.exact(side), 1)) for side in (x0, y0))
    corners = dict(zip(voc.CORNERS, (*first, decimals.text(x1), decimals.text(y1)), strict=True))
    rest = dict(each.attributes)
    pose = rest.pop("pose") if _is_pose(rest.get("pose")) else UNSPECIFIED
    marks = {name: rest.pop(name) for name in FLAGS if rest.get(name) is True}
    parts = [
        "  <object>\n",
        line(2, "name", each.label),
        line(2, "pose", str(pose)),
        line(2, "truncated", "1" if "truncated" in marks else "0"),
        line(2, "occluded", "1") if "occluded" in marks else "",
        line(2, "difficult", "1" if each.difficult else "0"),
        "    <bndbox>\n",
        *(line(3, corner, text) for corner, text in corners.items()),
        "    </bndbox>\n",
        _attributes(rest, tally),
        "  </object>\n",
    ]
    return "".join(parts)


def _is_pose(value: object) -> bool:
    fits = isinstance(value, str) and value == value.strip() and value not in ("", UNSPECIFIED)
    return fits and xml_file.is_writable(str(value))


def _attributes(attributes: Mapping[str, Value], tally: Tally) -> str:
    if not attributes:
        return ""
    for name, value in attributes.items():
        broken = not xml_file.is_writable(name) or (isinstance(value, str) and not xml_file.is_writable(value))
        tally.note("text with a character that XML has not", broken)
    parts = (
        f"      <attribute>\n{line(4, 'name', name)}{' ' * 8}<{tag}>{escaped(text)}</value>\n      </attribute>\n"
        for name, (tag, text) in ((name, _spelled(value)) for name, value in attributes.items())
    )
    return f"    <attributes>\n{''.join(parts)}    </attributes>\n"


def _spelled(value: Value) -> tuple[str, str]:
    """The tag of a value, and its text."""
    if isinstance(value, bool):
        return "value", "true" if value else "false"
    if isinstance(value, str):
        return 'value type="text"' if value in ("true", "false") else "value", value
    if isinstance(value, tuple):
        return 'value type="list"', json.dumps(list(value))
    return 'value type="number"', json.dumps(value)


def read(folder: Path) -> Opened:
    """The dataset of a folder, all that its `Annotations` have, those in folders below them too.

    Raises:
      DataError: for a file that can't be used, with the object and the field.
      FileNotFoundError: for no such folder.
    """
    with raised_as(DataError):
        year = voc.year_folder(folder)
    found = sorted(path for path in (year / "Annotations").rglob("*.xml") if not path.name.startswith("."))
    roots = [(path, _root(path)) for path in found]
    classes = _classes(year, [root for _, root in roots])
    labels, tally = {name: label for label, name in enumerate(classes)}, Tally()
    images = [_image(path, root, year, labels, classes, tally) for path, root in roots]
    return Opened(Dataset(classes, images), tally.losses())


def _root(path: Path) -> ElementTree.Element:
    try:
        return voc.parsed(content(path, voc.MAX_BYTES))
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path} {error}") from None


def _classes(year: Path, roots: Iterable[ElementTree.Element]) -> tuple[str, ...]:
    """The classes of `labelmap.txt`, and after them others that objects have, sorted; an unused background is none."""
    used = {(node.findtext("name") or "").strip() for root in roots for node in root.findall("object")}
    lines = read_lines(year / LABELS) if (year / LABELS).is_file() else []
    mapped = [each.rsplit(":", 3)[0] for each in lines if each and not each.startswith("#")]
    kept = [name for name in dict.fromkeys(mapped) if name != "background" or name in used]
    kept = list(dict.fromkeys(mapped)) if _is_only_ours(lines) else kept
    return (*kept, *sorted(used - set(kept) - {""}))


def _is_only_ours(lines: Sequence[str]) -> bool:
    """Whether no class has a colour: then a class of the name background is one."""
    return all(each.startswith("#") or each.endswith(":::") for each in lines)


def _image(
    path: Path, root: ElementTree.Element, year: Path, labels: dict[str, int], classes: Sequence[str], tally: Tally
) -> LabelledImage:
    with raised_as(DataError):
        objects = voc.objects_in(root, str(path), labels, refuse)
    name = _name(path, root, year)
    size = voc.stated_size(root) or upright_size(year / "JPEGImages" / name)
    if size is None:
        raise DataError(f"{path}: size is not said, and {year / 'JPEGImages' / name} can't be read")
    nodes = root.findall("object")
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


def _name(path: Path, root: ElementTree.Element, year: Path) -> str:
    """The name of the image: as the file says, if it is named as the file; else that of the image that lies there."""
    said = (root.findtext("filename") or "").replace("\\", "/").rsplit("/", 1)[-1]
    said = said if PurePosixPath(said).stem == path.stem else said.strip()
    below = PurePosixPath(path.relative_to(year / "Annotations").as_posix())
    if PurePosixPath(said).stem == path.stem and said != path.stem:
        return str(below.with_name(said))
    here = year / "JPEGImages" / below.parent
    files = sorted(here.iterdir()) if here.is_dir() else []
    lying = [each.name for each in files if each.stem == path.stem and each.name.lower().endswith(SUFFIXES)]
    return str(below.with_name(lying[0] if lying else f"{path.stem}{PurePosixPath(said).suffix or '.jpg'}"))


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
    if kind == "number" and number(value) is not None:
        return value
    if kind == "list" and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise DataError(
        f"{where} is {shown(text)}; allowed is {'a finite number' if kind == 'number' else 'a list of texts'}"
    )
