"""Merging: the records of several workers' stores, with their history, in one."""

from typing import TYPE_CHECKING

from jaxvision.annotate import findings
from jaxvision.annotate.changes import Conflict
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
            if old is None or _counts(row, old, source):
                _keep(target, row, old)
                _tell(target, source, row.record.name, steps)


def _counts(row: Row, old: Row, source: "Store") -> bool:
    """Whether the other record of an image takes the place of that here."""
    if findings.same(old, row):
        return False
    here, elsewhere = findings.touched(old.record), findings.touched(row.record)
    if here and elsewhere:
        raise Conflict(f"{row.record.name}: here and in {source.path} persons have worked on it, and differ")
    return not here


def _keep(target: "Store", row: Row, old: Row | None) -> None:
    if old is not None:
        version = max(old.record.version, row.record.version) + 1
        row = row._replace(record=row.record._replace(version=version), next=max(old.next, row.next))
    target.keep(row)


def _tell(target: "Store", source: "Store", name: str, steps: dict[int, int]) -> None:
    """Takes over the history of an image; `steps` are the steps here of those there."""
    question = "SELECT events.number, step, status FROM events LEFT JOIN steps ON step = steps.number WHERE name = ?"
    found = {number: (step, status) for number, step, status in source.ask(question, (name,))}
    for event in source.history(name):
        step, status = found[event.number]
        if step is not None and step not in steps:
            steps[step] = target.run("INSERT INTO steps (who, status) VALUES (?, ?)", (event.who, status))
        target.tell(None if step is None else steps[step], event)
