"""Image files and the frames of videos, below paths, in order: read and decoded a few ahead."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxvision.data.prefetch import in_order
from jaxvision.errors import amount
from jaxvision.formats.files import has_suffix, kind, left_out, regular, walk
from jaxvision.formats.image_file import MAX_PIXELS, SUFFIXES, BadImage, guarded, opened, read
from jaxvision.machine.limits import cores
from jaxvision.types import Canvas

IMAGES = SUFFIXES
VIDEOS = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".wmv", ".flv"),
    *(".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
)
KNOWN = (*IMAGES, *VIDEOS)
ANIMATIONS = (".gif", ".webp")
MAX_ANIMATION = 100 * MAX_PIXELS
"""Pixels of all frames of an animation; one of more is refused."""
VIDEO_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,asf,flv,mpeg,mpegts,mpegvideo,m4v"
"""FFmpeg's names of the formats that are read; others, such as playlists, may lead to other files and addresses."""


class Picture(NamedTuple):
    """An image file, or a frame of a video, not yet decoded."""

    file: str
    frame: int | None
    """Its number in the video, from 0; None for an image file."""
    read: Callable[[], bytes | np.ndarray]
    """Raises ValueError or OSError if it can't be read."""


class Decoded(NamedTuple):
    """A picture on its canvas, or why it is not there."""

    file: str
    frame: int | None
    canvas: Canvas | None
    error: str = ""


def is_video(path: Path) -> bool:
    """Whether the suffix is one of a video."""
    return path.name.lower().endswith(VIDEOS)


class Survey(NamedTuple):
    """What there is below paths."""

    images: int
    videos: int
    left_out: str
    """How many files are neither, by suffix; empty for none."""


def survey(paths: Iterable[Path]) -> Survey:
    """Counts what `files` gives, and what it leaves out. Raises as it does."""
    images = videos = 0
    by_suffix: Counter[str] = Counter()
    for path in paths:
        for entry in _entries(path):
            if isinstance(entry, Path) or has_suffix(entry, KNOWN):
                videos += is_video(Path(entry))
                images += not is_video(Path(entry))
            else:
                by_suffix[kind(entry)] += 1
    return Survey(images, videos, left_out(images + videos, by_suffix))


def files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files of these names, and the images and videos below these folders.

    Those of a folder come sorted by name, folders among them; known by suffix, and hidden ones passed over.

    Raises FileNotFoundError, when it comes to it, for a path that is not there.
    """
    for path in paths:
        yield from (Path(each) for each in _entries(path) if isinstance(each, Path) or has_suffix(each, KNOWN))


def _entries(path: Path) -> Iterator[Path | os.DirEntry[str]]:
    """The path if it is a file, which is then taken whatever its name, or all that is below it."""
    if path.is_dir():
        yield from walk(path)
    elif path.exists():
        yield path
    else:
        raise FileNotFoundError(f"there is no file or folder {path}")


def check_outside(output: Path, paths: Iterable[Path]) -> None:
    """Raises ValueError if what is written there would be among the images of these folders, or beside these files."""
    place = output.resolve()
    for path in paths:
        if path.is_dir() and place.is_relative_to(path.resolve()):
            raise ValueError(f"{output} lies in {path}, whose images are read: name a place outside of it")
        if path.parent.resolve() == place:
            raise ValueError(f"{output} is the folder of {path}, which is read: name another")


def check_reader() -> None:
    """Raises ValueError if what reads videos is not installed."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise ValueError("videos are read by PyAV, which is not installed: pip install 'jaxvision[video]'") from None


def pictures(paths: Iterable[Path], every: int = 1, animated: bool = False) -> Iterator[Picture]:
    """The image files in order, and of each video the frames 0, `every`, 2 `every`, ...

    `animated` takes these frames of animated GIF and WebP files, too, in place of their first.
    """
    for path in paths:
        if is_video(path):
            yield from _frames(path, every)
        elif animated and path.name.lower().endswith(ANIMATIONS):
            yield from _animation(path, every)
        else:
            yield Picture(str(path), None, partial(read, path))


def _animation(path: Path, every: int) -> Iterator[Picture]:
    """The frames as they are shown; a file of one frame as any image."""
    number = 0
    try:
        image = guarded(lambda: opened(read(path)))
        count = guarded(lambda: getattr(image, "n_frames", 1))
        if count * image.width * image.height > MAX_ANIMATION:
            raise BadImage(
                f"{amount(count, 'frame')} of {image.height}x{image.width} are more than {MAX_ANIMATION:,} pixels"
            )
        if count < 2:
            yield Picture(str(path), None, partial(read, path))
            return
        for number in range(0, count, every):
            yield Picture(str(path), number, partial(np.asarray, guarded(partial(_shown, image, number))))
    except BadImage as error:
        yield Picture(str(path), number, partial(_fail, str(error)))


def _shown(image: Image.Image, number: int) -> np.ndarray:
    """The pixels `h w 3` of a frame."""
    image.seek(number)
    return np.asarray(image.convert("RGB"))


def _frames(path: Path, every: int) -> Iterator[Picture]:
    import av
    from av.error import FFmpegError

    number, error = -1, "it has no frame"
    try:
        with regular(path):
            pass
        with av.open(str(path), options={"format_whitelist": VIDEO_FORMATS}) as container:
            _check_frame(container)
            for number, frame in enumerate(container.decode(video=0) if container.streams.video else ()):
                if number % every == 0:
                    yield Picture(str(path), number, partial(np.asarray, _upright(frame)))
        if number >= 0:
            return
    except (FFmpegError, OSError, ValueError, MemoryError) as problem:
        error = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
    yield Picture(str(path), None if number < 0 else number + 1, partial(_fail, error))


def _check_frame(container) -> None:
    """Raises BadImage for a video whose frames are larger than an image may be."""
    for stream in container.streams.video[:1]:
        if stream.width * stream.height > MAX_PIXELS:
            raise BadImage(f"its frames are {stream.height}x{stream.width}, more than {MAX_PIXELS:,} pixels")


def _upright(frame) -> np.ndarray:
    """The pixels `h w 3` as they are shown: a phone notes how it was held instead of turning them."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


def _fail(error: str) -> np.ndarray:
    raise ValueError(error)


def decoded(
    pictures: Iterable[Picture], decode: Callable[[bytes | np.ndarray], Canvas], threads: int | None = None
) -> Iterator[Decoded]:
    """The pictures in order, each on its canvas; twice as many as there are threads are under way.

    Args:
      pictures: to read.
      decode: of a stream.
      threads: that read and decode; None takes one per core, 8 at most.
    """
    threads = threads or min(cores(), 8)
    return in_order(lambda picture: _decoded(picture, decode), pictures, threads)


def _decoded(picture: Picture, decode: Callable[[bytes | np.ndarray], Canvas]) -> Decoded:
    try:
        return Decoded(picture.file, picture.frame, decode(picture.read()))
    except OSError as error:
        return Decoded(picture.file, picture.frame, None, error.strerror or str(error))
    except ValueError as error:
        return Decoded(picture.file, picture.frame, None, str(error))
    except MemoryError:
        return Decoded(picture.file, picture.frame, None, "there is not enough memory for it")
