"""Pascal VOC folders written (`formats.voc_folder` reads them): boxes with decimals, `difficult`, and attributes.

A box is stored as the devkit does, its first pixel 1 and its last one included: `xmin` is x0 + 1, `xmax` is x1. Attributes
that VOC does not know stand as CVAT has them, `<attributes><attribute><name/><value/></attribute></attributes>`; the `type`
of a value, `number`, `list` or `text`, says what it is where it is neither plain text nor `true` or `false`. The classes are
in `labelmap.txt`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from jaxvision.errors import DataError, shown
from jaxvision.formats import decimals, destination, soundness, voc, xml_file
from jaxvision.formats.image_file import SUFFIXES
from jaxvision.formats.labelled import Dataset, LabelledImage, LabelledObject, Loss, Value
from jaxvision.formats.losses import Place, Tally, unplaced
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


def stays(path: PurePosixPath) -> bool:
    """Whether it is an image, or a link to the folder of the images: replacing leaves them."""
    return path.parts[0] == "JPEGImages" and (len(path.parts) == 1 or path.suffix.lower() in SUFFIXES)


def write(dataset: Dataset, folder: Path, replace: bool = False) -> list[Loss]:
    """Writes the folder; returns what it has no place for. The images are to be put into its `JPEGImages`,
    where `replace` leaves them.

    Raises:
      DataError: for a folder that is not empty (`destination.folder`), a dataset that is not sound, and names that XML can't
        hold.
    """
    destination.check_folder(folder, replace, belongs, stays)
    soundness.check(dataset)
    soundness.check_classes(dataset.classes, _class_fault, NAME)
    files = soundness.places(dataset, ".xml", NAME)
    tally, mapped = _losses(dataset), _mapped(dataset.classes)
    with destination.folder(folder, replace, belongs, stays) as partial:
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
        line(1, "filename", image.name),
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
