"""Reading of images for labelling: each file is read once and decoded once, whatever is made of it, a few ahead.

Images come in windows, so many together as the models take at once and memory allows; the next window is read while models
look at one.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxvision.data.decode import pixels_of
from jaxvision.data.prefetch import in_order
from jaxvision.errors import amount
from jaxvision.formats.image_file import FORMATS, Size, read
from jaxvision.machine.limits import cores
from jaxvision.types import Canvas

MOST_BYTES = 1 << 28
"""Bytes of pixels of a window; an image of more is a window of its own."""
THREADS = 8
"""Threads that read and decode, at most."""
SEVERAL = (".gif", ".webp", ".png", ".tif", ".tiff")
"""Suffixes of files that may hold several images."""

Views = Callable[[UInt8[np.ndarray, "h w c"]], Sequence[Sequence[Canvas]]]
"""From the pixels of an image to its canvases, a sequence a model. Raises ValueError where it does not fit."""


class Known(NamedTuple):
    """What is known of an image before it is read."""

    sha256: str
    finished: bool
    """Whether nothing is to be done unless the file has changed."""
    touched: bool
    """Whether a person has worked on its record."""


class ImageRead(NamedTuple):
    """Image as it was read, or why it was not."""

    name: str
    sha256: str = ""
    size: Size = (0, 0)
    canvases: Sequence[Sequence[Canvas]] = ()
    """A sequence of views a model; none where there is nothing to do."""
    pixels: UInt8[np.ndarray, "h w c"] | None = None
    """Pixels of the upright image; None where nobody asks for them."""
    failure: str | None = None
    remark: str = ""
    """What a person should know of a file that is read."""
    passed: bool = False
    """Whether nothing is to be done: it is as it was when it was labelled."""
    changed: bool = False
    """Whether it is another since a person worked on its record."""

    @property
    def bytes(self) -> int:
        """Bytes of its pixels and canvases."""
        arrays = {id(each.image): each.image.nbytes for views in self.canvases for each in views}
        if self.pixels is not None:
            arrays[id(self.pixels)] = self.pixels.nbytes
        return sum(arrays.values())


def images(
    folder: Path, names: Iterable[str], views: Views, known: Mapping[str, Known], *, pixels: bool = False
) -> Iterator[ImageRead]:
    """The images of these names, in order, each on its canvases; twice as many as there are threads are under way.

    Args:
      folder: of the images.
      names: paths below it.
      views: what the models are shown.
      known: images that may have nothing to do; those that have not are read, and not decoded.
      pixels: whether the pixels are kept.
    """
    function = partial(_image, folder, views, known, pixels)
    return in_order(function, names, min(cores(), THREADS))


def _image(folder: Path, views: Views, known: Mapping[str, Known], keep: bool, name: str) -> ImageRead:
    """Reads an image; what is wrong with it is its `failure`, and one that memory was lacking for has no digest."""
    digest = ""
    try:
        data = read(folder / name)
        digest = hashlib.sha256(data).hexdigest()
        before = known.get(name)
        remark = remark_of(name, data)
        if before is not None and before.sha256 == digest and before.finished:
            return ImageRead(name, digest, remark=remark, passed=True)
        if before is not None and before.sha256 != digest and before.touched:
            return ImageRead(name, digest, remark=remark, changed=True)
        pixels = pixels_of(data)
        del data
        size = (int(pixels.shape[0]), int(pixels.shape[1]))
        return ImageRead(name, digest, size, views(pixels), pixels if keep else None, remark=remark)
    except MemoryError:
        return ImageRead(name, failure="there is not enough memory for it")
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error)
        text = text.replace(f"{folder / name} ", "").replace(str(folder / name), "it")
        return ImageRead(name, digest, failure=text)


def remark_of(name: str, data: bytes) -> str:
    """That a file holds several images, of which the first counts; empty for others."""
    if not name.lower().endswith(SEVERAL):
        return ""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            count = getattr(image, "n_frames", 1)
    except Exception:  # what is wrong with it, decoding says
        return ""
    return "" if count < 2 else f"of {amount(count, 'frame')} or pages, the first is labelled"


def windows(images: Iterable[ImageRead], count: int) -> Iterator[list[ImageRead]]:
    """The images in order, up to `count` that have something to do together, as long as their pixels fit."""
    window: list[ImageRead] = []
    bytes = busy = 0
    for each in images:
        if window and (busy == count or bytes + each.bytes > MOST_BYTES or len(window) >= 8 * count):
            yield window
            window, bytes, busy = [], 0, 0
        window.append(each)
        bytes, busy = bytes + each.bytes, busy + bool(each.canvases)
    if window:
        yield window


def three_channels(pixels: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
    """Pixels of a grey image repeated; others as they are."""
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, -1)
