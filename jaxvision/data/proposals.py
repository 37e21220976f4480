"""Selective search (Uijlings et al., IJCV 2013): regions that may hold objects, computed once and kept on disk.

python -m jaxvision.data.proposals PATH [--images DIR] [--classes A,B,...] computes those of a dataset and prints how well
they fit its objects.

OpenCV returns the same regions in another order every time. Here they are sorted, then shuffled: which ones are the
first N is a function of the image and the settings.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from jaxvision import commands, formats
from jaxvision.data import npz
from jaxvision.data.decode import decode
from jaxvision.data.features import write_npz
from jaxvision.data.objects import listing_source
from jaxvision.data.placement import stretch
from jaxvision.data.randomness import Purpose, permutation
from jaxvision.data.source import Annotations
from jaxvision.errors import DataError, amount, raised_as
from jaxvision.formats.fingerprint import digest
from jaxvision.formats.image_file import BadImage, upright_size
from jaxvision.machine import folders
from jaxvision.machine.limits import cores
from jaxvision.machine.output import result

VERSION = "1"
"""Version of what is kept on disk: part of the names of the files."""
Mode = Literal["fast", "quality"]


class Search(NamedTuple):
    """How regions are searched for; the defaults are those of R-CNN (arXiv:1311.2524)."""

    mode: Mode = "fast"
    """"fast": 2 colour spaces, 2 scales and 2 similarities; "quality": 5, 4 and 4."""
    width: int = 500
    """Width of the image as it is searched, in pixels; its aspect is kept."""
    smallest: int = 20
    """Regions with a shorter side, in pixels of the image as it is searched, are left out."""


SEARCH = Search()


def finder(search: Search = SEARCH, cache: str | Path | None = None) -> Callable[[bytes | np.ndarray], np.ndarray]:
    """A function from an image, encoded or pixels, to its proposals, float32 `n 4`: for `target.proposals(find=)`.

    They are found by selective search when they are first asked for, and kept in the folder `cache` (by default
    `~/.cache/jaxvision/proposals`, or below `$JAXVISION_CACHE`), a file for each image, named by its content and the
    settings. It takes seconds an image, so `python -m jaxvision.data.proposals` first. An image that can't be read has none.

    Raises:
      ValueError: for settings that are not allowed; when it is asked, for a file of something else in the cache, or where a
        search is needed, and OpenCV's contributed modules are not installed.
    """
    if search.mode not in get_args(Mode) or search.width < 1 or search.smallest < 1:
        raise ValueError(f"{search}: allowed are the modes {', '.join(get_args(Mode))}, and sizes from 1")
    folder = folders.local(cache) if cache is not None else cache_folder()
    return lambda image: _kept(image, search, folder)


def cache_folder() -> Path:
    """Where proposals are kept by default."""
    return folders.cache("proposals")


def _kept(image: bytes | np.ndarray, search: Search, folder: Path) -> np.ndarray:
    """The proposals of an image in their order, from the cache or put there."""
    content = (image,) if isinstance(image, bytes) else (repr(image.shape), np.ascontiguousarray(image).data)
    name = digest(VERSION, repr(search), *content)
    path = folder / name[:2] / f"{name}.npz"
    if not path.exists():
        try:
            write_npz(path, boxes=selective_search(image, search))
        except BadImage:
            return np.zeros((0, 4), np.float32)
    try:
        (boxes,) = npz.read(path, ("boxes",))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} holds no proposals: {error}; remove it to have them computed again") from error
    return boxes[permutation(int(name[:16], 16), Purpose.SAMPLE, 0, len(boxes))]


def selective_search(image: bytes | np.ndarray, search: Search = SEARCH) -> np.ndarray:
    """The regions of an image, float32 `n 4` in its pixels, each once, sorted by x0, y0, x1, y1.

    Raises:
      BadImage: for what is no image.
      ValueError: if OpenCV's contributed modules are not installed.
    """
    segmentation = _opencv()
    height, width = (image.shape[:2] if isinstance(image, np.ndarray) else upright_size(image)) or (1, 1)
    decoded = decode(image, stretch((max(1, round(height * search.width / width)), search.width)))
    if min(decoded.size) < search.smallest:
        return np.zeros((0, 4), np.float32)
    algorithm = segmentation.createSelectiveSearchSegmentation()
    algorithm.setBaseImage(np.ascontiguousarray(decoded.image[..., ::-1]))
    start = {"fast": algorithm.switchToSelectiveSearchFast, "quality": algorithm.switchToSelectiveSearchQuality}
    start[search.mode]()
    found = np.unique(np.asarray(algorithm.process(), np.int64).reshape(-1, 4), axis=0)
    found = found[(found[:, 2:] >= search.smallest).all(1)]
    corners = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], 1)
    (rows, columns), (height, width) = decoded.size, decoded.original_size
    boxes = corners * np.asarray([width / columns, height / rows] * 2)
    return boxes[np.lexsort(boxes.T[::-1])].astype(np.float32)


def _opencv() -> Any:
    """OpenCV's module of segmentation."""
    try:
        import cv2

        return cv2.ximgproc.segmentation
    except (ImportError, AttributeError):
        raise ValueError(
            "selective search needs OpenCV with its contributed modules: pip install 'jaxvision[proposals]'"
        ) from None


class Fit(NamedTuple):
    """How well proposals fit objects."""

    recall: float
    """The fraction of the objects with a proposal of an IoU of 0.5 or more."""
    mean_best_iou: float
    """The mean over the objects of the best IoU with a proposal."""
    objects: int
    proposals: float
    """The mean number of an image."""


def fit(proposals: Sequence[np.ndarray], objects: Sequence[Annotations], rows: int | None = None) -> Fit:
    """How well the first `rows` proposals of every image, boxes `n 4`, fit its objects; those to ignore don't count.

    Without objects recall and IoU are NaN.
    """
    first = [boxes[:rows] for boxes in proposals]
    best = [_best_iou(boxes, each.boxes[~each.ignore]) for boxes, each in zip(first, objects, strict=True)]
    best_iou = np.concatenate([np.zeros(0), *best])
    mean = float(np.mean([len(boxes) for boxes in first])) if first else 0.0
    if not len(best_iou):
        return Fit(float("nan"), float("nan"), 0, mean)
    return Fit(float(np.mean(best_iou >= 0.5)), float(best_iou.mean()), len(best_iou), mean)


def _best_iou(proposals: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Best IoU of each box with a proposal; 0 without proposals."""
    a, b = boxes[:, None].astype(np.float64), proposals[None].astype(np.float64)
    intersection = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - intersection
    return (intersection / np.maximum(union, 1e-9)).max(1, initial=0)


class Flags(NamedTuple):
    """The command line."""

    path: Path
    images: Path | None
    classes: tuple[str, ...]
    cache: Path | None
    search: Search
    rows: int
    traceback: bool


def parse(argv: Sequence[str] | None) -> Flags:
    """The flags."""
    parser = commands.new_parser(
        "data.proposals",
        description="Compute and keep selective search's proposals for the images of a dataset: a COCO JSON file, a Pascal"
        " VOC folder, a data.yaml of YOLO, or a folder with images/ and labels/. Prints their recall.",
        epilog="Exit status: 0, or 2 if the dataset can't be read. Images that can't be decoded are left out, and named.",
    )
    parser.add_argument("path", type=commands.expanded, metavar="PATH", help="the dataset")
    parser.add_argument(
        "--images", type=commands.expanded, metavar="DIR", help="the folder of the images of a COCO file"
    )
    parser.add_argument(
        "--classes",
        type=commands.names,
        default=(),
        metavar="A,B,...",
        help="of a VOC folder (default: those of Pascal VOC), or of a YOLO folder without data.yaml and classes.txt",
    )
    parser.add_argument(
        "--cache", type=commands.expanded, metavar="DIR", help=f"where they are kept ({cache_folder()})"
    )
    parser.add_argument("--mode", choices=get_args(Mode), default=SEARCH.mode, help="(%(default)s)")
    for name in ("width", "smallest"):
        parser.add_argument(f"--{name}", type=int, default=getattr(SEARCH, name), help="in pixels (%(default)s)")
    parser.add_argument(
        "--rows", type=int, default=2000, metavar="N", help="the first N proposals of an image count (%(default)s)"
    )
    known = vars(parser.parse_args(argv))
    search = Search(*(known.pop(name) for name in Search._fields))
    return Flags(search=search, **known)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(argv)
    return commands.status_of(lambda: run(flags), flags.traceback)


def run(flags: Flags) -> int:
    """Computes what is not there yet, prints how well it fits; returns the exit status."""
    with raised_as(DataError):
        text = computed(flags)
    result(text)
    return 0


def computed(flags: Flags) -> str:
    """Computes what is not there yet, on all cores; returns what to print."""
    from tqdm import tqdm

    listing = formats.open(flags.path, images=flags.images, classes=flags.classes or None)
    source, find = listing_source(str(flags.path), listing), finder(flags.search, flags.cache)

    def both(index: int) -> tuple[np.ndarray, Annotations] | str:
        (example,) = source.read(np.asarray([index]))
        assert example.objects is not None
        try:
            decode(example.image, stretch(8))
        except BadImage as error:
            return f"left out {source.name(index)}: {error}"
        return find(example.image), example.objects

    with ThreadPoolExecutor(cores()) as pool:
        each = list(tqdm(pool.map(both, range(source.length)), total=source.length, unit="image", disable=None))
    pairs, broken = (
        [pair for pair in each if not isinstance(pair, str)],
        [text for text in each if isinstance(text, str)],
    )
    found = fit([boxes for boxes, _ in pairs], [objects for _, objects in pairs], flags.rows)
    line = (
        f"{flags.path}: {amount(len(pairs), 'image')}, {amount(round(found.proposals), 'proposal')} each,"
        f" {amount(found.objects, 'object')}:"
        f" recall {found.recall:.3f} at IoU 0.5, mean best IoU {found.mean_best_iou:.3f}"
    )
    return "\n".join([*source.notes, *source.doubts, *broken, line])


if __name__ == "__main__":
    commands.enter(main)
