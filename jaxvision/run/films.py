"""Pictures of predictions in a folder: those of an image file as an image, those of the frames of a video as a video."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from jaxvision.data.media import is_video
from jaxvision.errors import replacing
from jaxvision.run import pictures
from jaxvision.run.records import Where

CODECS = ("libx264", "mpeg4")
"""The first that is there is taken."""
USUAL_RATE = 25
"""Frames a second of a video that doesn't tell its own."""


class Album:
    """A folder that pictures are written into, one after the other, in a `with` block.

    A video, `<number>_<name>.mp4`, has the number of its first frame; it is there once all of its frames are, or not at all.
    """

    def __init__(self, folder: Path, every: int = 1):
        self._folder, self._every = folder, every
        self._film: Film | None = None
        self._open = ExitStack()
        self._last: Where = ("", None)

    def __enter__(self) -> "Album":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def add(self, number: int, where: Where, picture: Image.Image) -> None:
        """Writes a picture, or keeps it for the video that it is a frame of. Raises OSError where it can't."""
        file, frame = where
        if frame is None or not is_video(Path(file)):
            self._end()
            pictures.save(self._folder, number, where, picture)
            return
        if self._film is None or file != self._last[0] or frame <= (self._last[1] or 0):
            self._end()
            self._begin(number, file, picture)
        assert self._film is not None
        self._last = where
        self._film.add(picture)

    def _begin(self, number: int, file: str, picture: Image.Image) -> None:
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"{pictures.name_of(number, (file, None))}.mp4"
        self._film = self._open.enter_context(film(path, picture.size, rate_of(Path(file)) / self._every))

    def _end(self) -> None:
        self._film = None
        self._open.close()


class Film:
    """A video that is being written."""

    def __init__(self, container: Any, size: tuple[int, int], rate: Fraction):
        import av

        self._container, self._size = container, size
        codec = next(name for name in CODECS if name in av.codecs_available)
        self._stream = container.add_stream(codec, rate=rate, options={"crf": "18"} if codec == "libx264" else {})
        self._stream.width, self._stream.height = (side + side % 2 for side in size)
        self._stream.pix_fmt = "yuv420p"

    def add(self, picture: Image.Image) -> None:
        """Adds a frame; one of another size is resized to that of the first, and an odd side repeats its last line."""
        import av

        shown = picture.convert("RGB")
        pixels = np.asarray(shown if shown.size == self._size else shown.resize(self._size))
        width, height = self._size
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._write(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"))

    def end(self) -> None:
        """Writes what the codec has kept back."""
        self._write(None)

    def _write(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


@contextmanager
def film(path: Path, size: tuple[int, int], rate: Fraction) -> Iterator[Film]:
    """A video to write in a `with` block, MP4; it takes its name if the block ends without an error.

    Args:
      path: to write, or replace.
      size: width and height of its frames.
      rate: frames a second.

    Raises:
      OSError: if it can't be written.
    """
    import av
    from av.error import FFmpegError

    try:
        with replacing(path) as partial, av.open(str(partial), "w", format="mp4") as container:
            made = Film(container, size, rate)
            yield made
            made.end()
    except FFmpegError as error:
        raise OSError(f"the video {path} can't be written: {error.strerror or error}") from error


def rate_of(file: Path) -> Fraction:
    """Frames a second of a video."""
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(file)) as container:
            return container.streams.video[0].average_rate or Fraction(USUAL_RATE)
    except (FFmpegError, OSError, IndexError):
        return Fraction(USUAL_RATE)
