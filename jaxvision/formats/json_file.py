"""JSON files: read with what is wrong in one line, written without numbers that JSON has not."""

import json
from pathlib import Path
from typing import Any

from jaxvision.errors import DataError, shown
from jaxvision.formats.files import content


def read(path: Path, most: int | None = None) -> Any:
    """The content of a file of at most `most` bytes. Raises DataError, naming the file, for what is no JSON."""
    try:
        return json.loads(content(path, most))
    except DataError:
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"{path} is no JSON: {str(error) or 'there is not enough memory for it'}") from None


def data(value: Any, indent: int | None = None) -> bytes:
    """The file of a value, in UTF-8; all escaped where a name is no Unicode, as those of some files are."""
    try:
        return (json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(value, allow_nan=False, indent=indent) + "\n").encode()


def field(holder: object, name: str, kind: type | tuple[type, ...], where: str, allowed: str) -> Any:
    """A field of an object. Raises DataError where it is of another type, or there is none; `where` begins its message."""
    value = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise DataError(f"{where}: {name} is {shown(value)}; allowed is {allowed}")
    return value
