"""YOLO folders in and out: `data.yaml` and a text an image, a line an object, its box or the polygon of its mask.

Coordinates are fractions of the image's sides with 15 decimals; read, they are rounded to a billionth of a pixel. A mask of
several parts or with holes becomes one polygon, its parts joined by lines that are walked there and back, as Ultralytics'
converter joins parts: COCO's API makes the same pixels of it.
"""

import io
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path, PurePosixPath

from jaxvision.errors import DataError, amount, raised_as
from jaxvision.formats import decimals, destination, opening, segmentation, soundness, yolo
from jaxvision.formats.annotation import refuse
from jaxvision.formats.files import content
from jaxvision.formats.image_file import SUFFIXES, Size, upright_size
from jaxvision.formats.labelled import Dataset, LabelledImage, LabelledObject, Loss
from jaxvision.formats.losses import Opened, Place, Tally, unplaced
from jaxvision.formats.opening import Layout
from jaxvision.masks import polygons
from jaxvision.masks.runs import Runs

NAME = "YOLO"
PLACES: tuple[Place, ...] = ("classes", "mask")
YAML = "data.yaml"


def belongs(path: PurePosixPath) -> bool:
    """Whether it is a file of such a folder that `write` makes."""
    return path.parts == (YAML,) or ("labels" in path.parts[:-1] and path.suffix == ".txt")


def stays(path: PurePosixPath) -> bool:
    """Whether it is an image, or a link to the folder of the images: replacing leaves them."""
    return path.parts[0] == "images" and (len(path.parts) == 1 or path.suffix.lower() in SUFFIXES)


def write(dataset: Dataset, folder: Path, replace: bool = False) -> list[Loss]:
    """Writes the folder; returns what it has no place for. The images are to be put into its `images`, where `replace`
    leaves them.

    Raises:
      DataError: for a folder that is not empty (`destination.folder`), a dataset that is not sound, and two images whose
        names differ in their suffix alone.
    """
    destination.check_folder(folder, replace, belongs, stays)
    soundness.check(dataset)
    soundness.check_classes(dataset.classes, _class_fault, NAME)
    soundness.places(dataset, ".txt", NAME)
    tally = unplaced(dataset, PLACES)
    numbers = {name: str(number) for number, name in enumerate(dataset.classes)}
    with destination.folder(folder, replace, belongs, stays) as partial:
        (partial / "images").mkdir()
        (partial / "labels").mkdir()
        (partial / YAML).write_bytes(description(dataset.classes).encode())
        for image in dataset.images:
            path = partial / yolo.text_of(Path("images", image.name))
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = (f"{numbers[each.label]} {' '.join(_sides(each, image.size, tally))}\n" for each in image.objects)
            path.write_text("".join(lines), encoding="utf-8", newline="\n")
    return tally.losses()


def _class_fault(name: str) -> str | None:
    return soundness.encoding_fault(name) if name.strip() else "it is empty"


def description(classes: Sequence[str]) -> str:
    """The text of `data.yaml`: without `path`, so that it holds wherever the folder is moved.

    Ultralytics wants a `val`; it is the same folder, which `opening.splits` takes for no split of its own.
    """
    import yaml

    text = io.StringIO()
    content = {"train": "images", "val": "images", "names": dict(enumerate(classes))}
    yaml.safe_dump(content, text, allow_unicode=True, sort_keys=False, width=1 << 30)
    return text.getvalue()


def _sides(each: LabelledObject, size: Size, tally: Tally) -> list[str]:
    """The numbers of an object: a polygon where it has a mask, else its box; cut to the image, as no fraction is above 1."""
    points = _polygon(each, size, tally) if each.segmentation else None
    given = tuple(each.box if points is None else points)
    cut = segmentation.clamped(given, size)
    tally.note("part beyond the border of its image", cut != given)
    if points is None:
        return [decimals.trimmed(part) for part in _centred(cut, size)]
    sides = (size[1], size[0]) * (len(cut) // 2)
    return [decimals.trimmed(decimals.fraction(*pair)) for pair in zip(cut, sides, strict=True)]


def _centred(box: Sequence[float], size: Size) -> list[Decimal]:
    """Centre, width and height in fractions of the sides."""
    x0, y0, x1, y1 = map(decimals.exact, box)
    x, y = (decimals.half(decimals.EXACT.add(*ends)) for ends in ((x0, x1), (y0, y1)))
    across, down = decimals.EXACT.subtract(x1, x0), decimals.EXACT.subtract(y1, y0)
    return [decimals.fraction(value, size[1 - place % 2]) for place, value in enumerate((x, y, across, down))]


def _polygon(each: LabelledObject, size: Size, tally: Tally) -> Sequence[float] | None:
    """One polygon of a mask; None for one without a pixel."""
    mask = each.segmentation
    if mask is not None and not isinstance(mask, Runs):
        found = mask[0] if len(mask) == 1 else polygons.joined(mask)
        if len(mask) == 1 or polygons.of_polygons([found], size) == polygons.of_polygons(mask, size):
            return found
        tally.note("outline of polygons that cover each other")
    found = polygons.edges(segmentation.as_runs(mask or (), size))
    tally.note("mask without a pixel", not found)
    return polygons.joined([each.polygon for each in found]) if found else None


def read(path: Path, images: Path | None = None) -> Opened:
    """The dataset of a `data.yaml`, or of a folder with `images/`, `labels/` and `classes.txt`.

    Args:
      path: of the file or the folder.
      images: the folder of the images, if they are not beside the texts: these are then in `labels/` of the dataset.

    Raises:
      DataError: for a line that can't be used, and an image whose size can't be read.
      FileNotFoundError: if it, or what it names, is not there.
    """
    (layout, found), tally = opening.recognise(path), Tally()
    with raised_as(DataError):
        if layout is Layout.YOLO_YAML:
            described = yolo.read_yaml(found)
            root, classes = described.root, described.classes
            places = list(dict.fromkeys(place for places in described.splits.values() for place in places))
            tally.note("split", len(described.splits) if len(places) > 1 else 0)
            listed = yolo.listed(places, root) if images is None else yolo.in_folder(images, root / "labels")
        else:
            root, classes = found, opening.folder_classes(found)
            tally.note("split", len(opening.splits(path)))
            listed = yolo.in_folder(images or root / "images", root / "labels")
    labelled = yolo.each_once(listed).labelled
    _check_images(labelled, root)
    tally.note("text without an image", _texts_alone(labelled))
    return Opened(Dataset(classes, _named([_image(each, classes) for each in labelled])), tally.losses())


def _check_images(labelled: Sequence[yolo.Labelled], root: Path) -> None:
    texts = [] if labelled else yolo.files_below(root, (".txt",))
    if texts:
        what = f"{amount(len(texts), 'text')}, first {texts[0]}, and no image"
        raise DataError(f"{root} has {what}: the sizes of the images are needed (--images names their folder)")


def _texts_alone(labelled: Iterable[yolo.Labelled]) -> int:
    """Texts beside those of the images, that are of no image."""
    known = {each.text for each in labelled}
    folders = {text.parent for text in known}
    found = {path for folder in folders if folder.is_dir() for path in folder.glob("*.txt")}
    return len([path for path in found - known if path.name not in yolo.BELONGING])


def _named(images: Sequence[LabelledImage]) -> list[LabelledImage]:
    """The images, named from below `images/` where all are there."""
    above = "images/"
    if not all(image.name.startswith(above) for image in images):
        return list(images)
    return [image._replace(name=image.name.removeprefix(above)) for image in images]


def _image(each: yolo.Labelled, classes: Sequence[str]) -> LabelledImage:
    size = upright_size(each.image)
    if size is None:
        raise DataError(f"{each.image} can't be read, and YOLO says no sizes of images")
    name = PurePosixPath(Path(each.name).as_posix())
    return LabelledImage(str(name), size, tuple(_objects(each.text, size, classes)))


def _objects(text: Path, size: Size, classes: Sequence[str]) -> Iterable[LabelledObject]:
    if not text.exists():
        return
    lines = content(text, yolo.MAX_BYTES).decode("utf-8-sig", "replace").splitlines()
    for place, words in enumerate(map(str.split, lines), start=1):
        with raised_as(DataError):
            line = yolo.parsed(words, f"line {place}", str(text), classes, refuse) if words else None
        if line is not None:
            yield _object(classes[line.label], line, size)


def _object(label: str, line: yolo.Line, size: Size) -> LabelledObject:
    height, width = size
    if line.is_polygon:
        sides = (width, height) * (len(line.sides) // 2)
        polygon = tuple(decimals.pixels(*pair) for pair in zip(line.sides, sides, strict=True))
        return LabelledObject(label, segmentation.around((polygon,)), (polygon,))
    x, y, across, down = map(decimals.exact, line.sides)
    ends = ((x, across, width), (y, down, height))
    (x0, x1), (y0, y1) = ([_end(*each, sign) for sign in (-1, 1)] for each in ends)
    return LabelledObject(label, (x0, y0, x1, y1))


def _end(centre: Decimal, extent: Decimal, side: int, sign: int) -> float:
    return decimals.pixels(decimals.EXACT.add(centre, decimals.half(decimals.EXACT.multiply(extent, sign))), side)
