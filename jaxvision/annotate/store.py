"""Store: what is known of the images of a folder, in one file that survives being killed at any byte.

Every change is one transaction of SQLite: after `kill -9`, a full disk or a power cut the file holds all of it or nothing.
What `records` and so the exports say depends on the records alone, not on when, by whom or in which order they were stored.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxvision.annotate import changes, schema
from jaxvision.annotate.changes import Change, Conflict, ImageChanged
from jaxvision.annotate.records import Event, ImageRecord
from jaxvision.annotate.schema import COLUMNS, Row
from jaxvision.errors import ConfigError, DataError, creating, cut

__all__ = ["Change", "Conflict", "ImageChanged", "Settings", "Store"]
PAGE = 64
"""Records that are read at once."""


class Store:
    """The store of a file. A context manager; may be used by several threads, and by several processes at once.

    Raises:
      DataError: where there is no store and `create` does not say to make one; for a file that is no store; for a store of
        a newer version.
      WorkdirError: where the store is to be written and can't be: read-only, or the disk is full. At once, not later.
    """

    def __init__(self, path: Path, *, create: bool = False, readonly: bool = False):
        self.path = Path(path)
        self.backups: list[Path] = []
        """Copies of the file that were made before a person's work was taken back."""
        self._lock = threading.RLock()
        self._depth = 0
        self._connection = schema.opened(self.path, create=create, readonly=readonly)
        self.settings = Settings(self)

    def __enter__(self) -> "Store":
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

    @contextmanager
    def together(self) -> Iterator[None]:
        """Inside this block all changes are one: all are kept if it ends without an error, else none.

        Another process that writes waits for its end, so that it should be short.
        """
        with self._lock, schema.speaking(self.path):
            if self._depth == 0:
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
                if self._depth == 1:
                    self._connection.execute("COMMIT")
            except BaseException:
                if self._depth == 1 and self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    def names(self) -> list[str]:
        """Names of the images, sorted."""
        return [name for (name,) in self.ask("SELECT name FROM images ORDER BY name")]

    def get(self, name: str) -> ImageRecord | None:
        """The record of an image; None where there is none."""
        row = self.row(name)
        return None if row is None else row.record

    def note(self, name: str) -> str:
        """What a person has noted of an image."""
        row = self.row(name)
        return "" if row is None else row.note

    def row(self, name: str) -> Row | None:
        """The record of an image with what only the store needs."""
        found = self.ask(f"SELECT {COLUMNS} FROM images WHERE name = ?", (name,))
        return schema.row_of(found[0]) if found else None

    def rows(self) -> Iterator[Row]:
        """All records in order of name; `PAGE` at a time, so that nobody who writes has to wait for the reader."""
        question = f"SELECT {COLUMNS} FROM images WHERE name > ? ORDER BY name LIMIT {PAGE}"
        page = self.ask(question.replace("name > ?", "name >= ?"), ("",))
        while page:
            yield from map(schema.row_of, page)
            page = self.ask(question, (page[-1][0],))

    def records(self) -> Iterator[ImageRecord]:
        """All records in order of name, in bounded memory."""
        return (row.record for row in self.rows())

    def put(self, record: ImageRecord, *, who: str, redo: bool = False) -> bool:
        """Stores what models found in an image, in place of the guesses before (`changes.found`), never of what a person did.

        Args:
          record: objects with id 0 get one; those of `store.get` keep theirs.
          who: name of the model.
          redo: takes back what persons did, too; before that, once a `Store`, the file is copied (`backup`).

        Returns:
          whether anything has changed; if not, no byte of the file has.

        Raises:
          ImageChanged: for another image than a person worked on, without `redo`.
          DataError: for a record that can't be stored.
        """
        check_name(record.name)
        if redo and not self.backups and self._takes_back(record):
            self.backup()
        with self.together():
            old = self.row(record.name)
            new = changes.found(old, record, redo=redo)
            if changes.same(old, new):
                return False
            self._keep(new)
            before = [] if old is None else [each for each in old.record.objects if each not in new.record.objects]
            after = {
                "objects": [each.id for each in new.record.objects],
                "sha256": record.sha256,
                "state": record.state,
            }
            told = schema.dumps(list(map(schema.plain, before))) if before else ""
            self._tell(None, Event(0, record.name, who, "label", time.time(), None, told, schema.dumps(after)))
            return True

    def _takes_back(self, record: ImageRecord) -> bool:
        old = self.row(record.name)
        return old is not None and changes.touched(old.record)

    def backup(self) -> Path:
        """Copies the file to a new one beside it, `NAME.backup-1` or the next number, whole or not at all; its path."""
        with self._lock, schema.speaking(self.path):
            number = 1
            while True:
                copy = self.path.with_name(f"{self.path.name}.backup-{number}")
                try:
                    with creating(copy) as partial:
                        target = sqlite3.connect(partial)
                        self._connection.backup(target)
                        target.close()
                    break
                except FileExistsError:
                    number += 1
        self.backups.append(copy)
        return copy

    def apply(self, name: str, change: Change, *, who: str, version: int) -> ImageRecord:
        """Does what a person did to the record of this version; one step to undo. Returns the new record.

        Raises:
          Conflict: if the record has another version by now; nothing is done.
          DataError: for no such image, and a change that does not fit it.
        """
        return self.apply_all([(name, change, version)], who)[0]

    def apply_all(self, listed: Sequence[tuple[str, Change, int]], who: str) -> list[ImageRecord]:
        """Several changes of `apply` as one step: all are done, or none. Returns the record after each.

        Each is `(name, change, version)`; all of one image name the version that it had before the first.
        """
        with self.together():
            step = self._step(who) if listed else 0
            versions: dict[str, int] = {}
            done = []
            for name, change, version in listed:
                row = self.row(name)
                if row is None:
                    raise DataError(f"there is no record of {name!r}")
                if version != versions.setdefault(name, row.record.version):
                    raise Conflict(
                        f"{name}: the record has version {versions[name]}, the change was made of {version}; load it again"
                    )
                done.append(self._apply(row, change, who, step))
            return done

    def _apply(self, row: Row, change: Change, who: str, step: int) -> ImageRecord:
        new = changes.changed(row, change)
        number = row.next if change.action == "add" else change.object
        before, after = told(row, change.action, number), told(new, change.action, number)
        self._keep(new)
        self._tell(step, Event(0, row.record.name, who, change.action, time.time(), number, before, after))
        return new.record

    def undo(self, who: str) -> ImageRecord | None:
        """Takes back this person's last step that stands; returns the (first) record of it, None where there is no step.

        Raises:
          Conflict: if what the step changed has been changed since, by someone else or a model. Nothing is done, and the
            step is given up: the next `undo` takes the one before.
        """
        return self._travel(who, "done", "undone", "undo")

    def redo(self, who: str) -> ImageRecord | None:
        """Does this person's last step that was taken back again, unless another came after it; as `undo`."""
        return self._travel(who, "undone", "done", "redo")

    def _travel(self, who: str, status: str, then: str, action: str) -> ImageRecord | None:
        backwards = action == "undo"
        end = "max" if backwards else "min"
        with self.together():
            ((step,),) = self.ask(f"SELECT {end}(number) FROM steps WHERE who = ? AND status = ?", (who, status))
            if step is None:
                return None
            order = "DESC" if backwards else "ASC"
            events = self._events(f"WHERE step = ? ORDER BY number {order}", (step,))
            conflict = self._return(events, who, action)
            self._run("UPDATE steps SET status = ? WHERE number = ?", ("lost" if conflict else then, step))
        if conflict is not None:
            raise conflict
        return self.get(min(event.name for event in events))

    def _return(self, events: Sequence[Event], who: str, action: str) -> Conflict | None:
        """Leads records from what events left to what was before, or the other way; if one has gone on since, none."""
        rows: dict[str, Row] = {}
        pairs = [(e.after, e.before) if action == "undo" else (e.before, e.after) for e in events]
        for event, (now, goal) in zip(events, pairs, strict=True):
            row = rows.get(event.name) or self.row(event.name)
            if row is None or told(row, event.action, event.object) != now:
                return Conflict(f"{event.name}: it has changed since, so that there is no {action} of: {event.action}")
            rows[event.name] = restored(row, event, goal)
        for name, row in rows.items():
            old = self.row(name)
            assert old is not None
            self._keep(row._replace(record=row.record._replace(version=old.record.version + 1)))
        for event, (now, goal) in zip(events, pairs, strict=True):
            self._tell(None, event._replace(who=who, action=action, at=time.time(), before=now, after=goal))
        return None

    def history(self, name: str | None = None) -> list[Event]:
        """All events of an image, or of the store, in the order in which they happened."""
        if name is None:
            return self._events("ORDER BY number")
        return self._events("WHERE name = ? ORDER BY number", (name,))

    def _events(self, which: str, values: Sequence[Any] = ()) -> list[Event]:
        columns = ", ".join(Event._fields)
        return [Event(*found) for found in self.ask(f"SELECT {columns} FROM events {which}", values)]

    def merge(self, other: Path) -> None:
        """Takes over the records of another store with their history, as if they had been stored here; all or none.

        Of an image that both have, the record that a person touched counts; of two that nobody touched, the other's.

        Raises:
          Conflict: for an image of which both have a person's work that differs, and a setting that differs.
          DataError: where `other` is no store.
        """
        with Store(other, readonly=True) as source, self.together():
            for key, value in source.settings.items():
                if self.settings.setdefault(key, value) != value:
                    raise Conflict(
                        f"{other}: its setting {key!r} is {cut(value, 80)}, not {cut(self.settings[key], 80)}"
                    )
            steps: dict[int, int] = {}
            for row in source.rows():
                if self._takes(row, other):
                    self._take(row, source, steps)

    def _takes(self, row: Row, other: Path) -> bool:
        old = self.row(row.record.name)
        if old is None or changes.same(old, row):
            return old is None
        here, elsewhere = changes.touched(old.record), changes.touched(row.record)
        if here and elsewhere:
            raise Conflict(f"{row.record.name}: here and in {other} persons have worked on it, and differ")
        return not here

    def _take(self, row: Row, source: "Store", steps: dict[int, int]) -> None:
        """Takes over a record and its history; `steps` are the steps here of those there."""
        old = self.row(row.record.name)
        if old is not None:
            version = max(old.record.version, row.record.version) + 1
            row = row._replace(record=row.record._replace(version=version), next=max(old.next, row.next))
        self._keep(row)
        question = (
            "SELECT events.number, step, status FROM events LEFT JOIN steps ON step = steps.number WHERE name = ?"
        )
        of = {number: (step, status) for number, step, status in source.ask(question, (row.record.name,))}
        for event in source.history(row.record.name):
            step, status = of[event.number]
            if step is not None and step not in steps:
                steps[step] = self._run("INSERT INTO steps (who, status) VALUES (?, ?)", (event.who, status))
            self._tell(steps.get(step), event)

    def _step(self, who: str) -> int:
        """A new step of a person; what was undone before can't be done again."""
        self._run("UPDATE steps SET status = 'lost' WHERE who = ? AND status = 'undone'", (who,))
        return self._run("INSERT INTO steps (who, status) VALUES (?, 'done')", (who,))

    def _keep(self, row: Row) -> None:
        marks = ", ".join("?" * len(COLUMNS.split(",")))
        self._run(f"INSERT OR REPLACE INTO images ({COLUMNS}) VALUES ({marks})", schema.values(row))

    def _tell(self, step: int | None, event: Event) -> None:
        fields = ", ".join(Event._fields[1:])
        marks = ", ".join("?" * len(Event._fields))
        self._run(f"INSERT INTO events (step, {fields}) VALUES ({marks})", (step, *event[1:]))

    def _run(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Writes, inside `together`; the number of the row that was added."""
        with schema.speaking(self.path):
            return self._connection.execute(statement, values).lastrowid or 0


class Settings(MutableMapping[str, str]):
    """Settings of a store: keys to JSON texts, in order of the keys."""

    def __init__(self, store: Store):
        self._store = store

    def __getitem__(self, key: str) -> str:
        found = self._store.ask("SELECT value FROM settings WHERE key = ?", (key,))
        if not found:
            raise KeyError(key)
        return found[0][0]

    def __setitem__(self, key: str, value: str) -> None:
        try:
            json.loads(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the setting {key!r} is {value!r}; allowed is JSON text ({error})") from error
        with self._store.together():
            if self.get(key) != value:
                self._store._run("INSERT OR REPLACE INTO settings VALUES (?, ?)", (key, value))

    def __delitem__(self, key: str) -> None:
        with self._store.together():
            self[key]
            self._store._run("DELETE FROM settings WHERE key = ?", (key,))

    def __iter__(self) -> Iterator[str]:
        return iter([key for (key,) in self._store.ask("SELECT key FROM settings ORDER BY key")])

    def __len__(self) -> int:
        return self._store.ask("SELECT count(*) FROM settings")[0][0]


def check_name(name: str) -> None:
    """Raises DataError for a name that is no text, such as that of a file whose bytes are not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{name!a}: the name of the file is not UTF-8; rename it") from error
    if not name:
        raise DataError("the record has no name")


def told(row: Row, action: str, number: int | None) -> str:
    """What an event says of a record: the object, or the state or note of the image, as JSON; empty where there is none."""
    if number is None:
        return schema.dumps(row.note if action == "note" else row.record.state)
    found = [each for each in row.record.objects if each.id == number]
    return schema.dumps(schema.plain(found[0])) if found else ""


def restored(row: Row, event: Event, goal: str) -> Row:
    """The record with what an event speaks of as `goal` says, the text of `told`."""
    if event.object is not None:
        new = schema.annotation_of(json.loads(goal)) if goal else None
        return row._replace(record=changes.with_objects(row.record, {event.object: new}))
    if event.action == "note":
        return row._replace(note=json.loads(goal))
    return row._replace(record=row.record._replace(state=json.loads(goal)))
