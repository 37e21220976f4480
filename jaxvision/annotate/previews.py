"""Previews of image files: upright, of 8 bits, scaled to a screen, as a file that any browser shows."""

import io
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from jaxvision.annotate.store import Store
from jaxvision.data.decode import pixels_of
from jaxvision.errors import ConfigError, printable
from jaxvision.formats.image_file import BadImage, guarded, opened, upright
from jaxvision.machine.folders import spelled

LOSSLESS = 512
"""Pixels of the longer side up to which a preview is a PNG: small images are shown enlarged, where a JPEG's blocks show."""
QUALITY = 85
CACHED_BYTES = 64 << 20
"""Bytes of all previews that are kept."""


def file_of(images: Path, name: str) -> Path:
    """The file of an image by its name in a store; raises BadImage for one that leads out of the folder of the images."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\0" in name:
        raise BadImage(f"{printable(name)} leads out of the folder of the images")
    return spelled(images, name)


def images_of(store: Store, given: Path | None) -> Path:
    """The folder of the images: the one given, or the one that the store names.

    Raises:
      ConfigError: if there is no such folder.
    """
    stated = json.loads(store.settings.get("images", "null"))
    folder = given or (Path(stated) if isinstance(stated, str) else None)
    if folder is None:
        raise ConfigError(f"{store.path} does not say where its images are: --images=DIR")
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder} with the images of {store.path}: --images=DIR")
    return folder


class Preview(NamedTuple):
    """Image file for a browser."""

    data: bytes
    type: str
    """Such as image/jpeg."""
    size: tuple[int, int]
    """Height and width."""


def preview(data: bytes, side: int, lossless: int = LOSSLESS) -> Preview:
    """A preview of an image file, its longer side at most `side` pixels.

    Args:
      data: content of the file.
      side: of the preview, in pixels.
      lossless: pixels of the longer side up to which it is a PNG, and beyond a JPEG.

    Raises:
      BadImage: if the file can't be decoded.
    """
    image = _scaled(data, side)
    file, small = io.BytesIO(), max(image.size) <= lossless
    if small:
        image.save(file, "PNG", compress_level=3)
    else:
        image.save(file, "JPEG", quality=QUALITY)
    return Preview(file.getvalue(), "image/png" if small else "image/jpeg", (image.height, image.width))


def _scaled(data: bytes, side: int) -> Image.Image:
    """The upright image, RGB or grey of 8 bits. A JPEG is decoded in the smallest size that is nearly enough."""
    image = guarded(lambda: opened(data))
    if image.mode not in ("RGB", "L"):
        image = Image.fromarray(pixels_of(data))
    else:
        guarded(lambda: image.draft(None, (side * 3 // 4, side * 3 // 4)))
        image = guarded(lambda: upright(image))
    guarded(lambda: image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0))
    return image


class Cache:
    """Previews of the last images, as many as fit some bytes. Safe to call from several threads."""

    def __init__(self, most: int = CACHED_BYTES):
        self.most, self.bytes = most, 0
        self._kept: OrderedDict[Hashable, Preview] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Preview]) -> Preview:
        """The preview of this key, made if it is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            if key not in self._kept and len(made.data) <= self.most:
                self._kept[key] = made
                self.bytes += len(made.data)
            while self.bytes > self.most:
                _, oldest = self._kept.popitem(last=False)
                self.bytes -= len(oldest.data)
        return made
