"""Steps: what each person did, a step at a time, to take back and to do again.

A step is "done", "undone", or "lost": it can't be taken back, or done again, any more.
"""

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from jaxvision.annotate import changes, rows
from jaxvision.annotate.changes import Conflict
from jaxvision.annotate.records import Event
from jaxvision.annotate.rows import Row

if TYPE_CHECKING:
    from jaxvision.annotate.store import Store

Way = Literal["undo", "redo"]


def begun(store: "Store", who: str) -> int:
    """A new step of a person; what was undone before can't be done again."""
    store.run("UPDATE steps SET status = 'lost' WHERE who = ? AND status = 'undone'", (who,))
    return store.run("INSERT INTO steps (who, status) VALUES (?, 'done')", (who,))


def travel(store: "Store", who: str, way: Way) -> str | None:
    """Takes back a person's last step that is done, or does the last that is undone; the first image's name.

    Raises:
      Conflict: if a record says something else by now; nothing is done, and the step is lost.
    """
    status, then, end, order = {
        "undo": ("done", "undone", "max", "DESC"),
        "redo": ("undone", "done", "min", "ASC"),
    }[way]
    with store.together():
        ((step,),) = store.ask(f"SELECT {end}(number) FROM steps WHERE who = ? AND status = ?", (who, status))
        if step is None:
            return None
        events = store.events(f"WHERE step = ? ORDER BY number {order}", (step,))
        passed = [_turned(event, who, way) for event in events]
        found = _restored(store, [(event.action, each) for event, each in zip(events, passed, strict=True)])
        lost = isinstance(found, Conflict)
        store.run("UPDATE steps SET status = ? WHERE number = ?", ("lost" if lost else then, step))
        for row in () if lost else found.values():
            store.keep(row)
        for event in () if lost else passed:
            store.tell(None, event)
    if lost:
        raise found
    return min(found)


def _turned(event: Event, who: str, way: Way) -> Event:
    """The event of taking an event back, or of doing it again."""
    before, after = (event.after, event.before) if way == "undo" else (event.before, event.after)
    return event._replace(who=who, action=way, at=time.time(), before=before, after=after)


def _restored(store: "Store", passed: Sequence[tuple[str, Event]]) -> dict[str, Row] | Conflict:
    """The records after these actions are taken back or done; a conflict where one does not say what was before."""
    found: dict[str, Row] = {}
    for action, event in passed:
        row = found.get(event.name) or store.row(event.name)
        if row is None or told(row, action, event.object) != event.before:
            return Conflict(f"{event.name}: it has changed since, so that there is no {event.action} of: {action}")
        if event.name not in found:
            row = row._replace(record=row.record._replace(version=row.record.version + 1))
        found[event.name] = restored(row, action, event.object, event.after)
    return found


def told(row: Row, action: str, number: int | None) -> str:
    """What an event says of a record: the object, or the state or note of the image, as JSON; empty where there is none."""
    if number is None:
        return rows.dumps(row.note if action == "note" else row.record.state)
    found = [each for each in row.record.objects if each.id == number]
    return rows.dumps(rows.plain(found[0])) if found else ""


def restored(row: Row, action: str, number: int | None, text: str) -> Row:
    """The record with the object, state or note that `told` told."""
    if number is not None:
        new = rows.annotation_of(json.loads(text)) if text else None
        return row._replace(record=changes.with_objects(row.record, {number: new}))
    if action == "note":
        return row._replace(note=json.loads(text))
    return row._replace(record=row.record._replace(state=json.loads(text)))
