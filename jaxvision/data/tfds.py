"""TensorFlow Datasets as a source: any dataset of images with a label, objects or a class map, prepared as array_record.

array_record files can be read in any order; TFRecord files can't, and are refused with the command that converts them.
"""

import functools
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.data.host_tensorflow import tensorflow, tensorflow_datasets
from jaxvision.data.source import Annotations, ClassMap, Example, Source, annotations, no_labels
from jaxvision.errors import DataError, amount, damage
from jaxvision.formats import class_maps
from jaxvision.formats.annotation import Meaning
from jaxvision.formats.fingerprint import digest
from jaxvision.formats.image_file import BadImage, upright_size
from jaxvision.machine.folders import local

NAMING_FEATURES = ("file_name", "image/filename", "id")
FEATURES = ("label", "is_crowd", "is_difficult", "area")
"""Features of an object beside its box; label alone must be there."""
BLOCK = 1024


def source(
    name: str, split: str, data_dir: str | PathLike | None = None, image: str = "image", label: str = "label"
) -> Source:
    """A split of a dataset that TFDS has prepared: `source("cifar10", "train[:90%]")`.

    `name` may carry a config and a version (`"name/config:1.0.0"`); `data_dir=None` takes TFDS's own
    (`~/tensorflow_datasets`, or `$TFDS_DATA_DIR`). `image` and `label` name the features. `labels()` of the source reads
    every record once. Raises FileNotFoundError if the dataset is not there, ValueError for a wrong split, a wrong feature
    or files without random access; each says what would be right.
    """
    return _labelled(_builder(name, data_dir), split, image, label)


def objects_source(
    name: str, split: str, data_dir: str | PathLike | None = None, image: str = "image", objects: str = "objects"
) -> Source:
    """A split of a dataset of objects, as `coco/2017` and `voc/2007` are: `objects_source("voc/2007", "train")`.

    `objects` names a sequence of `bbox` and `label`; `is_crowd` or `is_difficult` are those to ignore, `area` is taken where
    there is one. TFDS has the corners of VOC as in its files, counted from 1: the upper left one is put right. Raises as
    `source` does.
    """
    builder = _builder(name, data_dir)
    classes = _object_classes(builder.info, image, objects)
    first = 1 if builder.info.name == "voc" else 0

    records = _records(builder, split)

    def found(features: Any) -> Annotations:
        return _objects(features, f"{objects}/", features[image].bytes_list.value[0], first)

    def example(features: Any) -> Example:
        return Example(features[image].bytes_list.value[0], objects=found(features))

    @functools.cache
    def all_objects() -> list[Annotations]:
        return [found(each) for each in _all(records, builder.data_path)]

    title = f"{builder.info.full_name} {split}"
    return _source(builder, split, records, classes, example)._replace(labels=no_labels(title), objects=all_objects)


def maps_source(
    name: str,
    split: str,
    meaning: Meaning,
    data_dir: str | PathLike | None = None,
    image: str = "image",
    map: str = "segmentation_mask",
) -> Source:
    """A split of a dataset with a class for every pixel: `maps_source("oxford_iiit_pet", "train", maps.PETS)`.

    `meaning` says what the values of the feature `map` stand for: `data.maps.PETS` for trimaps, pet and background, the
    border of no class; `data.maps.LABEL_IDS` for `"cityscapes/semantic_segmentation"`, whose features are `image_left` and
    `segmentation_label`; `data.maps.numbered(classes)` for numbers of classes. Raises as `source` does.
    """
    builder = _builder(name, data_dir)
    features = tensorflow_datasets().features
    for feature in (image, map):
        if not isinstance(dict(builder.info.features.items()).get(feature), features.Image):
            raise ValueError(
                f"{builder.info.full_name} has no feature {feature!r} of type Image; it has {_present(builder.info)}"
            )
    known = class_maps.table(meaning)

    def example(features: Any) -> Example:
        data = features[image].bytes_list.value[0]
        size = upright_size(data)
        if size is None:  # to decode it says why
            return Example(data)
        try:
            found = class_maps.classes(class_maps.values(features[map].bytes_list.value[0], size), known)
        except BadImage as error:
            return Example(data, fault=f"feature {map} {error}")
        return Example(data, map=ClassMap(*found))

    return _source(builder, split, _records(builder, split), meaning.classes, example)._replace(maps=True)


def _objects(features: Any, prefix: str, image: bytes, first: int) -> Annotations:
    """The objects of an image; none if it can't be read, and so has no size."""
    size = upright_size(image)
    if size is None:
        return annotations([], [])
    height, width = size
    box = np.asarray(_values(features[f"{prefix}bbox"]), np.float64).reshape(-1, 4)
    corners = box[:, [1, 0, 3, 2]] * [width, height, width, height] - [first, first, 0, 0]
    columns = {name: _values(features[prefix + name]) for name in FEATURES if prefix + name in features}
    for name, values in columns.items():
        if len(values) != len(box):
            here = f"{_naming(features) or 'an example'}: feature {prefix + name} has {len(values)} values"
            raise ValueError(f"{here}, {prefix}bbox {amount(len(box), 'box')}; allowed is a value for each box")
    ignore = columns.get("is_crowd", columns.get("is_difficult"))
    return annotations(corners, columns["label"], ignore, columns.get("area"))


def _values(feature: Any) -> Sequence[Any]:
    """What a feature holds, of whichever type it is."""
    kind = feature.WhichOneof("kind")
    return getattr(feature, kind).value if kind else ()


def _object_classes(info: Any, image: str, objects: str) -> tuple[str, ...]:
    tfds = tensorflow_datasets()

    features = tfds.features
    sequence: Any = dict(info.features.items()).get(objects)
    inner = sequence.feature if isinstance(sequence, features.Sequence) else None
    present: dict[str, Any] = dict(inner.items()) if isinstance(inner, features.FeaturesDict) else {}  # type: ignore[union-attr]
    present[image] = dict(info.features.items()).get(image)
    wanted = {image: features.Image, "bbox": features.BBoxFeature, "label": features.ClassLabel}
    if not all(isinstance(present.get(name), kind) for name, kind in wanted.items()):
        raise ValueError(
            f"{info.full_name} has no feature {image!r} of type Image, and {objects!r}, a sequence of bbox (BBoxFeature) and"
            f" label (ClassLabel); it has {_present(info)}"
        )
    return tuple(present["label"].names)


def _builder(name: str, data_dir: str | PathLike | None) -> Any:
    tensorflow_datasets()
    from tensorflow_datasets.core import constants, read_only_builder, registered

    data_dir = local(data_dir if data_dir is not None else constants.DATA_DIR)
    try:
        with _damage(data_dir / name):
            return read_only_builder.builder_from_files(name, data_dir=data_dir)
    except DataError as error:
        if isinstance(error.__cause__, registered.DatasetNotFoundError):
            raise FileNotFoundError(_missing(name, data_dir)) from None
        raise


def directory(folder: str | PathLike, split: str, image: str = "image", label: str = "label") -> Source:
    """A split of the prepared dataset in this very folder, the one that holds `dataset_info.json`; else as `source`."""
    if not (Path(folder) / "dataset_info.json").is_file():
        raise FileNotFoundError(f"{folder} holds no dataset_info.json, so it is no folder of a prepared TFDS dataset")
    tfds = tensorflow_datasets()

    with _damage(folder):
        builder = tfds.builder_from_directory(folder)
    return _labelled(builder, split, image, label)


def _labelled(builder: Any, split: str, image: str, label: str) -> Source:
    classes = _classes(builder.info, image, label)
    records = _records(builder, split)

    def example(features: Any) -> Example:
        return Example(features[image].bytes_list.value[0], features[label].int64_list.value[0])

    @functools.cache
    def labels() -> np.ndarray:
        return np.asarray([example(each).label for each in _all(records, builder.data_path)], np.int64)

    return _source(builder, split, records, classes, example)._replace(labels=labels)


def _source(
    builder: Any, split: str, records: Any, classes: tuple[str, ...], example: Callable[[Any], Example]
) -> Source:
    """A source of these records; its labels are still to be said."""
    title = f"{builder.info.full_name} {split}"

    def name(index: int) -> str:
        try:
            named = _naming(_parsed(records, [index], builder.data_path)[0])
        except DataError:
            named = None
        return f"{title}[{index}]" if named is None else f"{title} {named}"

    def read(indices: np.ndarray) -> list[Example]:
        numbers = np.asarray(indices).tolist()
        try:
            return [example(each) for each in _parsed(records, numbers, builder.data_path)]
        except DataError:  # one of them is damaged
            return [one(number) for number in numbers]

    def one(number: int) -> Example:
        try:
            with _damage(builder.data_path):
                return example(_parsed(records, [number], builder.data_path)[0])
        except DataError as error:
            return Example(b"", fault=str(error))

    return Source(
        length=len(records),
        read=read,
        labels=no_labels(title),
        classes=classes,
        name=name,
        fingerprint=_fingerprint(builder.info, split, classes),
    )


def _naming(features: Any) -> str | None:
    """The file name or id of an example, if it has one."""
    found = (features[key].bytes_list.value for key in NAMING_FEATURES if key in features)
    return next((values[0].decode() for values in found if values), None)


def _parsed(records: Any, indices: list[int], folder: object) -> list[Any]:
    """The features of these records. Raises DataError, naming the folder, where one is damaged or not there."""
    with _damage(folder):
        return [_features(record) for record in records.__getitems__(indices)]


def _all(records: Any, folder: object) -> Iterator[Any]:
    for start in range(0, len(records), BLOCK):
        yield from _parsed(records, list(range(start, min(start + BLOCK, len(records)))), folder)


def _features(record: bytes) -> Any:
    return tensorflow().train.Example.FromString(record).features.feature


def _damage(place: object) -> AbstractContextManager[None]:
    """`errors.damage` of a dataset, whose descriptions and records are protocol buffers."""
    from google.protobuf import json_format, message

    return damage(place, json_format.Error, message.Error)


def _records(builder: Any, split: str) -> Any:
    """The raw records of a split, with random access. Raises DataError for files that can't hold them."""
    found = _opened(builder, split)
    files = list(Path(builder.data_path).glob("*array_record*"))
    for file in files:
        if not file.is_file():
            raise DataError(f"{file} is no regular file")
    size = sum(file.stat().st_size for file in files)
    if len(found) > size:
        raise DataError(
            f"{builder.data_path}: its dataset_info.json has {amount(len(found), 'example')}, its files {size:,} bytes"
        )
    return found


def _opened(builder: Any, split: str) -> Any:
    tfds = tensorflow_datasets()

    formats = {each.value for each in builder.info.available_file_formats()}
    if "array_record" not in formats:
        raise ValueError(_not_array_record(builder, formats))
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    try:
        return builder.as_data_source(split, deserialize_method=raw, file_format="array_record")
    except ValueError as error:
        splits = ", ".join(f"{name} ({info.num_examples})" for name, info in sorted(builder.info.splits.items()))
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{builder.info.full_name} has the splits {splits}, and parts of them like 'train[:90%]'; got {split!r}: {reason}"
        ) from None


def _classes(info: Any, image: str, label: str) -> tuple[str, ...]:
    tfds = tensorflow_datasets()

    for feature, kind in ((image, tfds.features.Image), (label, tfds.features.ClassLabel)):
        if feature not in info.features or not isinstance(info.features[feature], kind):
            raise ValueError(
                f"{info.full_name} has no feature {feature!r} of type {kind.__name__}; it has {_present(info)}"
            )
    return tuple(info.features[label].names)


def _present(info: Any) -> str:
    return ", ".join(f"{name} ({type(each).__name__})" for name, each in sorted(info.features.items()))


def _fingerprint(info: Any, split: str, classes: tuple[str, ...]) -> str:
    sizes = [f"{name} {each.shard_lengths} {each.num_bytes}" for name, each in sorted(info.splits.items())]
    return digest(info.full_name, split, *sizes, *classes)


def _not_array_record(builder: Any, formats: set[str]) -> str:
    folder = shlex.quote(str(builder.data_path))
    command = f"tfds convert_format --dataset_version_dir={folder} --out_file_format=array_record"
    return (
        f"{builder.info.full_name} in {builder.data_path} is stored as {', '.join(sorted(formats))}, which can't be read in"
        f" any order; this adds array_record beside it: pip install apache-beam mlcroissant && {command}"
    )


def _missing(name: str, data_dir: Path) -> str:
    found = sorted(str(path.parent.relative_to(data_dir)) for path in data_dir.glob("**/dataset_info.json"))
    prepare = (
        "import tensorflow_datasets as tfds; "
        f"tfds.builder({name!r}, data_dir={str(data_dir)!r}, file_format='array_record').download_and_prepare()"
    )
    return (
        f"no prepared dataset {name!r} in {data_dir} (found there: {', '.join(found) or 'none'});"
        f" this prepares it: python -c {_quoted(prepare)}"
    )


def _quoted(text: str) -> str:
    """The text as one word of a shell: between double quotes, where it has nothing that these leave a meaning."""
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'
