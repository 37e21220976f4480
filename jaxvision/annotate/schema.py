"""Schema: how a store lies in its file, how records become rows, and what goes wrong with the file said in one line.

The journal is SQLite's rollback journal (`DELETE`), not a write-ahead log: at rest a store is one file that can be copied,
it can be read where nothing can be written, and it needs no memory that processes have in common, which network disks do
not give. `synchronous=EXTRA` waits for the disk, and for the folder that the journal leaves, so that what was confirmed
stays after a power cut too.
"""

import json
import math
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from jaxvision.annotate.records import Annotation, ImageRecord, Source
from jaxvision.errors import DataError, WorkdirError, shown
from jaxvision.formats.labelled import Segmentation, Value
from jaxvision.masks.runs import Runs

APPLICATION = 0x4A564153
"""SQLite's application id of a store, "JVAS"."""
VERSION = 1
"""Version of the schema, which a store keeps; one of a newer version is refused."""
LEAST_FREE = 1 << 18
"""Bytes that must be free on the disk where a store is opened to be written."""
PATIENCE = 30.0
"""Seconds that a writer waits for another."""
TABLES = (
    "CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE images (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL, height INTEGER NOT NULL, width INTEGER NOT NULL, "
    "state TEXT NOT NULL, failure TEXT, note TEXT NOT NULL DEFAULT '', version INTEGER NOT NULL, next INTEGER NOT NULL, "
    "objects TEXT NOT NULL)",
    "CREATE TABLE steps (number INTEGER PRIMARY KEY AUTOINCREMENT, who TEXT NOT NULL, status TEXT NOT NULL)",
    "CREATE INDEX steps_of ON steps (who, status, number)",
    "CREATE TABLE events (number INTEGER PRIMARY KEY AUTOINCREMENT, step INTEGER, name TEXT NOT NULL, who TEXT NOT NULL, "
    "action TEXT NOT NULL, at REAL NOT NULL, object INTEGER, before TEXT NOT NULL, after TEXT NOT NULL)",
    "CREATE INDEX events_of_image ON events (name, number)",
    "CREATE INDEX events_of_step ON events (step, number) WHERE step IS NOT NULL",
)


class Row(NamedTuple):
    """Record as it lies in the store, with what only the store needs."""

    record: ImageRecord
    next: int = 1
    """Least id that no object of the image has had."""
    note: str = ""
    """What a person has noted of the image."""


@contextmanager
def speaking(path: Path) -> Iterator[None]:
    """Inside this block an error of SQLite becomes one line that names the store and says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise _spoken(path, error) from error


def _spoken(path: Path, error: sqlite3.Error) -> DataError | WorkdirError:
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    no_store = f"{path}: it is no store of annotations"
    told: Mapping[int, DataError | WorkdirError] = {
        sqlite3.SQLITE_NOTADB: DataError(no_store),
        sqlite3.SQLITE_CORRUPT: DataError(f"{path}: the store is damaged ({error})"),
        sqlite3.SQLITE_FULL: WorkdirError(f"{path}: the disk is full; the store is as it was before this change"),
        sqlite3.SQLITE_IOERR: WorkdirError(f"{path}: the disk failed or is full ({error}); the store is as it was"),
        sqlite3.SQLITE_READONLY: WorkdirError(f"{path}: the store or its folder is read-only"),
        sqlite3.SQLITE_CANTOPEN: WorkdirError(f"{path}: the store can't be opened, or nothing written beside it"),
        sqlite3.SQLITE_BUSY: WorkdirError(f"{path}: another process has been writing for {PATIENCE:.0f} s; try again"),
        sqlite3.SQLITE_TOOBIG: DataError(f"{path}: a record is too large"),
    }
    return told.get(code, DataError(f"{path}: {error}"))


def opened(path: Path, *, create: bool, readonly: bool) -> sqlite3.Connection:
    """A connection to a store, which is made where there is none and `create` says so.

    Raises:
      DataError: where there is no store, another file, or a store of a newer version.
      WorkdirError: where it can't be written though it is to be; said at once, not with the first change.
    """
    if not create and not path.is_file():
        raise DataError(f"{path}: there is no store of annotations")
    if not readonly:
        check_writable(path)
    with speaking(path):
        uri = f"{path.absolute().as_uri()}?mode={'ro' if readonly else 'rwc' if create else 'rw'}"
        connection = sqlite3.connect(uri, PATIENCE, isolation_level=None, check_same_thread=False, uri=True)
        try:
            connection.execute("PRAGMA synchronous=EXTRA")
            check_version(connection, path, create=create and not readonly)
            if not readonly:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        except BaseException:
            connection.close()
            raise
    return connection


def check_writable(path: Path) -> None:
    """Raises WorkdirError if a store can't be written: a read-only file or folder, no folder, or a full disk."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise WorkdirError(f"{path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise WorkdirError(f"{path}: the store or its folder is read-only")
    if shutil.disk_usage(folder).free < LEAST_FREE:
        raise WorkdirError(f"{path}: the disk is full; the store is as it was")


def check_version(connection: sqlite3.Connection, path: Path, *, create: bool) -> None:
    """Raises DataError for what is no store, or one of a newer version; an empty file becomes a store where `create`."""
    if create and _blank(connection):
        connection.execute("BEGIN IMMEDIATE")
        if _blank(connection):  # no other process was faster
            for table in TABLES:
                connection.execute(table)
            connection.execute(f"PRAGMA application_id={APPLICATION}")
            connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    application, version = (
        connection.execute(f"PRAGMA {key}").fetchone()[0] for key in ("application_id", "user_version")
    )
    if application != APPLICATION:
        raise DataError(f"{path}: it is no store of annotations")
    if version > VERSION:
        raise DataError(
            f"{path}: the store has version {version}, this program reads up to {VERSION}; a newer jaxvision reads it"
        )


def _blank(connection: sqlite3.Connection) -> bool:
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return not tables and not connection.execute("PRAGMA application_id").fetchone()[0]


COLUMNS = "name, sha256, height, width, state, failure, note, version, next, objects"


def values(row: Row) -> tuple[Any, ...]:
    """The values of a row, in order of `COLUMNS`."""
    record = row.record
    size = int(record.size[0]), int(record.size[1])
    objects = dumps([plain(each) for each in record.objects])
    text = record.name, record.sha256, *size, record.state, record.failure, row.note
    return *text, record.version, row.next, objects


def row_of(found: tuple[Any, ...]) -> Row:
    """The row of its values."""
    name, sha256, height, width, state, failure, note, version, following, objects = found
    listed = tuple(map(annotation_of, json.loads(objects)))
    return Row(ImageRecord(name, sha256, (height, width), listed, state, failure, version), following, note)


def dumps(value: object) -> str:
    """JSON text, the same for the same value.

    Raises:
      DataError: for what JSON can't hold, such as a number that is not finite.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise DataError(f"a record can't hold {shown(value)}: {error}") from error


def plain(each: Annotation) -> dict[str, Any]:
    """An object as JSON has it; NumPy's numbers become Python's."""
    mask = each.segmentation
    return {
        "id": int(each.id),
        "label": each.label,
        "box": [float(side) for side in each.box],
        "segmentation": None if mask is None else _plain_mask(mask),
        "score": None if each.score is None else float(each.score),
        "probability": None if each.probability is None else float(each.probability),
        "attributes": {key: plain_value(value) for key, value in each.attributes.items()},
        "sources": [list(source) for source in each.sources],
        "verdict": each.verdict,
        "human": bool(each.human),
    }


def _plain_mask(mask: Segmentation) -> dict[str, Any] | list[list[float]]:
    return mask.coco() if isinstance(mask, Runs) else [[float(side) for side in polygon] for polygon in mask]


def plain_value(value: Any) -> Any:
    """A value of an attribute as JSON has it."""
    if isinstance(value, tuple | list):
        return [str(each) for each in value]
    return value.item() if hasattr(value, "item") else value


def annotation_of(found: Mapping[str, Any]) -> Annotation:
    """The object that `plain` told; a list among its attributes becomes a tuple."""
    return Annotation(
        **{
            **found,
            "box": tuple(found["box"]),
            "segmentation": mask_of(found["segmentation"]),
            "attributes": {key: value_of(value) for key, value in found["attributes"].items()},
            "sources": tuple(Source(*source) for source in found["sources"]),
        }
    )


def mask_of(found: Any) -> Segmentation | None:
    """The mask of JSON: run lengths of COCO's form, or polygons."""
    if found is None:
        return None
    if isinstance(found, Mapping):
        return Runs((int(found["size"][0]), int(found["size"][1])), found["counts"].encode("ascii"))
    return tuple(tuple(map(float, polygon)) for polygon in found)


def value_of(found: Any) -> Value:
    """The value of an attribute that JSON has."""
    return tuple(found) if isinstance(found, list) else found


def finite(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
