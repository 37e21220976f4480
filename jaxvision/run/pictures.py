"""Predictions as pictures: drawn on the images that they are of, and as maps of classes or segments."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from jaxvision.data import placement
from jaxvision.data.decode import decode
from jaxvision.errors import replacing
from jaxvision.experiment import Record
from jaxvision.run.records import Where
from jaxvision.types import Canvas

Decode = Callable[[bytes | np.ndarray], Canvas]
QUALITY = 92
LONGEST = 200
"""Bytes of a file's name that the name of its picture has: most file systems take 255."""


class Originals:
    """A decoder that keeps what each canvas was made of, until it is asked for."""

    def __init__(self, decode: Decode):
        self._decode = decode
        self._data: dict[int, bytes | np.ndarray] = {}

    def decode(self, data: bytes | np.ndarray) -> Canvas:
        """The image on its canvas. Raises ValueError as the decoder does."""
        canvas = self._decode(data)
        self._data[id(canvas[0])] = data  # the number of an array that lives until `of` is asked for it
        return canvas

    def of(self, canvas: Canvas) -> bytes | np.ndarray:
        """The encoded file or the pixels of a frame; only once."""
        return self._data.pop(id(canvas[0]))


def picture(
    data: bytes | np.ndarray, canvas: Canvas, record: Record, draw: Callable[[np.ndarray, Record], Image.Image]
) -> Image.Image:
    """The image, decoded in its own size, with its record drawn on it."""
    return draw(decode(data, placement.keep(canvas.original_size)).image, record)


def save(folder: Path, number: int, where: Where, picture: Image.Image) -> None:
    """Writes the picture as `<number>_<name>.jpg` (`name_of`), of a PNG as one. The folder is made if it is not there."""
    folder.mkdir(exist_ok=True)
    is_png = where[1] is None and Path(where[0]).suffix.lower() == ".png"
    with replacing(folder / f"{name_of(number, where)}.{'png' if is_png else 'jpg'}") as partial:
        if is_png:
            picture.save(partial, format="PNG")
        else:
            picture.save(partial, format="JPEG", quality=QUALITY, subsampling=0)  # thin lines keep their colour


def save_map(folder: Path, number: int, where: Where, map: Image.Image) -> str:
    """Writes the map as `<number>_<name>.png`, whose name it returns. The folder is made if it is not there."""
    folder.mkdir(exist_ok=True)
    name = f"{name_of(number, where)}.png"
    with replacing(folder / name) as partial:
        map.save(partial, format="PNG")
    return name


def name_of(number: int, where: Where) -> str:
    """`<number>_<name>`, or `<number>_<name>_<frame>` for a frame of a video, without an ending.

    The number, counted from 0, is that of the image in the order of the predictions. A long name is cut.
    """
    file, frame = where
    stem = Path(file).stem
    while len(os.fsencode(stem)) > LONGEST:
        stem = stem[:-1]
    return f"{number:06}_{stem}" + ("" if frame is None else f"_{frame:06}")
