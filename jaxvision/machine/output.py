"""What the process prints to: streams that may be closed, full or of few letters without ending what prints."""

import errno
import io
import os
import sys
from contextlib import suppress


class Descriptor(io.FileIO):
    """A file descriptor to write to; what can't be written is lost, and no error."""

    lost: OSError | None = None
    """The first error, but for that of a pipe that nobody reads any more."""

    def write(self, data) -> int:
        """Writes what can be written; returns the number of bytes given."""
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno != errno.EPIPE:
                self.lost = self.lost or error
            return memoryview(data).nbytes


def outlast() -> None:
    """Makes the standard streams outlast whoever reads them; a letter that their encoding lacks is escaped.

    A descriptor that is closed leads nowhere, lest the next file that is opened gets its number, and what others print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for number, name in ((1, "stdout"), (2, "stderr")):
        known = getattr(sys, name)
        encoding = "utf-8" if known is None else known.encoding
        if known is not None:
            with suppress(OSError):
                known.flush()
        buffered = io.BufferedWriter(Descriptor(number, "w", closefd=False))
        lines = number == 2 or os.isatty(number)
        stream = io.TextIOWrapper(buffered, encoding, "backslashreplace", line_buffering=lines)
        setattr(sys, name, stream)


def result(text: str, end: str = "\n") -> None:
    """Prints what the command was asked for; raises OSError if it can't be written."""
    print(text, end=end, flush=True)
    lost = getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "lost", None)
    if lost is not None:
        raise OSError(f"the standard output can't be written: {lost.strerror}")
