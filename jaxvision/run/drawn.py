"""Predicted objects drawn on the images that they were found in."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxvision.data import placement
from jaxvision.data.decode import decode
from jaxvision.draw.boxes import colour_of, with_boxes
from jaxvision.run.records import Record, Where
from jaxvision.types import Canvas

Decode = Callable[[bytes | np.ndarray], Canvas]
QUALITY = 92


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


def save(folder: Path, number: int, where: Where, data: bytes | np.ndarray, record: Record) -> None:
    """Writes the image, in its own size, as `<number>_<name>.jpg`, or `<number>_<name>_<frame>.jpg` for a frame of a video.

    The number, counted from 0, is that of the image in the order of the predictions. The folder is made if it is not there.
    """
    upright = decode(data, placement.keep((record["height"], record["width"]))).image
    objects = record["objects"]
    boxes = np.array([each["box"] for each in objects], np.float64).reshape(-1, 4)
    texts = [f"{each['label']} {each['score']:.2f}" for each in objects]
    picture = with_boxes(upright, boxes, texts, [colour_of(each["category_id"] - 1) for each in objects])
    file, frame = where
    name = f"{number:06}_{Path(file).stem}" + ("" if frame is None else f"_{frame:06}")
    folder.mkdir(exist_ok=True)
    partial = folder / f".{name}.partial"
    try:
        picture.save(partial, format="JPEG", quality=QUALITY, subsampling=0)  # thin lines keep their colour
        os.replace(partial, folder / f"{name}.jpg")
    finally:
        partial.unlink(missing_ok=True)
