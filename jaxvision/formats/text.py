"""Text files as tools on any system write them: UTF-8, with a byte order mark or without."""

from pathlib import Path


def read_text(path: Path) -> str:
    """The text of a file, without its byte order mark. Raises ValueError, naming file and line, if it is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise ValueError(f"{path}: line {line}: byte 0x{byte:02x} is no UTF-8, and no other encoding is read") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a file, stripped, without the empty ones at its end. Raises as `read_text` does."""
    return [line.strip() for line in read_text(path).rstrip().splitlines()]
