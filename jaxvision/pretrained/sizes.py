"""How large arrays may be beside the file that holds them, so that a small file can't fill the memory."""

from pathlib import Path

RATIO = 100
"""How many times its size a file may hold, compressed, or of numbers that it says once for many places."""
ROOM = 1 << 24
"""Bytes that any file may hold beside that."""


def check_size(size: int, path: Path) -> None:
    """Raises ValueError for arrays of `size` bytes that this file is too small for."""
    held = path.stat().st_size
    if size > ROOM + RATIO * held:
        raise ValueError(f"its arrays would take {size:,} bytes, and it has {held:,}")
