"""Sources of class maps, a class for every pixel: VOC, Cityscapes, COCO panoptic, a folder of mask images.

maps.voc("VOC2012", "train")  # 21 classes, the background first
maps.cityscapes("cityscapes", "train")  # the 19 that are evaluated
maps.panoptic("panoptic_train2017.json")  # segments of things and stuff as objects, too
maps.folder("my_dataset", classes=("background", "cell"))  # images/a.jpg and masks/a.png
maps.from_objects(synthetic.shapes(1000, seed=0))  # any source of objects with masks
tfds.maps_source("oxford_iiit_pet", "train", maps.PETS)

Give `target=target.class_map()` to the streams, or `target.objects(rows, masks=...)` where a source has objects, too; the
labels of both number the same classes. A map is in pixels of the upright image. One that can't be used (another size,
colours, a value that is no class) is told with its file: a pipeline skips its image, or ends, and
python -m jaxvision.formats.check finds them all.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

import numpy as np

from jaxvision.data import object_masks
from jaxvision.data.objects import annotated, file_sizes
from jaxvision.data.source import Annotations, ClassMap, Example, Mask, Source, annotations, no_labels, of_file
from jaxvision.errors import nearest
from jaxvision.formats import class_maps, doubts, map_faults
from jaxvision.formats import maps as map_format
from jaxvision.formats import panoptic as panoptic_format
from jaxvision.formats import voc as voc_format
from jaxvision.formats.annotation import AnnotatedImage, Listing, Meaning, numbered
from jaxvision.formats.class_maps import Segment
from jaxvision.formats.fingerprint import digest
from jaxvision.formats.image_file import BadImage, Size, read, size_mismatch, upright_size
from jaxvision.formats.maps import BACKGROUND, CITYSCAPES_CLASSES, CITYSCAPES_THINGS, LABEL_IDS, PETS

__all__ = ["BACKGROUND", "CITYSCAPES_CLASSES", "CITYSCAPES_THINGS", "LABEL_IDS", "PETS", "Meaning", "numbered"]
Content = Callable[[AnnotatedImage, Size], tuple[ClassMap, Annotations | None]]
"""From an image and its size to its map, and its objects where it has any. Raises BadImage for maps that can't be used."""


class Made(Sequence[Mask]):
    """Masks that are made when they are asked for: of all masks of an image, one is there at a time."""

    def __init__(self, count: int, make: Callable[[int], Mask]):
        """Number of masks, and what makes the one of a place."""
        self._places, self._make = range(count), make

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        return self._make(self._places[index])


def folder(
    root: str | PathLike,
    classes: Sequence[str] | None = None,
    *,
    void: int | None = 255,
    values: Mapping[int, int | None] | None = None,
) -> Source:
    """The images below `images/`, sorted by path, and for each the mask of the same name, but for its ending, below `masks/`.

    Pixels of the masks are the numbers of classes, from 0, in grey or as indices of a palette; `void` is the one of no class.

    Args:
      root: the folder.
      classes: names in the order of their numbers; None takes those of `classes.txt`, one a line.
      void: None where every pixel has a class.
      values: the class of each value, or None, where values are not the numbers of classes: `{0: 0, 255: 1}` of masks that
        are black and white. `void` is then of no use.

    Raises:
      DataError: if there are no names of classes.
      FileNotFoundError: if a folder, or the mask of an image, is not there.
    """
    return _semantic(str(root), map_format.read_folder(root, classes, void, values), None)


def voc(root: str | PathLike, split: str, *, objects: bool = False) -> Source:
    """The images that `ImageSets/Segmentation/<split>.txt` lists, in its order, and their maps from `SegmentationClass`.

    Classes are "background" and the twenty of VOC; the outlines (255) have none. With `objects`, those of
    `SegmentationObject` come along with their masks, each of the class that most of its pixels have.

    Raises:
      ValueError: for several folders of a year.
      FileNotFoundError: if the folder, the split, or a map is not there.
    """
    year = voc_format.year_folder(root)
    listing = map_format.read_voc(year, map_format.voc_split(year, split))
    return _semantic(f"{year} {split}", listing, map_format.voc_segments if objects else None)


def cityscapes(
    root: str | PathLike, split: str, *, objects: bool = False, annotations: str = "gtFine", ids: str = "labelIds"
) -> Source:
    """The images of `leftImg8bit/<split>`, sorted by path, and their maps, of the 19 classes that are evaluated.

    Args:
      root: the folder of `leftImg8bit` and the annotations.
      split: `"train"`, `"val"`, ...
      objects: whether those of `instanceIds` come along with their masks; a group that was not told apart is to be ignored.
      annotations: `"gtFine"` or `"gtCoarse"`.
      ids: `"labelIds"`, or `"labelTrainIds"`, which Cityscapes' scripts make of them.

    Raises:
      ValueError: for other ids.
      FileNotFoundError: if a folder, or a map, is not there.
    """
    if ids not in ("labelIds", "labelTrainIds"):
        raise ValueError(f'ids is {ids!r}; allowed are "labelIds" and "labelTrainIds"')
    listing = map_format.read_cityscapes(root, split, annotations, ids)
    segments = (lambda pixels, labels, valid: map_format.cityscapes_segments(pixels)) if objects else None
    return _semantic(f"{root} {split}", listing, segments)


def panoptic(json: str | PathLike, images: str | PathLike | None = None, maps: str | PathLike | None = None) -> Source:
    """The images of a COCO panoptic file, in order of image id: maps of classes, and segments of things and stuff as objects.

    Labels are the categories in order of their id, from 0; `formats.panoptic.categories` tells which are things. Crowds are
    to be ignored as objects, and have their class in the map. Boxes and areas are as annotated. `maps` is the folder of the
    PNG files (None: of the name of the JSON file), `images` that of the images (None: looked for).

    Raises:
      ValueError: for what can't be used, with file, id and value.
      FileNotFoundError: if the file, a map or an image is not there.
    """
    listing = panoptic_format.read_listing(json, images, maps)

    def content(image: AnnotatedImage, size: Size) -> tuple[ClassMap, Annotations]:
        with _naming(f"{image.annotation_file}: image {image.id}: {image.map}"):
            pixels = panoptic_format.segment_ids(image, size)
            problem = panoptic_format.disagreement(image, pixels)
            if problem is not None:
                raise BadImage(problem)
        segments = panoptic_format.segments(image)
        return _of_segments(pixels, segments), annotated(image.objects)._replace(masks=_masks(pixels, segments))

    return _source(str(json), listing, content, lambda: [annotated(image.objects) for image in listing.images])


def from_objects(source: Source, background: str = BACKGROUND) -> Source:
    """A source of objects with masks, and the map of classes that they make; the background is class 0, before the others.

    A pixel of several objects has no class, as in torchvision's conversion of COCO, though the objects be of one class; those
    to be ignored count, for their class is known. Labels of objects are one more than before, as `classes` has it.

    Raises:
      ValueError: if the source has a class of the name of the background; with an example, if its objects have no masks.
    """
    if background in source.classes:
        raise ValueError(f"background={background!r} is a class already; allowed is a name that none of them has")

    def shifted(found: Annotations) -> Annotations:
        return found._replace(labels=found.labels + 1)

    def mapped(example: Example) -> Example:
        if example.fault is not None or example.objects is None:
            return example
        objects = shifted(example.objects)
        size = example.image.shape[:2] if isinstance(example.image, np.ndarray) else upright_size(example.image)
        try:
            return example._replace(objects=objects, map=None if size is None else _of_objects(objects, size))
        except BadImage as error:
            return example._replace(objects=objects, fault=str(error))

    objects = source.objects
    return source._replace(
        read=lambda indices: [mapped(each) for each in source.read(indices)],
        classes=(background, *source.classes),
        fingerprint=digest("map of objects", background, source.fingerprint),
        objects=None if objects is None else lambda: [shifted(each) for each in objects()],
        parts=(),
        maps=True,
    )


def things(source: Source, names: Sequence[str]) -> Source:
    """The objects of these classes alone, numbered in this order, without the maps: what instance segmentation learns from.

    `things(voc("VOC2012", "train", objects=True), VOC_CLASSES)`.

    Raises:
      ValueError: if the source has no objects, or no such class.
    """
    objects = source.objects
    if objects is None:
        raise ValueError("the source has no objects, only maps of classes: read it with objects=True")
    for name in names:
        if name not in source.classes:
            raise ValueError(f"the source has no class {name!r}{nearest(name, source.classes)}")
    labels = np.full(len(source.classes), -1, np.int32)
    labels[[source.classes.index(name) for name in names]] = np.arange(len(names))

    def chosen(found: Annotations) -> Annotations:
        kept = np.flatnonzero(labels[found.labels] >= 0)
        all_masks, places = found.masks, kept.tolist()
        masks = None if all_masks is None else Made(len(places), lambda place: all_masks[places[place]])
        attributes = None if found.attributes is None else {name: each[kept] for name, each in found.attributes.items()}
        arrays = (each[kept] for each in found[:4])
        weight = None if found.weight is None else found.weight[kept]
        rest = Annotations(*arrays, masks=masks, attributes=attributes, weight=weight)
        return rest._replace(labels=labels[found.labels[kept]])

    def without_map(example: Example) -> Example:
        return example._replace(map=None, objects=None if example.objects is None else chosen(example.objects))

    return source._replace(
        read=lambda indices: [without_map(each) for each in source.read(indices)],
        classes=tuple(names),
        fingerprint=digest("things", *names, source.fingerprint),
        objects=lambda: [chosen(each) for each in objects()],
        parts=(),
        maps=False,
    )


def _semantic(
    what: str, listing: Listing, segments: Callable[[np.ndarray, np.ndarray, np.ndarray], list[Segment]] | None
) -> Source:
    """The source of maps by what their values mean, and, where `segments` finds them, of objects."""
    assert listing.meaning is not None
    known = class_maps.table(listing.meaning)

    def content(image: AnnotatedImage, size: Size) -> tuple[ClassMap, Annotations | None]:
        assert image.map is not None
        with _naming(image.map):
            found = ClassMap(*class_maps.classes(class_maps.values(read(image.map), size), known))
        if segments is None or image.instances is None:
            return found, None
        with _naming(image.instances):
            pixels = class_maps.values(read(image.instances), size)
        listed = segments(pixels, *found)
        boxes, areas = class_maps.extents(pixels, listed)
        objects = annotations(boxes, [each.label for each in listed], [each.ignore for each in listed], areas)
        return found, objects._replace(masks=_masks(pixels, listed))

    def alone(image: AnnotatedImage) -> Annotations:
        size = upright_size(image.file)
        try:
            objects = None if size is None else content(image, size)[1]
        except BadImage:
            objects = None
        return annotations([], []) if objects is None else objects._replace(masks=None)

    objects = functools.cache(lambda: [alone(image) for image in listing.images])
    return _source(what, listing, content, None if segments is None else objects)


def _source(what: str, listing: Listing, content: Content, objects: Callable[[], list[Annotations]] | None) -> Source:
    if not listing.images:
        raise ValueError(f"{what} has no image")
    sizes = [*file_sizes(listing.images), *_map_sizes(listing, objects is not None)]

    def example_of(image: AnnotatedImage) -> Example:
        example = of_file(image.file)
        data = example.image
        assert isinstance(data, bytes)
        size = None if example.fault is not None else upright_size(data)
        if size is None:  # what is no image is handed on: to decode it says why
            return example
        try:
            _check_stated(image, size, data)
            map, found = content(image, size)
        except BadImage as error:
            return example._replace(fault=str(error))
        return example._replace(map=map, objects=found)

    return Source(
        length=len(listing.images),
        read=lambda indices: [example_of(listing.images[index]) for index in np.asarray(indices).tolist()],
        labels=no_labels(what),
        classes=listing.classes,
        name=lambda index: listing.images[index].name,
        fingerprint=digest(listing.fingerprint, *(image.name for image in listing.images), *map(str, sizes)),
        objects=objects,
        sizes=lambda: np.asarray([upright_size(image.file) or (1, 1) for image in listing.images]),
        notes=doubts.notes(listing),
        doubts=_doubts(listing),
        maps=True,
        root=str(listing.folder),
    )


LOOKED_AT = 16
"""Maps that are looked at before a run."""


def _doubts(listing: Listing) -> tuple[str, ...]:
    """What looks wrong with the first maps as a whole."""
    if listing.meaning is None:
        return ()
    sizes = [(image, upright_size(image.file)) for image in listing.images[:LOOKED_AT]]
    found = map_faults.foreground_lost(
        [(image, size) for image, size in sizes if size], class_maps.table(listing.meaning)
    )
    return () if found is None else (f"{map_faults.folder(listing)}: {found}",)


def _map_sizes(listing: Listing, objects: bool) -> list[int]:
    """Bytes of each map. Raises FileNotFoundError if one is missing."""
    wanted = ((image, file) for image in listing.images for file in (image.map, image.instances if objects else None))
    files = [(image, file) for image, file in wanted if file is not None]
    sizes, missing = [], []
    for image, file in files:
        try:
            sizes.append(file.stat().st_size)
        except OSError:
            missing.append((image, file))
    if missing:
        image, file = missing[0]
        raise FileNotFoundError(
            f"{image.name}: there is no map {file} ({len(missing)} of {len(files)} are missing; python -m"
            " jaxvision.formats.check names them all)"
        )
    return sizes


def _check_stated(image: AnnotatedImage, size: Size, data: bytes) -> None:
    """Raises BadImage where the annotation file states another size of the image."""
    value = None if image.size is None else size_mismatch(image.name, image.size, size, data)
    if value is not None:
        raise BadImage(f"{image.annotation_file}: image {image.id}: {value}")


@contextmanager
def _naming(what: object) -> Iterator[None]:
    try:
        yield
    except BadImage as error:
        text = str(error)
        raise BadImage(text if str(what) in text else f"{what}: {text}") from None


def _masks(pixels: np.ndarray, segments: Sequence[Segment]) -> Made:
    return Made(len(segments), lambda place: pixels == segments[place].number)


def _of_segments(pixels: np.ndarray, segments: Sequence[Segment]) -> ClassMap:
    """The class of each segment's pixels; 0 is of none."""
    pairs = [(0, 0), *sorted(each[:2] for each in segments)]
    numbers, labels = (np.asarray(column) for column in zip(*pairs, strict=True))
    label = labels[np.searchsorted(numbers, pixels)]
    return ClassMap(label.astype(np.uint8 if labels.max() < 256 else np.uint16), pixels > 0)


def _of_objects(objects: Annotations, size: Size) -> ClassMap:
    """The class of each object's pixels, the background elsewhere, none where there are several."""
    if objects.masks is None:
        raise ValueError("the source has no masks of its objects, only boxes: read it with masks=True")
    label = np.zeros(size, np.uint8 if objects.labels.max(initial=0) < 256 else np.uint16)
    taken, several = np.zeros(size, bool), np.zeros(size, bool)
    for mask, number in zip(objects.masks, objects.labels, strict=True):
        problem = class_maps.size_fault(object_masks.size_of(mask), size)
        if problem is not None:
            raise BadImage(f"a mask {problem}")
        patch = object_masks.patch_of(mask)
        if patch is not None:
            x0, y0, x1, y1 = patch.box
            spot = slice(y0, y1), slice(x0, x1)
            several[spot] |= taken[spot] & patch.pixels
            taken[spot] |= patch.pixels
            label[spot][patch.pixels] = number
    return ClassMap(label, ~several)
