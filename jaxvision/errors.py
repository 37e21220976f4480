"""What a user can mend: errors in one line, the nearest name for a typo, counts, files written whole or not at all."""

import difflib
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class UserError(Exception):
    """What a user can mend; a command tells it in one line, without a traceback. All exceptions of the package are such."""


class ConfigError(UserError, ValueError):
    """The experiment file or a value given for its config is wrong; one line says which and what is allowed."""


class DataError(UserError, ValueError):
    """The data can't be opened or read."""


class WeightsError(UserError, ValueError):
    """A file of weights can't be read, or its arrays don't fit the network; the message names both."""


class NoExamples(DataError):
    """None of the examples of an evaluation could be read."""


class WorkdirError(UserError, RuntimeError):
    """The folder of the run can't be used."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint could not be written or read; the message names its path."""


class TrackerError(UserError, RuntimeError):
    """A tracker that was asked for (Weights & Biases, say) can't be had."""


class AnotherProcessFailed(UserError, RuntimeError):
    """Not this process, but another has failed; that one says why."""


@contextmanager
def raised_as(kind: type[UserError]) -> Iterator[None]:
    """Inside this block a ValueError or OSError is raised as an error of this kind."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise kind(str(error)) from error


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Inside this block a ValueError says what it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def reading(batches: Iterator[T]) -> Iterator[T]:
    """The batches; an error of the data becomes a `DataError`."""
    while True:
        with raised_as(DataError):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def closest(name: object, known: Iterable[str], count: int = 1, likeness: float = 0.5) -> list[str]:
    """Up to `count` known names, the most alike first; `likeness` is from 0, for any names, to 1, for the same."""
    return difflib.get_close_matches(str(name), list(known), n=count, cutoff=likeness)


def nearest(name: object, known: Sequence[str], shown: int = 8) -> str:
    """What may stand in place of a name, as the end of a message: the most alike, and all where they fit a line."""
    if not known:
        return ""
    more = f" and {len(known) - shown} more" if len(known) > shown else ""
    listed = f"there are: {', '.join(map(str, known[:shown]))}{more}"
    near = closest(name, known)
    if not near:
        return f"; {listed}"
    return f"; did you mean {near[0]!r}?" + ("" if more else f" ({listed})")


def amount(count: float, noun: str) -> str:
    """A count and what is counted, in the singular or the plural: `1 image`, `2,000 images`, `3 boxes`, `0 categories`."""
    count = int(count) if count == int(count) else count
    if count == 1:
        return f"1 {noun}"
    if re.search(r"(s|x|z|sh|(?<!o)ch)$", noun):
        return f"{count:,} {noun}es"
    return f"{count:,} {re.sub(r'(?<![aeiou])y$', 'ie', noun)}s"


def write_atomically(path: Path, data: str | bytes) -> None:
    """The file has all of the text (as UTF-8) or bytes, or is as it was."""
    with replacing(path) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside the file, to write in a `with` block; it takes the place of the file if the block ends without an error.

    Until then, and after an error, the file is as it was. The path is hidden and another each time.
    """
    with _beside(path) as partial:
        yield partial
        os.replace(partial, path)


@contextmanager
def creating(path: Path) -> Iterator[Path]:
    """A path beside the file, as that of `replacing`; but what has the name of the file at the end of the block stays.

    Raises:
      FileExistsError: at the end of the block, if there is such a file; it is as it was.
    """
    with _beside(path) as partial:
        yield partial
        try:
            os.link(partial, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            os.replace(partial, path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A hidden path in the folder of the file, another each time; nothing is there after the block."""
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)
