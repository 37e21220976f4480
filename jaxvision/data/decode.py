"""From an encoded image to pixels on a canvas: the same pixels for the same bytes, placement and channels."""

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxvision.data.host_tensorflow import loaded
from jaxvision.data.interpolation import Resampling
from jaxvision.data.placement import Placement, Placer
from jaxvision.formats.image_file import MAX_PIXELS, BadImage, Size, guarded, opened
from jaxvision.formats.image_file import upright as upright_image
from jaxvision.types import Canvas

GREY_MODES = ("1", "L", "LA", "La")
WORTH_SKIPPING = 150_000
"""Pixels: decoding a part of a JPEG has a price, which skipping fewer than these does not repay."""
UPSAMPLING_REACH = 16
"""Chroma upsampling reads over the border of a JPEG crop: cut this many pixels wider, and the crop is exact."""


class Decoded(NamedTuple):
    """A canvas `h w c`, uint8; the size of its content and of the upright source image, `(height, width)`."""

    image: np.ndarray
    size: Size
    original_size: Size
    placement: Placement
    """Which part of the source image the content shows."""

    @property
    def canvas(self) -> Canvas:
        """The image as a model is shown it."""
        return Canvas(*self[:3], window=self.placement.window)


def decode(
    data: bytes | np.ndarray,
    placer: Placer,
    rng: np.random.Generator | None = None,
    *,
    channels: int = 3,
    max_pixels: int = MAX_PIXELS,
) -> Decoded:
    """An image on its canvas.

    `data` is a JPEG, PNG, WebP, BMP, GIF, TIFF or PPM file (of an animation, the first frame; of a TIFF, the first page), or
    uint8 pixels `h w` or `h w c`. EXIF orientation is applied; grey is repeated for `channels=3`, colour weighted to luma
    (ITU-R 601) for `channels=1`; 16-bit grey is scaled to 8. An alpha channel is dropped: a transparent pixel has the colour
    that is stored below it, often black, and is blended with no background. Metadata that can't be read are ignored. The
    placer says how it is resized and what its padding is filled with.

    Raises BadImage for anything that is not such an image, and for one of more than `max_pixels` pixels (which can't be
    set above PIL's own limit, the default); ValueError if the placer refuses its size.
    """
    if isinstance(data, np.ndarray):
        return _on_canvas(_from_pixels(data), placer, rng, channels)
    image = guarded(lambda: opened(data, max_pixels))
    return _on_canvas(image, placer, rng, channels, data)


def pixels_of(data: bytes | np.ndarray, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The upright image in its own size, uint8, `h w 3`, or `h w` where it is grey; as `decode` reads it.

    Raises BadImage as `decode` does.
    """
    image = _from_pixels(data) if isinstance(data, np.ndarray) else guarded(lambda: opened(data, max_pixels))
    return guarded(lambda: np.asarray(_converted(upright_image(image), 3)))


def _on_canvas(
    image: Image.Image, placer: Placer, rng: np.random.Generator | None, channels: int, data: bytes = b""
) -> Decoded:
    upright = guarded(lambda: upright_image(image))
    original = upright.height, upright.width
    placement = placer.place(rng, original)
    pixels = guarded(lambda: _pixels(upright, placement, placer.interpolation, channels, data))
    canvas = np.zeros((*placer.canvas, channels), np.uint8)
    height, width = placement.content
    canvas[:height, :width] = placer.fill
    canvas[placement.spot] = pixels[placement.kept]
    return Decoded(canvas, placement.content, original, placement)


def _pixels(
    image: Image.Image, placement: Placement, interpolation: Resampling, channels: int, data: bytes
) -> np.ndarray:
    """The box of the image in its size on the canvas; 1 channel for a grey image, which spreads over all of the canvas."""
    cut = _jpeg_window(image, placement, interpolation, data)
    if cut is None:
        return _resized(_converted(image, channels), placement, interpolation)
    pixels, (x, y) = cut
    x0, y0, x1, y1 = placement.box
    shifted = placement._replace(box=(x0 - x, y0 - y, x1 - x, y1 - y))
    return _resized(_converted(Image.fromarray(pixels), channels), shifted, interpolation)


def _resized(image: Image.Image, placement: Placement, interpolation: Resampling) -> np.ndarray:
    as_it_is = (image.height, image.width) == placement.size and placement.box == (0, 0, image.width, image.height)
    pixels = np.asarray(image) if as_it_is else interpolation.resize(image, placement.size, placement.box)
    return pixels.reshape(*placement.size, -1)


def _from_pixels(pixels: np.ndarray) -> Image.Image:
    shape_ok = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3))
    if pixels.dtype != np.uint8 or not shape_ok or 0 in pixels.shape:
        raise BadImage(f"pixels must be uint8 [h, w], [h, w, 1] or [h, w, 3], got {pixels.dtype} {list(pixels.shape)}")
    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def _converted(image: Image.Image, channels: int) -> Image.Image:
    """8-bit grey where the image is grey or one channel is asked for, else RGB. Raises BadImage for floating-point pixels."""
    if image.mode == "F":
        raise BadImage(
            "its pixels are floating-point numbers, of no known range; allowed are whole ones of 8 or 16 bits"
        )
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    mode = "L" if channels == 1 or image.mode in GREY_MODES else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _jpeg_window(
    image: Image.Image, placement: Placement, interpolation: Resampling, data: bytes
) -> tuple[np.ndarray, tuple[int, int]] | None:
    """The part of a plain JPEG that a box of whole pixels needs, and its left top corner; None to decode all of it.

    Bit for bit what decoding the whole image gives, so that pixels don't depend on whether TensorFlow is there.
    """
    tf = loaded()
    if tf is None or not _plain_jpeg(image, data) or any(side != int(side) for side in placement.box):
        return None
    x0, y0, x1, y1 = (int(side) for side in placement.box)
    across, down = (
        interpolation.reach(length, size)
        for length, size in ((x1 - x0, placement.size[1]), (y1 - y0, placement.size[0]))
    )
    left, right = max(0, x0 - across), min(image.width, x1 + across)
    top, bottom = max(0, y0 - down), min(image.height, y1 + down)
    if image.width * image.height - (right - left) * (bottom - top) < WORTH_SKIPPING:
        return None
    return _cut_jpeg(tf, data, (left, top, right, bottom), image)


def _cut_jpeg(
    tf: Any, data: bytes, window: tuple[int, int, int, int], image: Image.Image
) -> tuple[np.ndarray, tuple[int, int]] | None:
    left, top, right, bottom = window
    wide = max(0, left - UPSAMPLING_REACH), max(0, top - UPSAMPLING_REACH)
    end = min(image.width, right + UPSAMPLING_REACH), min(image.height, bottom + UPSAMPLING_REACH)
    try:
        cut = tf.io.decode_and_crop_jpeg(
            data,
            (wide[1], wide[0], end[1] - wide[1], end[0] - wide[0]),
            channels=len(image.getbands()),
            dct_method="INTEGER_ACCURATE",
        ).numpy()
    except tf.errors.InvalidArgumentError:
        return None  # PIL has the last word on what is wrong with it
    inner = cut[top - wide[1] : bottom - wide[1], left - wide[0] : right - wide[0]]
    return (inner[..., 0] if inner.shape[2] == 1 else inner), (left, top)


def _plain_jpeg(image: Image.Image, data: bytes) -> bool:
    """Baseline, grey or RGB, upright, and not cut off before its end marker."""
    plain = image.format == "JPEG" and image.mode in ("L", "RGB") and not image.info.get("progressive")
    return plain and b"\xff\xd9" in data[-64:]
