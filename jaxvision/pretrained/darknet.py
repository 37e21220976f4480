"""Darknet's `.cfg` and `.weights` files: what Redmon's YOLO networks come as.

cfg = read_cfg(Path("yolov3-tiny.cfg"))
arrays = read_weights(Path("yolov3-tiny.weights"), cfg)
loaded = strict.load(sources(variables), arrays, variables)

A `.weights` file has no names and no shapes: a header, then the numbers of one convolution after another, as the `.cfg`
describes them. Here `conv12.weights` is the kernel of the thirteenth convolution; `biases`, and where it has batch
normalisation `scales`, `rolling_mean` and `rolling_variance`, as in Darknet's code.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import traverse_util

from jaxvision.pretrained.strict import Path as Place
from jaxvision.pretrained.strict import Source
from jaxvision.pretrained.torch_layout import conv_kernel, unchanged
from jaxvision.types import Variables

Section = tuple[str, Mapping[str, str]]
"""The name of a section of a `.cfg` file, and its options."""
KNOWN = ("convolutional", "maxpool", "upsample", "route", "shortcut", "yolo")
HEADER = 16
"""Bytes before the number of images seen, which has 4 or 8 itself: three version numbers of 4 bytes, and it."""


class Convolution(NamedTuple):
    """One convolution of a network."""

    before: int
    """Channels in."""
    filters: int
    size: int
    normalised: bool


def read_cfg(path: Path) -> list[Section]:
    """The sections of a `.cfg` file in their order.

    Raises:
        ValueError: for what is no such file, naming the line.
    """
    sections: list[tuple[str, dict[str, str]]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        text = re.split(r"[#;]", line)[0].strip()
        if re.fullmatch(r"\[\w+\]", text):
            sections.append((text[1:-1], {}))
        elif "=" in text and sections:
            key, _, value = text.partition("=")
            sections[-1][1][key.strip()] = value.strip()
        elif text:
            raise ValueError(f"{path}, line {number}: {text[:60]!r} is neither [section] nor option=value")
    if not sections or sections[0][0] not in ("net", "network"):
        raise ValueError(f"{path} is no Darknet .cfg file: it must begin with [net]")
    return [*sections]


def convolutions(cfg: list[Section]) -> list[Convolution]:
    """Every convolution that a `.cfg` file describes, in order.

    Raises:
        ValueError: for a kind of section that is not known, an option that is missing or no whole number, and groups.
    """
    channels, found = [_whole(cfg[0], "channels", 3)], []
    for number, section in enumerate(cfg[1:]):
        kind = section[0]
        if kind not in KNOWN:
            raise ValueError(
                f"[{kind}], section {number + 1} of the .cfg file, is not known; known are {', '.join(KNOWN)}"
            )
        if _whole(section, "groups", 1) != 1:
            raise ValueError(f"[{kind}], section {number + 1} of the .cfg file, has groups, which are not known here")
        if kind == "convolutional":
            layer = Convolution(
                channels[-1],
                _whole(section, "filters"),
                _whole(section, "size", 1),
                bool(_whole(section, "batch_normalize", 0)),
            )
            found.append(layer)
            channels.append(layer.filters)
        elif kind == "route":
            channels.append(sum(_of(channels, number, layer) for layer in _layers(section)))
        else:
            channels.append(channels[-1])
    return found


def read_weights(path: Path, cfg: list[Section]) -> dict[str, np.ndarray]:
    """The arrays of a `.weights` file, float32, as this `.cfg` describes them.

    Raises:
        ValueError: if the file has more or fewer numbers than that.
    """
    data = path.read_bytes()
    if len(data) < HEADER + 4:
        raise ValueError(f"{path} is no Darknet .weights file: it has {len(data)} bytes")
    major, minor = (int(x) for x in np.frombuffer(data, "<i4", 2))
    start = HEADER + 4 if major * 10 + minor >= 2 and major < 1000 and minor < 1000 else HEADER
    shapes = _shapes(convolutions(cfg))
    wanted = sum(math.prod(shape) for shape in shapes.values())
    if (len(data) - start) % 4 or (len(data) - start) // 4 != wanted:
        raise ValueError(f"{path} holds {(len(data) - start) / 4:,} numbers; its .cfg file describes {wanted:,}")
    numbers, arrays = np.frombuffer(data, "<f4", wanted, start), {}
    for name, shape in shapes.items():
        size = math.prod(shape)
        arrays[name], numbers = numbers[:size].reshape(shape), numbers[size:]
    return arrays


def sources(variables: Variables) -> dict[Place, Source]:
    """The name map of a `nn.darknet` network: for every array its name here and how its axes turn into ours."""
    return {place: _source(place) for place in traverse_util.flatten_dict(variables)}


def _source(place: Place) -> Source:
    """Source of one array: `backbone/conv3/conv/kernel`, `backbone/conv3/norm/scale`, of an output `conv9/kernel`."""
    layer = next(part for part in place if re.fullmatch(r"conv\d+", part))
    names = {
        "kernel": "weights",
        "bias": "biases",
        "scale": "scales",
        "mean": "rolling_mean",
        "var": "rolling_variance",
    }
    turn = conv_kernel if place[-1] == "kernel" else unchanged
    return Source(f"{layer}.{names[place[-1]]}", turn)


def _shapes(layers: list[Convolution]) -> dict[str, tuple[int, ...]]:
    """Shape of every array in the order of the file."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number, layer in enumerate(layers):
        vectors = ("biases", "scales", "rolling_mean", "rolling_variance") if layer.normalised else ("biases",)
        shapes |= {f"conv{number}.{name}": (layer.filters,) for name in vectors}
        shapes[f"conv{number}.weights"] = (layer.filters, layer.before, layer.size, layer.size)
    return shapes


def _of(channels: list[int], number: int, layer: int) -> int:
    """Channels of a layer by its number, or counted back from this one where negative; the first is those of the image."""
    absolute = layer if layer >= 0 else number + layer
    if not 0 <= absolute < number:
        raise ValueError(
            f"[route], section {number + 1} of the .cfg file, names layer {layer}: allowed are those before it"
        )
    return channels[absolute + 1]


def _layers(section: Section) -> list[int]:
    """The layers that a route joins."""
    text = section[1].get("layers", "")
    if not re.fullmatch(r"-?\d+(\s*,\s*-?\d+)*", text):
        raise ValueError(f"[{section[0]}] of the .cfg file has layers={text!r}; allowed are whole numbers, as in -1,8")
    return [int(each) for each in text.split(",")]


def _whole(section: Section, key: str, otherwise: int | str = "") -> int:
    text = section[1].get(key, str(otherwise))
    if not re.fullmatch(r"\d+", text):
        raise ValueError(f"[{section[0]}] of the .cfg file has {key}={text!r}; allowed is a whole number")
    return int(text)
