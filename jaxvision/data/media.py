"""Image files and the frames of videos, below paths, in order: read and decoded a few ahead."""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvision.data.prefetch import in_order
from jaxvision.formats.image_file import SUFFIXES
from jaxvision.machine.limits import cores
from jaxvision.types import Canvas

IMAGES = SUFFIXES
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")


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


def files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files of these names, and the images and videos below these folders.

    Those of a folder come sorted by name, folders among them; known by suffix, and hidden ones passed over.

    Raises FileNotFoundError, when it comes to it, for a path that is not there.
    """
    for path in paths:
        if path.is_dir():
            yield from _below(path, ())
        elif path.exists():
            yield path
        else:
            raise FileNotFoundError(f"there is no file or folder {path}")


def _below(path: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    status = path.stat()
    me = (status.st_dev, status.st_ino)
    if me in above:  # a link to a folder that holds it
        return
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    for name in names:
        inner = path / name
        if inner.is_dir():
            yield from _below(inner, (*above, me))
        elif name.lower().endswith((*IMAGES, *VIDEOS)):
            yield inner


def check_reader() -> None:
    """Raises ValueError if what reads videos is not installed."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise ValueError("videos are read by PyAV, which is not installed: pip install 'jaxvision[video]'") from None


def pictures(paths: Iterable[Path], every: int = 1) -> Iterator[Picture]:
    """The image files in order, and of each video the frames 0, `every`, 2 `every`, ..."""
    for path in paths:
        if is_video(path):
            yield from _frames(path, every)
        else:
            yield Picture(str(path), None, path.read_bytes)


def _frames(path: Path, every: int) -> Iterator[Picture]:
    import av
    from av.error import FFmpegError

    number, error = -1, "it has no frame"
    try:
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0) if container.streams.video else ()):
                if number % every == 0:
                    yield Picture(str(path), number, partial(np.asarray, _upright(frame)))
        if number >= 0:
            return
    except (FFmpegError, OSError, ValueError) as problem:
        error = getattr(problem, "strerror", None) or str(problem)
    yield Picture(str(path), None if number < 0 else number + 1, partial(_fail, error))


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
