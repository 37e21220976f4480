"""Keras' HDF5 files, as named arrays: `.h5` (of `keras.applications`, and of `Model.save`) and `.weights.h5` of Keras 3.

An array is named by its layer and its part: "conv1_conv/kernel", "conv1_bn/moving_mean". Where Keras named a layer by
counting ("conv2d_94"), the count starts anew in every file: the first is "conv2d_0".
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.errors import amount
from jaxvision.pretrained.sizes import check_size

PARTS = {
    1: ("kernel",),
    2: ("kernel", "bias"),
    3: ("beta", "moving_mean", "moving_variance"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}
"""What the arrays of a layer are, by their number: a convolution's or dense layer's, a batch normalisation's."""


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file.

    Raises:
        ValueError: if it is damaged, not Keras', or has arrays that are in other files.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            found: dict[str, Any] = {name: file[place] for name, place in places(file).items()}
            check_size(sum(array.nbytes for array in found.values()), path)
            return {name: np.asarray(array) for name, array in found.items()}
    except OSError as error:
        raise ValueError(f"damaged or cut off ({error})") from error


def places(file) -> dict[str, str]:
    """Where an open file has each array, by its name.

    Raises:
        ValueError: if it is not Keras', a layer has arrays that are none of the known parts, or anything may be in another
            file.
    """
    _check_links(file)
    layers = dict(_layers(file))
    names = _recounted(list(layers))
    wrong = [
        f"{name} has {amount(len(arrays), 'array')}" for name, arrays in layers.items() if len(arrays) not in PARTS
    ]
    if not layers or wrong:
        raise ValueError(f"not read as weights of Keras: {', '.join(wrong) or 'no layer in it has an array'}")
    found = {
        f"{names[layer]}/{part}": place
        for layer, arrays in layers.items()
        for part, place in zip(PARTS[len(arrays)], arrays, strict=True)
    }
    for name, place in found.items():
        _check_held(name, file[place])
    return found


def _check_links(file) -> None:
    """Raises ValueError for a link, which may lead out of the file; none is followed before."""
    import h5py

    link = file.visititems_links(lambda name, link: None if isinstance(link, h5py.HardLink) else name)
    if link is not None:
        raise ValueError(f"{link} in it is a link, perhaps to another file, which Keras does not write")


def _check_held(name: str, array: Any) -> None:
    """Raises ValueError for what is no array of numbers that the file holds itself."""
    if getattr(array, "dtype", np.dtype(object)).kind not in "biufc":
        raise ValueError(f"{name} in it is no array of numbers")
    if array.external or array.is_virtual:
        raise ValueError(f"the numbers of {name} are in another file")


def _layers(file) -> Iterator[tuple[str, list[str]]]:
    """The layers that have arrays, each with their places, in Keras' order."""
    if "layers" in file:
        for place, layer in file["layers"].items():
            arrays = layer.get("vars", {})
            if len(arrays):
                if "name" not in arrays.attrs:
                    raise ValueError(
                        "its layers have no names: written by an early Keras 3; save it again with a later"
                    )
                yield _text(arrays.attrs["name"]), [f"layers/{place}/vars/{i}" for i in range(len(arrays))]
        return
    root = file.get("model_weights", file)
    for layer in _texts(root, "layer_names"):
        if arrays := _texts(root[layer], "weight_names"):
            yield layer, [f"{root.name}/{layer}/{array}" for array in arrays]


def _texts(group, name: str) -> list[str]:
    """A list of names; a long one is in pieces "name0", "name1", ..."""
    numbered = sorted((p for p in group.attrs if re.fullmatch(rf"{name}\d+", p)), key=lambda piece: (len(piece), piece))
    pieces = [name] if name in group.attrs else numbered
    return [_text(text) for piece in pieces for text in group.attrs[piece]]


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _recounted(layers: list[str]) -> Mapping[str, str]:
    """Names that Keras counted up (`conv2d`, `conv2d_1`, ...), counted from 0 in this file; others as they are."""
    counted = [re.fullmatch(r"(conv2d|batch_normalization|dense)(?:_(\d+))?", layer) for layer in layers]
    order = sorted((m[1], int(m[2] or 0), m[0]) for m in counted if m)
    first = {kind: [k for k, *_ in order].index(kind) for kind, *_ in order}
    renamed = {name: f"{kind}_{place - first[kind]}" for place, (kind, _, name) in enumerate(order)}
    return {layer: renamed.get(layer, layer) for layer in layers}
