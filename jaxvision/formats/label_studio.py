"""Label Studio's tasks in and out: a folder of `tasks.json` to import, and `label_config.xml` for the project's settings.

What a model found is a prediction, with its score and the model as `model_version`; what a person drew is an annotation: so
no guess is taken for a label. Boxes and polygons are percents with 13 decimals, cut to the image, as none may be above 100;
masks of run lengths are brushes. Polygons of one object are the children of its first. Each attribute is a control of its own
for every region. Images are files of Label Studio's local storage, named from its root.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from jaxvision.formats import brush, decimals, destination, json_file, segmentation, soundness, xml_file
from jaxvision.formats.image_file import Size
from jaxvision.formats.labelled import Dataset, LabelledImage, LabelledObject, Loss, Value
from jaxvision.formats.losses import Place, Tally, listed, unplaced
from jaxvision.formats.xml_file import opening
from jaxvision.masks import runs
from jaxvision.masks.runs import Runs

NAME = "Label Studio"
PLACES: tuple[Place, ...] = ("score", "model", "attributes", "attributes of images", "classes", "mask")
TASKS, CONFIG = "tasks.json", "label_config.xml"
LOCAL = "/data/local-files/?d="
"""Address of a file of the local storage, before its path."""
IMAGE = "image"
"""Name of the image's tag, and of its field in the data of a task."""
CONTROLS = {"box": "RectangleLabels", "polygon": "PolygonLabels", "brush": "BrushLabels"}
"""Controls that draw regions, by their names."""
PREFIX = "attribute "
"""Before the name of an attribute's control, where it would be another's."""
OF_DATA = (IMAGE, "width", "height")


def belongs(path: PurePosixPath) -> bool:
    """Whether it is a file of such a folder that `write` makes."""
    return path.parts in ((TASKS,), (CONFIG,))


def write(dataset: Dataset, folder: Path, replace: bool = False) -> list[Loss]:
    """Writes the folder; returns what it has no place for.

    Raises:
      DataError: for a folder that is not empty (`destination.folder`), a dataset that is not sound, and classes whose names
        XML can't hold.
    """
    destination.check_folder(folder, replace, belongs)
    soundness.check(dataset)
    soundness.check_classes(dataset.classes, _class_fault, NAME)
    tally = unplaced(dataset, PLACES)
    controls = _controls(dataset, tally)
    tasks = [task(image, controls, tally) for image in dataset.images]
    with destination.folder(folder, replace, belongs) as partial:
        (partial / TASKS).write_bytes(json_file.data(tasks, indent=1))
        (partial / CONFIG).write_bytes(config(dataset.classes, controls).encode())
    return tally.losses()


def _class_fault(name: str) -> str | None:
    if not name:
        return "it is empty"
    return None if xml_file.is_writable(name) else "it has a character that XML has not"


def _controls(dataset: Dataset, tally: Tally) -> dict[str, str]:
    """The tag of the control of each attribute: Choices for true and false, Number, or TextArea."""
    found: dict[str, set[str]] = {}
    for each in (each for image in dataset.images for each in image.objects):
        for name, value in each.attributes.items():
            if xml_file.is_writable(name):
                found.setdefault(name, set()).add(_control(value))
            else:
                tally.note("attribute whose name has a character that XML has not")
    return {name: next(iter(tags)) if len(tags) == 1 else "TextArea" for name, tags in sorted(found.items())}


def _control(value: Value) -> str:
    if isinstance(value, bool):
        return "Choices"
    return "Number" if isinstance(value, int | float) else "TextArea"


def control_name(attribute: str) -> str:
    """The name of the control of an attribute."""
    taken = attribute in (*CONTROLS, IMAGE) or attribute.startswith(PREFIX) or not attribute.strip() or "," in attribute
    return f"{PREFIX}{attribute}" if taken else attribute


def config(classes: Sequence[str], controls: Mapping[str, str]) -> str:
    """The labelling configuration."""
    parts = [f'<View>\n  <Image name="{IMAGE}" value="${IMAGE}"/>\n']
    for name, tag in CONTROLS.items():
        labels = "".join(f"    <{opening('Label', {'value': each})}/>\n" for each in classes)
        parts.append(f"  <{opening(tag, {'name': name, 'toName': IMAGE})}>\n{labels}  </{tag}>\n")
    for attribute, tag in controls.items():
        choices = "".join(f'    <Choice value="{each}"/>\n' for each in ("true", "false")) if tag == "Choices" else ""
        said = {"name": control_name(attribute), "toName": IMAGE, "perRegion": "true"}
        parts.append(f"  <{opening(tag, said)}>\n{choices}  </{tag}>\n")
    return "".join([*parts, "</View>\n"])


def task(image: LabelledImage, controls: Mapping[str, str], tally: Tally) -> dict[str, Any]:
    """The task of an image."""
    height, width = image.size
    said = {name: listed(value) for name, value in image.attributes.items() if name not in OF_DATA}
    for name in image.attributes.keys() & set(OF_DATA):
        tally.note(f"attribute {name} of an image")
    data = {IMAGE: LOCAL + quote(image.name, errors="surrogateescape"), "width": width, "height": height, **said}
    drawn, found = list[dict[str, Any]](), dict[str | None, list[tuple[LabelledObject, list[dict[str, Any]]]]]()
    for place, each in enumerate(image.objects, start=1):
        regions = list(_regions(each, place, image.size, controls, tally))
        if each.score is None and each.model is None:
            drawn += regions
        else:
            found.setdefault(each.model, []).append((each, regions))
    predictions = [_prediction(model, objects) for model, objects in found.items()]
    return {"data": data, "annotations": [{"result": drawn}] if drawn else [], "predictions": predictions}


def _prediction(model: str | None, objects: Sequence[tuple[LabelledObject, list[dict[str, Any]]]]) -> dict[str, Any]:
    """What a model found in an image; its score is the mean, by which Label Studio sorts tasks."""
    scores = [each.score for each, _ in objects if each.score is not None]
    said: dict[str, Any] = {} if model is None else {"model_version": model}
    said |= {"score": sum(scores) / len(scores)} if scores else {}
    return said | {"result": [region for _, regions in objects for region in regions]}


def _regions(
    each: LabelledObject, place: int, size: Size, controls: Mapping[str, str], tally: Tally
) -> Iterator[dict[str, Any]]:
    """The results of an object: its regions, then its attributes, which have the id of the first."""
    shared = {"to_name": IMAGE, "original_width": size[1], "original_height": size[0], "image_rotation": 0}
    for part, (name, value) in enumerate(_forms(each, size, tally)):
        tag = CONTROLS[name].lower()
        said: dict[str, Any] = {"id": f"{place}" if part == 0 else f"{place}-{part}", "from_name": name, "type": tag}
        said |= {} if part == 0 else {"parentID": str(place)}
        said |= {} if each.score is None else {"score": each.score}
        yield {**said, **shared, "value": {**value, tag: [each.label]}}
    for name, value in each.attributes.items():
        if name in controls:
            tag = controls[name]
            tally.note(f"type of attribute {name}", _control(value) != tag)
            said = {"id": str(place), "from_name": control_name(name), "type": tag.lower()}
            yield {**said, **shared, "value": _spelled(value, tag)}


def _spelled(value: Value, tag: str) -> dict[str, Any]:
    """The value of an attribute as the result of its control."""
    if tag == "Number":
        return {"number": value}
    if tag == "Choices":
        return {"choices": ["true" if value else "false"]}
    if isinstance(value, tuple):
        return {"text": list(value)} | ({"several": True} if len(value) < 2 else {})
    return {
        "text": [value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)]
    }


def _forms(each: LabelledObject, size: Size, tally: Tally) -> Iterator[tuple[str, dict[str, Any]]]:
    """The control and the value of each region of an object."""
    if isinstance(each.segmentation, Runs):
        yield "brush", {"format": "rle", "rle": brush.encode(runs.decode(each.segmentation))}
        return
    cuts = [segmentation.clamped(sides, size) for sides in each.segmentation or (each.box,)]
    tally.note("part beyond the border of its image", tuple(cuts) != tuple(each.segmentation or (each.box,)))
    for cut in cuts:
        pairs = [percents(cut[place : place + 2], size) for place in range(0, len(cut), 2)]
        if each.segmentation:
            yield "polygon", {"points": pairs, "closed": True}
        else:
            (x, y), (width, height) = pairs[0], _extents(cut, size)
            yield "box", {"x": x, "y": y, "width": width, "height": height, "rotation": 0}


def percents(point: Sequence[float], size: Size) -> list[float]:
    """A point in percent of the sides."""
    return [float(decimals.fraction(side, of, 100)) for side, of in zip(point, (size[1], size[0]), strict=True)]


def _extents(box: Sequence[float], size: Size) -> list[float]:
    """Width and height in percent of the sides."""
    pairs = zip(box[:2], box[2:], (size[1], size[0]), strict=True)
    ends = ((decimals.EXACT.subtract(decimals.exact(end), decimals.exact(start)), side) for start, end, side in pairs)
    return [float(decimals.fraction(extent, side, 100)) for extent, side in ends]
