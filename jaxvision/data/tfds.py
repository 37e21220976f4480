"""TensorFlow Datasets as a source: any dataset of images with one label, prepared as array_record.

array_record files can be read in any order; TFRecord files can't, and are refused with the command that converts them.
"""

import functools
import shlex
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.data.host_tensorflow import tensorflow
from jaxvision.data.source import Example, Source, digest

NAMING_FEATURES = ("file_name", "id")
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
    tensorflow()
    from tensorflow_datasets.core import constants, read_only_builder, registered

    data_dir = Path(data_dir if data_dir is not None else constants.DATA_DIR).expanduser()
    try:
        builder = read_only_builder.builder_from_files(name, data_dir=data_dir)
    except registered.DatasetNotFoundError:
        raise FileNotFoundError(_missing(name, data_dir)) from None
    return _from_builder(builder, split, image, label)


def directory(folder: str | PathLike, split: str, image: str = "image", label: str = "label") -> Source:
    """A split of the prepared dataset in this very folder, the one that holds `dataset_info.json`; else as `source`."""
    if not (Path(folder) / "dataset_info.json").is_file():
        raise FileNotFoundError(f"{folder} holds no dataset_info.json, so it is no folder of a prepared TFDS dataset")
    tensorflow()
    import tensorflow_datasets as tfds

    return _from_builder(tfds.builder_from_directory(folder), split, image, label)


def _from_builder(builder: Any, split: str, image: str, label: str) -> Source:
    classes = _classes(builder.info, image, label)
    records = _records(builder, split)
    title = f"{builder.info.full_name} {split}"

    def parsed(indices: np.ndarray) -> list[Any]:
        return [_features(record) for record in records.__getitems__(np.asarray(indices).tolist())]

    def read(indices: np.ndarray) -> list[Example]:
        found = parsed(indices)
        return [Example(each[image].bytes_list.value[0], each[label].int64_list.value[0]) for each in found]

    @functools.cache
    def labels() -> np.ndarray:
        blocks = (np.arange(start, min(start + BLOCK, len(records))) for start in range(0, len(records), BLOCK))
        return np.asarray([example.label for block in blocks for example in read(block)], np.int64)

    def name(index: int) -> str:
        features = parsed(np.asarray([index]))[0]
        for key in NAMING_FEATURES:
            if key in features and features[key].bytes_list.value:
                return f"{title} {features[key].bytes_list.value[0].decode()}"
        return f"{title}[{index}]"

    return Source(len(records), read, labels, classes, name, _fingerprint(builder.info, split, classes))


def _features(record: bytes) -> Any:
    return tensorflow().train.Example.FromString(record).features.feature


def _records(builder: Any, split: str) -> Any:
    """The raw records of a split, with random access."""
    import tensorflow_datasets as tfds

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
    import tensorflow_datasets as tfds

    for feature, kind in ((image, tfds.features.Image), (label, tfds.features.ClassLabel)):
        if feature not in info.features or not isinstance(info.features[feature], kind):
            present = ", ".join(f"{name} ({type(each).__name__})" for name, each in sorted(info.features.items()))
            raise ValueError(f"{info.full_name} has no feature {feature!r} of type {kind.__name__}; it has {present}")
    return tuple(info.features[label].names)


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
        f" this prepares it: python -c {shlex.quote(prepare)}"
    )
