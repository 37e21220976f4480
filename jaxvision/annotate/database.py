"""Database: the file of a store as transactions, settings and copies; nothing here knows what a record is."""

import json
import sqlite3
import threading
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from jaxvision.annotate import schema
from jaxvision.errors import ConfigError, creating


class Database:
    """The database of a file. A context manager; may be used by several threads, and by several processes at once.

    Raises:
      DataError: where there is no store and `create` does not say to make one; for a file that is no store; for a store of
        a newer version.
      WorkdirError: where the store is to be written and can't be: read-only, or the disk is full. At once, not later.
    """

    def __init__(self, path: Path, *, create: bool = False, readonly: bool = False):
        self.path = Path(path)
        self.settings: MutableMapping[str, str] = Settings(self)
        """Settings of the store: keys to JSON texts."""
        self.backups: list[Path] = []
        """Copies of the file that `backup` has made."""
        self.copied = 0
        """Number of the last event that the last of them has for certain."""
        self._lock = threading.RLock()
        self._depth = 0
        self._connection = schema.opened(self.path, create=create, readonly=readonly)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    def ask(self, question: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows that SQL finds."""
        with self._lock, schema.speaking(self.path):
            return self._connection.execute(question, values).fetchall()

    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Writes, inside `together`; the number of the row that was added."""
        with self._lock, schema.speaking(self.path):
            return self._connection.execute(statement, values).lastrowid or 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """Inside this block all changes are one: all are kept if it ends without an error, else none.

        Blocks may be nested. Other processes, and threads, that write wait for the end, so that it should be near.
        """
        with self._lock, schema.speaking(self.path):
            level, self._depth = self._depth, self._depth + 1
            try:
                self._connection.execute(f"SAVEPOINT level{level}" if level else "BEGIN IMMEDIATE")
                try:
                    yield
                    self._connection.execute(f"RELEASE level{level}" if level else "COMMIT")
                except BaseException:
                    self._take_back(level)
                    raise
            finally:
                self._depth = level

    def _take_back(self, level: int) -> None:
        if not self._connection.in_transaction:  # a full disk has ended it already
            return
        self._connection.execute(f"ROLLBACK TO level{level}" if level else "ROLLBACK")
        if level:
            self._connection.execute(f"RELEASE level{level}")

    def backup(self) -> Path:
        """Copies the file to a new one beside it, `NAME.backup-1` or the next number, whole or not at all; its path.

        Raises:
          ConfigError: inside `together`, of which the copy could hold a part.
        """
        with self._lock, schema.speaking(self.path):
            if self._depth:
                raise ConfigError(f"{self.path}: a copy can't be made inside a block of changes; make it before")
            ((last,),) = self.ask("SELECT max(number) FROM events")
            number = 1
            while True:
                copy = self.path.with_name(f"{self.path.name}.backup-{number}")
                try:
                    with creating(copy) as partial:
                        self._copy(partial)
                    break
                except FileExistsError:
                    number += 1
        self.backups.append(copy)
        self.copied = last or 0
        return copy

    def _copy(self, path: Path) -> None:
        target = sqlite3.connect(path)
        try:
            self._connection.backup(target)
        finally:
            target.close()


class Settings(MutableMapping[str, str]):
    """Settings of a store: keys to JSON texts, in order of the keys.

    Raises:
      ConfigError: for a value that is no JSON text.
    """

    def __init__(self, database: Database):
        self._database = database

    def __getitem__(self, key: str) -> str:
        found = self._database.ask("SELECT value FROM settings WHERE key = ?", (key,))
        if not found:
            raise KeyError(key)
        return found[0][0]

    def __setitem__(self, key: str, value: str) -> None:
        try:
            json.loads(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the setting {key!r} is {value!r}; allowed is JSON text ({error})") from error
        with self._database.together():
            if self.get(key) != value:
                self._database.run("INSERT OR REPLACE INTO settings VALUES (?, ?)", (key, value))

    def __delitem__(self, key: str) -> None:
        with self._database.together():
            self[key]
            self._database.run("DELETE FROM settings WHERE key = ?", (key,))

    def __iter__(self) -> Iterator[str]:
        return iter([key for (key,) in self._database.ask("SELECT key FROM settings ORDER BY key")])

    def __len__(self) -> int:
        return self._database.ask("SELECT count(*) FROM settings")[0][0]
