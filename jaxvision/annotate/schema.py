"""Schema: how a store lies in its file, how the file is opened, and what goes wrong with it said in one line.

The journal is SQLite's rollback journal (`DELETE`), not a write-ahead log: at rest a store is one file that can be copied,
it can be read where nothing can be written, and it needs no memory that processes have in common, which network disks do
not give. `synchronous=EXTRA` waits for the disk, and for the folder that the journal leaves, so that what was confirmed
stays after a power cut too.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from jaxvision.errors import DataError, WorkdirError

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
    "labelling TEXT NOT NULL DEFAULT '', objects TEXT NOT NULL)",
    "CREATE TABLE steps (number INTEGER PRIMARY KEY AUTOINCREMENT, who TEXT NOT NULL, status TEXT NOT NULL)",
    "CREATE INDEX steps_of ON steps (who, status, number)",
    "CREATE TABLE events (number INTEGER PRIMARY KEY AUTOINCREMENT, step INTEGER, name TEXT NOT NULL, who TEXT NOT NULL, "
    "action TEXT NOT NULL, at REAL NOT NULL, object INTEGER, before TEXT NOT NULL, after TEXT NOT NULL)",
    "CREATE INDEX events_of_image ON events (name, number)",
    "CREATE INDEX events_of_step ON events (step, number) WHERE step IS NOT NULL",
)


class Busy(WorkdirError):
    """Another process has been writing all the while: nothing is done, and the same may succeed a moment later."""


@contextmanager
def speaking(path: Path) -> Iterator[None]:
    """Inside this block an error of SQLite becomes one line that names the store and says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise _spoken(path, error) from error


def _spoken(path: Path, error: sqlite3.Error) -> DataError | WorkdirError:
    whole = getattr(error, "sqlite_errorcode", None) or 0
    if whole in (sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_READONLY_RECOVERY):
        return WorkdirError(f"{path}: a change was cut off; open the store once where it can be written")
    code = whole & 0xFF
    no_store = f"{path}: it is no store of annotations"
    busy = Busy(f"{path}: another process has been writing for {PATIENCE:.0f} s; try again")
    told: Mapping[int, DataError | WorkdirError] = {
        sqlite3.SQLITE_NOTADB: DataError(no_store),
        sqlite3.SQLITE_CORRUPT: DataError(f"{path}: the store is damaged ({error})"),
        sqlite3.SQLITE_FULL: WorkdirError(f"{path}: the disk is full; the store is as it was before this change"),
        sqlite3.SQLITE_IOERR: WorkdirError(f"{path}: the disk failed or is full ({error}); the store is as it was"),
        sqlite3.SQLITE_READONLY: WorkdirError(f"{path}: the store or its folder is read-only"),
        sqlite3.SQLITE_CANTOPEN: WorkdirError(f"{path}: the store can't be opened, or nothing written beside it"),
        sqlite3.SQLITE_BUSY: busy,
        sqlite3.SQLITE_LOCKED: busy,
        sqlite3.SQLITE_PROTOCOL: busy,
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
    elif path.with_name(f"{path.name}-journal").exists():
        _recover(path)
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


def _recover(path: Path) -> None:
    """Takes back the change of a process that was killed in it, which a connection that only reads could not."""
    with suppress(DataError, WorkdirError):
        opened(path, create=False, readonly=False).close()


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
