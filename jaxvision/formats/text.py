"""Text files as tools on any system write them: UTF-8, with a byte order mark or without."""

from pathlib import Path

from jaxvision.formats.files import content


def read_text(path: Path, most: int | None = None) -> str:
    """The text of a file of at most `most` bytes, without its byte order mark.

    Raises ValueError, naming the file, for a larger one, and, with the line, if it is no UTF-8; and as `files.content` does.
    """
    try:
        return content(path, most).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise ValueError(f"{path}: line {line}: byte 0x{byte:02x} is no UTF-8, and no other encoding is read") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a file, stripped, without the empty ones at its end. Raises as `read_text` does."""
    return [line.strip() for line in read_text(path).rstrip().splitlines()]
