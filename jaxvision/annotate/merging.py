"""Merging: the records of several workers' stores, with their history, in one."""

from typing import TYPE_CHECKING

from jaxvision.annotate import findings
from jaxvision.annotate.changes import Conflict
from jaxvision.annotate.records import Event, ImageRecord
from jaxvision.annotate.rows import Row
from jaxvision.errors import cut

if TYPE_CHECKING:
    from jaxvision.annotate.store import Store


def merge(target: "Store", source: "Store") -> None:
    """Takes the records of one store over into another, all or none; see `Store.merge`."""
    with target.together():
        for key, value in source.settings.items():
            if (here := target.settings.setdefault(key, value)) != value:
                raise Conflict(f"{source.path}: its setting {key!r} is {cut(value, 80)}, here it is {cut(here, 80)}")
        steps: dict[int, int] = {}
        for row in source.rows():
            old = target.row(row.record.name)
            if old is None or (not _known(target, source, row.record.name) and _counts(row, old, source)):
                _keep(target, row, old)
                _tell(target, source, row.record.name, steps)


def _known(target: "Store", source: "Store", name: str) -> bool:
    """Whether the last change of an image there has been taken over before: the record here is that or a later one."""
    last = source.events("WHERE name = ? ORDER BY number DESC LIMIT 1", (name,))
    return bool(last) and _content(last[0]) in set(map(_content, target.history(name)))


def _content(event: Event) -> Event:
    """An event without its number, which each store gives anew."""
    return event._replace(number=0)


def _counts(row: Row, old: Row, source: "Store") -> bool:
    """Whether the other record of an image takes the place of that here."""
    if findings.same(old, row):
        return False
    here, elsewhere = findings.touched(old.record), findings.touched(row.record)
    if here and elsewhere:
        raise Conflict(f"{row.record.name}: here and in {source.path} persons have worked on it, and differ")
    return not here and (elsewhere or not _labelled_alike(old.record, row.record))


def _labelled_alike(one: ImageRecord, other: ImageRecord) -> bool:
    """Whether the same models looked at the same image: the guesses are the same, only one of them may have been judged."""
    return bool(one.labelling) and (one.sha256, one.labelling) == (other.sha256, other.labelling)


def _keep(target: "Store", row: Row, old: Row | None) -> None:
    if old is not None:
        version = max(old.record.version, row.record.version) + 1
        row = row._replace(record=row.record._replace(version=version), next=max(old.next, row.next))
    target.keep(row)


def _tell(target: "Store", source: "Store", name: str, steps: dict[int, int]) -> None:
    """Takes over what of the history of an image is not here yet; `steps` are the steps here of those there."""
    found, here = _steps_of(source, name), _steps_of(target, name)
    known = {_content(event): here[event.number][0] for event in target.history(name)}
    for event in source.history(name):
        step, status = found[event.number]
        if (before := known.get(_content(event))) is not None and step is not None:
            steps[step] = before
            target.run("UPDATE steps SET status = ? WHERE number = ?", (status, before))
        if _content(event) in known:
            continue
        if step is not None and step not in steps:
            steps[step] = target.run("INSERT INTO steps (who, status) VALUES (?, ?)", (event.who, status))
        target.tell(None if step is None else steps[step], event)


def _steps_of(store: "Store", name: str) -> dict[int, tuple[int | None, str | None]]:
    """Step of each event of an image, and its status."""
    question = "SELECT events.number, step, status FROM events LEFT JOIN steps ON step = steps.number WHERE name = ?"
    return {number: (step, status) for number, step, status in store.ask(question, (name,))}
