"""COCO instances JSON in and out: boxes, polygons, run lengths, ids, `score` and `attributes`.

`bbox` is `x y width height`, its numbers kept as decimals (`formats.decimals`). `model` and `difficult`, which COCO does not
know, stand beside them where there are any. `area` is computed, pixels of run lengths, the insides of polygons, else the box;
but that of a file which says another is kept.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvision.errors import DataError, raised_as, shown
from jaxvision.formats import coco, decimals, destination, json_file, segmentation, soundness
from jaxvision.formats.annotation import AnnotatedImage, AnnotatedObject, Listing, repeated
from jaxvision.formats.image_file import Size, upright_size
from jaxvision.formats.labelled import Dataset, LabelledImage, LabelledObject, Loss, Segmentation
from jaxvision.formats.losses import EVERY_PLACE, Opened, Tally, attributes_of, listed, numbered, score_of, unplaced
from jaxvision.masks.runs import Runs

NAME = "COCO"
SAME_AREA = 1e-6
"""How far, relatively, an area may be from the computed one and still be that: as far as sums of floats differ."""
OF_IMAGES = ("id", "file_name", "height", "width", "attributes")
OF_OBJECTS = (
    "id",
    "image_id",
    "category_id",
    "bbox",
    "area",
    "iscrowd",
    "segmentation",
    "score",
    "attributes",
    "model",
    "difficult",
)
OF_CATEGORIES = ("id", "name")


def write(dataset: Dataset, json: Path, replace: bool = False) -> list[Loss]:
    """Writes the file; returns what it has no place for.

    Raises:
      DataError: for a file that is there already, unless `replace`, and a dataset that is not sound.
    """
    destination.check_file(json, replace)
    found, losses = content(dataset)
    destination.write_file(json, json_file.data(found), replace)
    return losses


def content(dataset: Dataset) -> tuple[dict[str, Any], list[Loss]]:
    """The content of the file, and what it has no place for. Raises DataError for a dataset that is not sound."""
    soundness.check(dataset)
    tally = unplaced(dataset, EVERY_PLACE)
    ids = dataset.category_ids or tuple(range(1, len(dataset.classes) + 1))
    category = dict(zip(dataset.classes, ids, strict=True))
    image_ids = _ids([image.id for image in dataset.images], "id of an image", 0, tally)
    object_ids = iter(
        _ids([each.id for image in dataset.images for each in image.objects], "id of an object", 1, tally)
    )
    annotations = [
        _annotation(each, next(object_ids), id, category[each.label])
        for image, id in zip(dataset.images, image_ids, strict=True)
        for each in image.objects
    ]
    images = [_image(image, id) for image, id in zip(dataset.images, image_ids, strict=True)]
    categories = [{"id": id, "name": name} for name, id in sorted(category.items(), key=lambda each: each[1])]
    return {"images": images, "annotations": annotations, "categories": categories}, tally.losses()


def _ids(given: Sequence[int | None], what: str, least: int, tally: Tally) -> list[int]:
    """The ids, if each has one of its own; else 1, 2, ..."""
    known = [each for each in given if each is not None]
    if len(known) == len(given) == len(set(known)) and min(known, default=least) >= least:
        return known
    tally.note(what, sum(each is not None and each != place for place, each in enumerate(given, start=1)))
    return list(range(1, len(given) + 1))


def _image(image: LabelledImage, id: int) -> dict[str, Any]:
    found: dict[str, Any] = {"id": id, "file_name": image.name, "height": image.size[0], "width": image.size[1]}
    return found | ({"attributes": _attributes(image.attributes)} if image.attributes else {})


def _attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: listed(value) for name, value in attributes.items()}


def _annotation(each: LabelledObject, id: int, image: int, category: int) -> dict[str, Any]:
    x0, y0, x1, y1 = each.box
    x, y = decimals.span(x0, x1), decimals.span(y0, y1)
    found: dict[str, Any] = {
        "id": id,
        "image_id": image,
        "category_id": category,
        "bbox": [decimals.brief(side) for side in (x.start, y.start, x.extent, y.extent)],
        "area": decimals.brief(segmentation.measured(each) if each.area is None else each.area),
        "iscrowd": int(each.crowd),
        "segmentation": written(each.segmentation),
    }
    more = {
        "score": each.score,
        "attributes": _attributes(each.attributes) or None,
        "model": each.model,
        "difficult": int(each.difficult) or None,
    }
    return found | {name: value for name, value in more.items() if value is not None}


def written(mask: Segmentation | None) -> Any:
    """A segmentation as COCO's JSON has it; an empty list for none."""
    if isinstance(mask, Runs):
        return mask.coco()
    return [[decimals.brief(side) for side in polygon] for polygon in mask or ()]


def read(json: Path, images: Path | None = None) -> Opened:
    """The dataset of a file; `images` is the folder of its images, which are read only where the file has no sizes.

    Raises:
      DataError: for a file that can't be used, with the annotation and the field.
      FileNotFoundError: if it is not there.
    """
    with raised_as(DataError):
        listing = coco.read_listing(json, images)
    if repeated(listing.classes):
        name = repeated(listing.classes)[0]
        ids = [str(id) for id, each in zip(listing.category_ids, listing.classes, strict=True) if each == name]
        raise DataError(
            f"{json}: categories {', '.join(ids)} all have the name {shown(name)}; allowed is one of a name"
        )
    tally = Tally()
    tally.note_fields(listing.raw, ("images", "annotations", "categories"))
    for category in listing.raw["categories"]:
        tally.note_fields(category, OF_CATEGORIES, " of a category")
    places = {each.get("id"): place for place, each in enumerate(listing.raw["images"])}
    ordered = sorted(listing.images, key=lambda image: places[image.id])
    found = [_read_image(image, listing, tally) for image in ordered]
    return Opened(Dataset(listing.classes, found, numbered(listing.category_ids)), tally.losses())


def _read_image(image: AnnotatedImage, listing: Listing, tally: Tally) -> LabelledImage:
    tally.note_fields(image.raw, OF_IMAGES, " of an image")
    where = f"{image.annotation_file}: image {image.id}"
    size = image.size or upright_size(image.file)
    if size is None:
        raise DataError(
            f"{where}: height and width are not said, and {image.file} can't be read (--images names its folder)"
        )
    objects = tuple(_read_object(each, listing, size, image.annotation_file, tally) for each in image.objects)
    with raised_as(DataError):
        attributes = attributes_of(image.raw.get("attributes") or {}, tally, where)
    return LabelledImage(image.name, size, objects, image.id, attributes)


def _read_object(each: AnnotatedObject, listing: Listing, size: Size, file: str, tally: Tally) -> LabelledObject:
    raw, where = each.raw, f"{file}: {each.where}"
    tally.note_fields(raw, OF_OBJECTS)
    x, y, width, height = map(float, raw["bbox"])
    model = raw.get("model")
    with raised_as(DataError):
        attributes = attributes_of(raw.get("attributes") or {}, tally, where)
    found = LabelledObject(
        listing.classes[each.label],
        (x, y, decimals.plus(x, width), decimals.plus(y, height)),
        segmentation.read(raw.get("segmentation"), size, where),
        score_of(raw.get("score"), where),
        attributes,
        each.ignore,
        raw.get("difficult") in (1, True),
        None if model is None else str(model),
        each.id,
    )
    is_another = each.area is not None and not math.isclose(each.area, segmentation.measured(found), rel_tol=SAME_AREA)
    return found._replace(area=each.area) if is_another else found
