"""What a user can mend: errors in one line, the nearest name for a typo, counts, files written whole or not at all."""

import difflib
import lzma
import os
import re
import reprlib
import struct
import time
import unicodedata
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
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


class ExportError(UserError, RuntimeError):
    """A model can't be exported in a format, or the file that was written does not give its answers."""


class AnotherProcessFailed(UserError, RuntimeError):
    """Not this process, but another has failed; that one says why."""


@contextmanager
def raised_as(kind: type[UserError]) -> Iterator[None]:
    """Inside this block what a value of the user's can lead to is raised as an error of this kind.

    That is a ValueError or OSError, and what numbers that are far too large, or 0, make of a computation.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        raise kind(str(error)) from error
    except (ArithmeticError, MemoryError, NotImplementedError) as error:
        text = " ".join(str(error).split()) or "there is not enough memory"
        raise kind(f"a number is 0, or far too large ({type(error).__name__}: {cut(text, 200)})") from error


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Inside this block a ValueError says what it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


DAMAGE = (
    *(
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        EOFError,
        OSError,
        RuntimeError,
        MemoryError,
    ),
    *(struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile),
)
"""What the readers of files raise where a file is damaged, cut off, or made to do harm."""


@contextmanager
def damage(file: object, *more: type[Exception]) -> Iterator[None]:
    """Inside this block, whatever the reader of a damaged file raises becomes a `DataError` of one line that names it.

    `more` are the reader's own errors. Errors of the file system, which name a file, stay as they are.
    """
    try:
        yield
    except (*DAMAGE, *more) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        text = cut(" ".join(str(error).split()), 200) or type(error).__name__
        if isinstance(error, RecursionError):
            text = "it nests too deeply"
        raise DataError(text if str(file) in text else f"{file}: damaged or cut off ({text})") from error


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


def shown(value: object, most: int = 120) -> str:
    """A value that a message shows, in `most` characters at most, however long, deep or large it is."""
    brief = reprlib.Repr()
    brief.maxlist = brief.maxtuple = brief.maxdict = 8
    brief.maxstring = brief.maxother = brief.maxlong = most
    return cut(brief.repr(value), most)


def cut(text: str, most: int) -> str:
    """The text, its middle left out where it has more than `most` characters."""
    return text if len(text) <= most else f"{text[: most * 2 // 3]}...{text[len(text) - most // 3 + 3 :]}"


def printable(text: str) -> str:
    """The text, characters that steer a terminal or the direction of writing escaped; line breaks and tabs stay."""
    if text.isprintable():
        return text
    return "".join(each if each in "\n\t" or not _steers(each) else ascii(each)[1:-1] for each in text)


def _steers(character: str) -> bool:
    return (
        unicodedata.category(character) in ("Cc", "Cf") and character not in "\u200c\u200d"
    )  # joiners of scripts, emoji


def no_link(path: str, flags: int) -> int:
    """The `opener` of a file that is added to in place: a link in its place, which leads elsewhere, is an OSError."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


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


DAY = 24 * 60 * 60.0
UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.partial")


def sweep(folder: Path, older: float = DAY) -> None:
    """Removes from a folder what processes that were killed had begun to write there with `replacing` or `creating`.

    What was written to in the last `older` seconds may still be under way, by another process, and stays.
    """
    for partial in folder.glob(".*.partial") if folder.is_dir() else ():
        with suppress(OSError):
            if UNFINISHED.fullmatch(partial.name) and time.time() - partial.lstat().st_mtime > older:
                partial.unlink()


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A hidden path in the folder of the file, another each time; nothing is there after the block."""
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)
