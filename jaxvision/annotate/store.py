"""Store: what is known of the images of a folder, in one file that survives being killed at any byte.

Every change is one transaction of SQLite: after `kill -9`, a full disk or a power cut the file holds all of it or nothing
(of a process that was killed, `NAME-journal` beside the file belongs to it until the store is opened again). What `records`
and so the exports say depends on the records alone, not on when, by whom or in which order they were stored.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxvision.annotate import changes, findings, merging, rows, steps
from jaxvision.annotate.changes import Change, Conflict
from jaxvision.annotate.database import Database
from jaxvision.annotate.findings import ImageChanged
from jaxvision.annotate.records import Event, ImageRecord
from jaxvision.annotate.rows import COLUMNS, Row
from jaxvision.errors import DataError

__all__ = ["Change", "Conflict", "ImageChanged", "Store", "file_of"]
NAME = "annotations.sqlite"
"""Name of the store in the folder that `label` writes."""
PAGE = 64
"""Records that are read at once."""
PORTION = 1000
"""Changes of one transaction, about, where many are done."""
PAUSE = 0.15
"""Seconds between such transactions: who waits to write looks every tenth of a second whether it can."""


def file_of(store: Path) -> Path:
    """The file of a store, which may be named by its folder."""
    return store / NAME if store.is_dir() else store


class Store(Database):
    """The store of a file, `OUTPUT/annotations.sqlite` say; opened and closed as any `Database` is."""

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
        return rows.row_of(found[0]) if found else None

    def rows(self) -> Iterator[Row]:
        """All records in order of name; `PAGE` at a time, so that nobody who writes has to wait for the reader."""
        question = f"SELECT {COLUMNS} FROM images WHERE name > ? ORDER BY name LIMIT {PAGE}"
        page = self.ask(question, ("",))
        while page:
            yield from map(rows.row_of, page)
            page = self.ask(question, (page[-1][0],))

    def records(self) -> Iterator[ImageRecord]:
        """All records in order of name, in bounded memory."""
        return (row.record for row in self.rows())

    def put(self, record: ImageRecord, *, who: str, redo: bool = False, version: int | None = None) -> bool:
        """Stores what models found in an image in place of the guesses before (`findings.found`), never of what a person did.

        Each waits for the disk; a hundred inside `together` wait once.

        Args:
          record: objects with id 0 get one; those of `get` keep theirs.
          who: name of the model.
          redo: takes back what persons did, too; before, the file is copied (`backup`), unless a copy has this work.
          version: of the record whose work is taken back, with `redo`; None: the one there is.

        Returns:
          whether anything has changed; if not, no byte of the file has.

        Raises:
          ImageChanged: for another image than a person worked on, without `redo`.
          Conflict: with `redo`, for a record that has another version and a person's work by now; nothing is done.
          ConfigError: with `redo` inside `together`, for work of which there is no copy yet.
          DataError: for a record that can't be stored.
        """
        check_name(record.name)
        if redo:
            version = self._copied(record.name, version)
        with self.together():
            old = self.row(record.name)
            if redo:
                check_version(old, version)
            new = findings.found(old, record, redo=redo)
            if findings.same(old, new):
                return False
            self.keep(new)
            self.tell(None, labelled(old, new.record, who))
            return True

    def _copied(self, name: str, version: int | None) -> int | None:
        """The version of a record whose work may be taken back: there is a copy of it."""
        old = self.row(name)
        if version is None:
            version = old.record.version if old is not None else None
        check_version(old, version)
        if old is not None and findings.touched(old.record) and not self._in_backup(name):
            self.backup()
        return version

    def _in_backup(self, name: str) -> bool:
        """Whether the last copy has all events of an image."""
        ((last,),) = self.ask("SELECT max(number) FROM events WHERE name = ?", (name,))
        return bool(self.backups) and (last or 0) <= self.copied

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
            return self._apply_all(listed, who, steps.begun(self, who)) if listed else []

    def apply_in_portions(self, listed: Sequence[tuple[str, Change, int]], who: str) -> list[str]:
        """`apply_all` of many images, those of each one after another: one step to undo, but several transactions.

        So nobody else who writes waits longer than for about `PORTION` changes. An image that has another version by now is
        left as it is; the names of such.

        Raises:
          DataError: for a change that does not fit; what came before it is done.
        """
        left, step = [], None
        for number, portion in enumerate(_portions(listed)):
            if number:
                time.sleep(PAUSE)
            with self.together():
                names = {name: version for name, _, version in portion}
                stale = {name for name, version in names.items() if self._version(name) != version}
                fresh = [each for each in portion if each[0] not in stale]
                left += sorted(stale)
                if fresh:
                    begun = steps.begun(self, who) if step is None else step
                    self._apply_all(fresh, who, begun)
                    step = begun
        return left

    def _version(self, name: str) -> int | None:
        found = self.ask("SELECT version FROM images WHERE name = ?", (name,))
        return found[0][0] if found else None

    def _apply_all(self, listed: Sequence[tuple[str, Change, int]], who: str, step: int) -> list[ImageRecord]:
        """Does changes, inside `together`; each record is written once, after its last."""
        found: dict[str, Row] = {}
        versions: dict[str, int] = {}
        done = []
        for name, change, version in listed:
            row = found.get(name) or self.row(name)
            if row is None:
                raise DataError(f"there is no record of {name!r}")
            if version != versions.setdefault(name, row.record.version):
                raise Conflict(
                    f"{name}: the record has version {versions[name]}, the change was made of {version}; load it again"
                )
            found[name] = self._apply(row, change, who, step)
            done.append(found[name].record)
        for row in found.values():
            self.keep(row)
        return done

    def _apply(self, row: Row, change: Change, who: str, step: int) -> Row:
        """The record after a change, of which the history is told."""
        new = changes.changed(row, change)
        number = row.next if change.action == "add" else change.object
        before, after = (steps.told(each, change.action, number) for each in (row, new))
        self.tell(step, Event(0, row.record.name, who, change.action, time.time(), number, before, after))
        return new

    def undo(self, who: str) -> ImageRecord | None:
        """Takes back this person's last step that stands; returns the (first) record of it, None where there is no step.

        Raises:
          Conflict: if what the step changed has been changed since, by someone else or a model. Nothing is done, and the
            step is given up: the next `undo` takes the one before.
        """
        name = steps.travel(self, who, "undo")
        return None if name is None else self.get(name)

    def redo(self, who: str) -> ImageRecord | None:
        """Does this person's last step that was taken back again, unless another came after it; as `undo`."""
        name = steps.travel(self, who, "redo")
        return None if name is None else self.get(name)

    def history(self, name: str | None = None) -> list[Event]:
        """All events of an image, or of the store, in the order in which they happened."""
        if name is None:
            return self.events("ORDER BY number")
        return self.events("WHERE name = ? ORDER BY number", (name,))

    def events(self, which: str, values: Sequence[Any] = ()) -> list[Event]:
        """The events that the end of a question of SQL selects and orders."""
        columns = ", ".join(Event._fields)
        return [Event(*found) for found in self.ask(f"SELECT {columns} FROM events {which}", values)]

    def merge(self, other: Path) -> None:
        """Takes over the records of another store with their history, as if they had been stored here; all or none.

        Of an image that both have, the record that a person touched counts; of two that nobody touched, the other's, but for
        one that was labelled alike (`labelling`), whose guesses may have been judged here. What was taken over before and has
        not changed there since changes nothing here.

        Raises:
          Conflict: for an image of which both have a person's work that differs, and a setting that differs.
          DataError: where `other` is no store.
        """
        with Store(other, readonly=True) as source:
            merging.merge(self, source)

    def keep(self, row: Row) -> None:
        """Writes a record as it is, inside `together`."""
        marks = ", ".join("?" * len(COLUMNS.split(",")))
        self.run(f"INSERT OR REPLACE INTO images ({COLUMNS}) VALUES ({marks})", rows.values(row))

    def tell(self, step: int | None, event: Event) -> None:
        """Adds an event to the history, inside `together`; its number is the next."""
        fields = ", ".join(Event._fields[1:])
        marks = ", ".join("?" * len(Event._fields))
        self.run(f"INSERT INTO events (step, {fields}) VALUES ({marks})", (step, *event[1:]))


def _portions(listed: Sequence[tuple[str, Change, int]]) -> Iterator[Sequence[tuple[str, Change, int]]]:
    """The changes in portions of about `PORTION`, those of one image together."""
    portion: list[tuple[str, Change, int]] = []
    for each in listed:
        if len(portion) >= PORTION and each[0] != portion[-1][0]:
            yield portion
            portion = []
        portion.append(each)
    if portion:
        yield portion


def check_name(name: str) -> None:
    """Raises DataError for a name that is no text, such as that of a file whose bytes are not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{name!a}: the name of the file is not UTF-8; rename it") from error
    if not name:
        raise DataError("the record has no name")


def check_version(old: Row | None, version: int | None) -> None:
    """Raises Conflict for a record that a person has touched, and that has another version."""
    if old is not None and findings.touched(old.record) and old.record.version != version:
        raise Conflict(
            f"{old.record.name}: a person has worked on its record meanwhile, which stays as it is; redo it again"
        )


def labelled(old: Row | None, new: ImageRecord, who: str) -> Event:
    """The event of a run of models: the objects that are gone, and the numbers of those that there are."""
    gone = [] if old is None else [each for each in old.record.objects if each not in new.objects]
    before = rows.dumps(list(map(rows.plain, gone))) if gone else ""
    after = {"objects": [each.id for each in new.objects], "sha256": new.sha256, "state": new.state}
    return Event(0, new.name, who, "label", time.time(), None, before, rows.dumps(after))
