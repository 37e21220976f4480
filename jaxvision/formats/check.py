"""Checks the annotations of a dataset of objects or of class maps: boxes, ids, categories, masks, images.

Of objects, it can write a repaired copy.

python -m jaxvision.formats.check PATH [--images DIR] [--repaired OUT]
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxvision import commands
from jaxvision.errors import DataError, amount, creating, printable, raised_as
from jaxvision.formats import coco, doubts, faults, map_faults, maps, mending, opening, panoptic, voc, yolo
from jaxvision.formats.annotation import FaultKind, Finding, Listing, Report, numbered, repeated
from jaxvision.formats.image_file import Size
from jaxvision.formats.opening import Layout, recognise
from jaxvision.machine.output import result

SHOWN = 3
"""Faults of each kind that are shown without `--all`."""
NOT_LEFT_OUT = (FaultKind.DUPLICATE_IMAGE, FaultKind.NO_SIZE, FaultKind.NO_LABELS)
"""Found when reading, and reported otherwise, or not at all, of a copy."""
OF_MAPS = (maps.FOLDER, maps.CITYSCAPES, panoptic.FORMAT)
"""Formats of maps, which have no copy of boxes."""


class Flags(NamedTuple):
    """The command line."""

    path: Path
    images: Path | None
    classes: tuple[str, ...]
    values: dict[int, int | None] | None
    repaired: Path | None
    all: bool
    traceback: bool


def parse(argv: Sequence[str] | None) -> Flags:
    """The flags."""
    parser = commands.new_parser(
        "formats.check",
        description="Check the annotations of a dataset of objects or of class maps: a COCO JSON file, of instances or"
        " panoptic, a Pascal VOC folder with its segmentation, a data.yaml of YOLO, Cityscapes, a folder with images/ and"
        " labels/, or with images/ and masks/.",
        epilog="Exit status: 0 without faults, 1 with some, 2 if the dataset can't be opened.",
    )
    parser.add_argument("path", type=commands.expanded, metavar="PATH", help="the dataset")
    parser.add_argument(
        "--images", type=commands.expanded, metavar="DIR", help="the folder of the images of a COCO file"
    )
    parser.add_argument(
        "--classes",
        type=_classes,
        default=(),
        metavar="A,B,...",
        help="of a VOC folder (default: the names in its files; of its maps, VOC's own), or of a folder of YOLO or of maps"
        " without data.yaml and classes.txt",
    )
    parser.add_argument(
        "--values",
        type=_values,
        metavar="V:C,...",
        help="of a folder of maps: the class of each value, from 0, nothing for none (0:0,255:1 for black and white masks)",
    )
    parser.add_argument(
        "--repaired",
        type=commands.expanded,
        metavar="OUT",
        help="write a copy without faults, COCO JSON, a new file (COCO, VOC and YOLO only; maps are mended by hand)",
    )
    parser.add_argument("--all", action="store_true", help=f"show all faults, not only the first {SHOWN} of each kind")
    flags = Flags(**vars(parser.parse_args(argv)))
    if flags.repaired is not None and flags.repaired.exists():
        parser.error(f"--repaired: {flags.repaired} is there already; name a file that is not")
    if flags.repaired is not None and not flags.repaired.parent.is_dir():
        parser.error(f"--repaired: there is no folder {flags.repaired.parent} to write {flags.repaired.name} into")
    return flags


def _classes(text: str) -> tuple[str, ...]:
    names = commands.names(text)
    if repeated(names):
        raise argparse.ArgumentTypeError(f"{text!r} has a name twice; allowed are names, each of them once")
    return names


def _values(text: str) -> dict[int, int | None]:
    try:
        pairs = [each.split(":") for each in text.split(",")]
        return {int(value): int(label) if label.strip() else None for value, label in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed are value:class pairs, such as 0:0,255:1") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(argv)
    return commands.status_of(lambda: run(flags), flags.traceback)


def run(flags: Flags) -> int:
    """Prints what is wrong, writes the copy; returns the exit status."""
    unread: list[Finding] = []
    with raised_as(DataError):
        listing = opened(flags, unread.append)
    if flags.repaired is not None and listing.format in OF_MAPS:
        raise DataError(
            f"--repaired writes boxes (COCO, VOC and YOLO only), and {flags.path} has maps: check it without --repaired, and"
            " mend or remove the files that are named"
        )
    if not listing.images and not unread:
        raise DataError(f"{flags.path} has no image")
    sizes = faults.image_sizes(listing)
    _check_folder(listing, sizes)
    known = [faults.known_size(image, size) for image, size in zip(listing.images, sizes, strict=True)]
    maps_alone = listing.meaning is not None and not any(image.objects for image in listing.images)
    found = [*unread, *(() if maps_alone else doubts.doubts(listing, known)), *faults.faults(listing, sizes)]
    found += map_faults.faults(listing, sizes)
    result(printable(summary(flags.path, listing, found, len(found) if flags.all else SHOWN)))
    if flags.repaired is not None:
        left = write_repaired(flags.repaired, listing, sizes, unread)
        return 1 if found or left else 0
    return 1 if found else 0


def opened(flags: Flags, report: Report) -> Listing:
    """The listing of the dataset, in whichever form it is. Raises ValueError or FileNotFoundError for what is none."""
    layout, path = recognise(flags.path)
    if layout not in (Layout.COCO, Layout.PANOPTIC) and flags.images is not None:
        raise DataError(f"--images names the images of a COCO file, and {path} is none")
    if layout is not Layout.MAP_FOLDER and flags.values is not None:
        raise DataError(f"--values says what the masks of a folder with images/ and masks/ hold, and {path} is none")
    match layout:
        case Layout.YOLO_YAML:
            return _described(path, report)
        case Layout.YOLO_FOLDER:
            return _yolo_folder(path, flags.classes, report)
        case Layout.VOC:
            return _voc_folder(path, flags.classes, report)
        case Layout.PANOPTIC:
            return panoptic.read_listing(path, flags.images, None, report)
        case Layout.MAP_FOLDER:
            return maps.read_folder(path, flags.classes or None, values=flags.values, report=report)
        case Layout.CITYSCAPES:
            return _cityscapes(path)
    return opening.open(path, images=flags.images, report=report)


def _described(path: Path, report: Report) -> Listing:
    """Listing of all splits. Raises FileNotFoundError if none of their places is there."""
    described = yolo.read_yaml(path)
    absent: list[FileNotFoundError] = []
    folders: dict[Path, Path] = {}
    present: list[Path] = []
    places = [place for places in described.splits.values() for place in places]
    for place in places:
        try:
            here = yolo.listed([place], described.root).labelled
        except FileNotFoundError as error:
            absent.append(error)
            continue
        present.append(place)
        folders.update({_labels_of(each, place): place for each in here if each.image.is_relative_to(place)})
    if len(absent) == len(places):
        raise absent[0] if absent else DataError(f"{path} names no images: it has no train, val and test")
    for error in absent:
        report(Finding(FaultKind.NO_PLACE, str(path), "", str(error)))
    found = yolo.each_once(yolo.listed(present, described.root))
    return _yolo(found, described.root, described.classes, folders, report)


def _labels_of(labelled: yolo.Labelled, images: Path) -> Path:
    """The folder of texts that belongs to a folder of images, by one of them."""
    return labelled.text.parents[len(labelled.image.relative_to(images).parts) - 1]


def _yolo_folder(path: Path, classes: Sequence[str], report: Report) -> Listing:
    images, labels = path / "images", path / "labels"
    return _yolo(
        yolo.in_folder(images, labels), images, classes or opening.folder_classes(path), {labels: images}, report
    )


def _yolo(
    found: yolo.Images, root: Path, classes: Sequence[str], folders: Mapping[Path, Path], report: Report
) -> Listing:
    """Listing of these images; `folders` of texts, each with that of its images, should hold no other text."""
    used = {each.text for each in found.labelled}
    texts = {text: folder for folder in sorted(folders) for text in yolo.files_below(folder, (".txt",))}
    for text in sorted(texts):
        if text not in used and text.name != "classes.txt":
            report(
                Finding(FaultKind.MISSING, str(text), "", f"there is no image of its name below {folders[texts[text]]}")
            )
    return yolo.read_listing(found, root, classes, report)


def _voc_folder(year: Path, classes: Sequence[str], report: Report) -> Listing:
    """Listing of the annotation files and of the maps; an image that has a map alone has no box."""
    names, files, mapped = voc.annotated(year), voc.image_files(year), maps.voc_names(year)
    lists = [("Main", split, ids, names, "Annotations/{}.xml") for split, ids in sorted(voc.splits(year).items())]
    lists += [
        ("Segmentation", split, maps.voc_split(year, split), mapped, "SegmentationClass/{}.png")
        for split in maps.voc_splits(year)
    ]
    for place, split, ids, known, file in lists:
        for name in sorted(set(ids) - set(known)):
            value = f"{name}: there is no file {year / file.format(name)}"
            kind = FaultKind.NO_ANNOTATIONS if place == "Main" else FaultKind.NO_MAP
            report(Finding(kind, str(year / "ImageSets" / place / f"{split}.txt"), "", value))
    if not names and not mapped:
        value = f"none of {amount(len(files), 'image')} in JPEGImages has an XML file in Annotations"
        report(Finding(FaultKind.NO_LABELS, str(year), "", value))
    bare = tuple(file for name in sorted(set(files) - {*names, *mapped}) for file in files[name])
    listing = voc.read_listing(year, names, classes or voc.class_names(year), report)._replace(unlabelled=bare)
    if not mapped:
        return listing
    meaning = numbered((maps.BACKGROUND, *classes)) if classes else maps.VOC
    return maps.with_voc_maps(listing, maps.read_voc(year, mapped, meaning))


def _cityscapes(root: Path) -> Listing:
    """Listing of all splits, of fine annotations if there are any; names begin with the split."""
    annotations = "gtFine" if (root / "gtFine").is_dir() else "gtCoarse"
    parts = {
        split: maps.read_cityscapes(root, split, annotations) for split in maps.cityscapes_splits(root, annotations)
    }
    images = [
        image._replace(name=f"{split}/{image.name}", id=0) for split, part in parts.items() for image in part.images
    ]
    if not images:
        raise DataError(f"{root} has no image: it holds no {annotations}/<split>/<city>/ with images in leftImg8bit")
    numbered_images = [image._replace(id=place) for place, image in enumerate(images, start=1)]
    return next(iter(parts.values()))._replace(folder=root / "leftImg8bit", images=numbered_images)


def _check_folder(listing: Listing, sizes: Sequence[Size | Finding]) -> None:
    """Raises DataError where no image is there: a wrong folder, and no fault of each image."""
    if sizes and all(isinstance(size, Finding) and size.kind is FaultKind.MISSING for size in sizes):
        first = listing.images[0]
        advice = coco.advice(Path(first.annotation_file), listing.raw) if listing.raw else ""
        raise DataError(f"no image is there ({len(sizes):,} missing), first {first.file}{advice}")


def summary(path: Path, listing: Listing, found: Sequence[Finding], shown: int) -> str:
    """What was read, how many faults of each kind, and the first of each."""
    boxes = sum(len(image.objects) for image in listing.images)
    mapped = sum(image.map is not None for image in listing.images)
    amounts = [amount(boxes, "box")] * bool(boxes or not mapped) + [amount(mapped, "map")] * bool(mapped)
    amounts = ", ".join([*amounts, amount(len(listing.classes), "class")])
    lines = [f"{path}: {listing.format}, {amount(len(listing.images), 'image')} in {listing.folder}, {amounts}"]
    lines += [f"  {text}" for text in listing.left_out]
    if listing.unlabelled:
        lines.append(
            f"  {amount(len(listing.unlabelled), 'image')} without an annotation file, first {listing.unlabelled[0]}"
        )
    by_kind = {kind: [each for each in found if each.kind is kind] for kind in FaultKind}
    counted = {kind: each for kind, each in by_kind.items() if each}
    width = max(map(len, counted), default=0)
    lines += [f"  {kind:<{width}}  {len(each)}" for kind, each in counted.items()] or ["  no faults"]
    for kind, each in counted.items():
        lines += ["", f"{kind}:", *(f"  {finding}" for finding in each[:shown])]
        if len(each) > shown:
            lines.append(f"  ... and {len(each) - shown} more (--all)")
    return "\n".join(lines)


def write_repaired(path: Path, listing: Listing, sizes: Sequence[Size | Finding], unread: Sequence[Finding]) -> int:
    """Writes the copy, whole or not at all, prints what was done, and returns how many faults it has still.

    Raises FileExistsError if the file is there by now.
    """
    copy = mending.repaired(listing, sizes)
    changes = Counter(copy.changes)
    text = _finite_json(copy.content, changes)
    try:
        with creating(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except FileExistsError:
        raise FileExistsError(f"--repaired: {path} is there by now; nothing was written") from None
    amounts = f"{amount(len(copy.content['images']), 'image')}, {amount(len(copy.content['annotations']), 'box')}"
    print(f"\nwrote {path}: COCO JSON of images in {listing.folder}, {amounts}, annotations numbered from 1")
    changes.update(f"left out: {finding.kind}" for finding in unread if finding.kind not in NOT_LEFT_OUT)
    print("\n".join(f"  {text}  {count}" for text, count in changes.items()) or "  nothing else was changed")
    return _tell_remaining(mending.remaining(path, listing.folder))


def _tell_remaining(faults: Mapping[FaultKind, int]) -> int:
    """Prints what is wrong with the copy still, for a person to mend; returns how many faults that are."""
    count = sum(faults.values())
    if count:
        listed = ", ".join(f"{kind} {number}" for kind, number in faults.items())
        print(f"  {amount(count, 'fault')} remain{'s' if count == 1 else ''}: {listed}")
    return count


def _finite_json(content: dict[str, Any], changes: Counter[str]) -> str:
    """The content as JSON, which knows no NaN and no infinity: null instead."""
    try:
        return json.dumps(content, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(content, changes), allow_nan=False)


def _finite(value: Any, changes: Counter[str]) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each, changes) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each, changes) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        changes["set to null: number that is not finite"] += 1
        return None
    return value


if __name__ == "__main__":
    commands.enter(main)
