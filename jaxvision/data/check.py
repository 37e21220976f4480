"""Checks the annotations of a detection dataset: boxes, ids, categories, images; and can write a repaired copy.

python -m jaxvision.data.check PATH [--images DIR] [--repaired OUT]
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxvision.data import annotation_faults, coco, voc, yolo_txt
from jaxvision.data.annotation_files import Finding, Kind, Listing, Tell
from jaxvision.data.placement import Size

SHOWN = 3
"""Of each kind, without `--all`."""
DESCRIPTIONS = ("data.yaml", "data.yml")


class Flags(NamedTuple):
    """The command line."""

    path: Path
    images: Path | None
    classes: tuple[str, ...]
    repaired: Path | None
    all: bool


class Problem(ValueError):
    """What the user is to mend before anything can be checked: told in one line."""


def parse(argv: Sequence[str]) -> Flags:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxvision.data.check",
        description="Check the annotations of a detection dataset: a COCO JSON file, a Pascal VOC folder, a data.yaml of"
        " YOLO, or a folder with images/ and labels/.",
        epilog="Exit status: 0 without faults, 1 with some, 2 if the dataset can't be opened.",
        allow_abbrev=False,
    )
    parser.add_argument("path", type=_path, metavar="PATH", help="the dataset")
    parser.add_argument("--images", type=_path, metavar="DIR", help="the folder of the images of a COCO file")
    parser.add_argument(
        "--classes",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="A,B,...",
        help="of a VOC folder (default: those of Pascal VOC), or of a YOLO folder without data.yaml and classes.txt",
    )
    parser.add_argument(
        "--repaired", type=_path, metavar="OUT", help="write a copy without faults, COCO JSON, a new file"
    )
    parser.add_argument("--all", action="store_true", help=f"show all faults, not only the first {SHOWN} of each kind")
    flags = Flags(**vars(parser.parse_args(argv)))
    if flags.repaired is not None and flags.repaired.exists():
        parser.error(f"--repaired: {flags.repaired} is there already; name a file that is not")
    if flags.repaired is not None and not flags.repaired.parent.is_dir():
        parser.error(f"--repaired: there is no folder {flags.repaired.parent} to write {flags.repaired.name} into")
    return flags


def _path(text: str) -> Path:
    return Path(text).expanduser()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(list(sys.argv[1:] if argv is None else argv))
    try:
        return run(flags)
    except (Problem, OSError) as error:
        print(f"jaxvision: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def run(flags: Flags) -> int:
    """Prints what is wrong, writes the copy; returns the exit status."""
    unread: list[Finding] = []
    try:
        listing = opened(flags, unread.append)
    except ValueError as error:
        raise Problem(str(error)) from error
    sizes = annotation_faults.images(listing)
    _check_folder(listing, sizes)
    found = [*unread, *annotation_faults.faults(listing, sizes)]
    print(summary(flags.path, listing, found, len(found) if flags.all else SHOWN))
    if flags.repaired is not None:
        write_repaired(flags.repaired, listing, sizes, unread)
    return 1 if found else 0


def opened(flags: Flags, tell: Tell) -> Listing:
    """The listing of the dataset, in whichever form it is. Raises ValueError or FileNotFoundError for what is none."""
    path = flags.path
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if path.suffix.lower() == ".json":
        return coco.read_listing(path, flags.images or images_of(path), tell)
    if flags.images is not None:
        raise Problem(f"--images names the images of a COCO file, and {path} is none")
    for name in (path, *(path / name for name in DESCRIPTIONS)):
        if name.suffix.lower() in (".yaml", ".yml") and name.is_file():
            return _described(name, tell)
    if path.is_dir() and (path / "images").is_dir() and (path / "labels").is_dir():
        return _yolo_folder(path, flags.classes, tell)
    if path.is_dir():
        return _voc_folder(voc.year_folder(path), flags.classes or voc.VOC_CLASSES, tell)
    raise Problem(f"{path} is no dataset known here: a COCO .json, a data.yaml, a folder of VOC or of YOLO")


def images_of(json: Path) -> Path:
    """Where the images of a COCO file are likely to be: the folder of its name, as `train/` beside `train.json`.

    Also `val2017/` beside `annotations/instances_val2017.json`, `images/` beside the file; else where the file is.
    """
    likely = json.with_suffix(""), json.parent.parent / json.stem.split("_")[-1], json.parent / "images"
    return next((place for place in likely if place.is_dir()), json.parent)


def _described(path: Path, tell: Tell) -> Listing:
    described = yolo_txt.read_yaml(path)
    places = [place for places in described.splits.values() for place in places]
    found = {each.image: each for place in places for each in yolo_txt.listed(place, described.root)}
    return yolo_txt.read_listing(list(found.values()), described.root, described.classes, tell)


def _yolo_folder(path: Path, classes: Sequence[str], tell: Tell) -> Listing:
    images, labels, names = path / "images", path / "labels", ("classes.txt", "labels/classes.txt")
    for file in [] if classes else [path / name for name in names if (path / name).is_file()]:
        classes = file.read_text(encoding="utf-8").split("\n")
        classes = [name.strip() for name in classes if name.strip()]
    if not classes:
        raise Problem(f"{path} has no data.yaml and no classes.txt: name the classes in their order, --classes=A,B,...")
    found = yolo_txt.in_folder(images, labels)
    used = {each.text for each in found}
    for text in sorted(yolo_txt.files_below(labels, (".txt",))):
        if text not in used and text.name != "classes.txt":
            tell(Finding(Kind.MISSING, str(text), "", f"there is no image of its name below {images}"))
    return yolo_txt.read_listing(found, images, classes, tell)


def _voc_folder(year: Path, classes: Sequence[str], tell: Tell) -> Listing:
    names = voc.annotated(year)
    for split, ids in sorted(voc.splits(year).items()):
        for name in sorted(set(ids) - set(names)):
            value = f"{name}: there is no file {year / 'Annotations' / name}.xml"
            tell(Finding(Kind.NO_ANNOTATIONS, str(year / "ImageSets" / "Main" / f"{split}.txt"), "", value))
    return voc.read_listing(year, names, classes, tell)


def _check_folder(listing: Listing, sizes: Sequence[Size | Finding]) -> None:
    """Raises Problem where no image is there: a wrong folder, and no fault of each image."""
    if sizes and all(isinstance(size, Finding) and size.kind is Kind.MISSING for size in sizes):
        raise Problem(f"none of {len(sizes)} images is there, first {listing.pictures[0].file}; is it --images=DIR?")


def summary(path: Path, listing: Listing, found: Sequence[Finding], shown: int) -> str:
    """What was read, how many faults of each kind, and the first of each."""
    boxes = sum(len(picture.entries) for picture in listing.pictures)
    amounts = f"{len(listing.pictures)} images in {listing.folder}, {boxes} boxes, {len(listing.classes)} classes"
    lines = [f"{path}: {listing.form}, {amounts}"]
    by_kind = {kind: [each for each in found if each.kind is kind] for kind in Kind}
    counted = {kind: each for kind, each in by_kind.items() if each}
    width = max(map(len, counted), default=0)
    lines += [f"  {kind:<{width}}  {len(each)}" for kind, each in counted.items()] or ["  no faults"]
    for kind, each in counted.items():
        lines += ["", f"{kind}:", *(f"  {finding}" for finding in each[:shown])]
        if len(each) > shown:
            lines.append(f"  ... and {len(each) - shown} more (--all)")
    return "\n".join(lines)


def write_repaired(path: Path, listing: Listing, sizes: Sequence[Size | Finding], unread: Sequence[Finding]) -> None:
    """Writes the copy, whole or not at all, and prints what was done."""
    copy = annotation_faults.repaired(listing, sizes)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(copy.content), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    amounts = f"{len(copy.content['images'])} images, {len(copy.content['annotations'])} boxes"
    print(f"\nwrote {path}: COCO JSON of images in {listing.folder}, {amounts}, annotations numbered from 1")
    changes = dict(copy.changes)
    for finding in unread:
        text = f"left out: {finding.kind}"
        changes[text] = changes.get(text, 0) + 1
    print("\n".join(f"  {text}  {count}" for text, count in changes.items()) or "  nothing else was changed")


if __name__ == "__main__":
    sys.exit(main())
