"""Desk: what the page asks for and what a person does, as values that JSON can hold. No HTTP here.

Of the methods that touch the store one runs at a time; `picture` and `file` may run beside them.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args

from jaxvision.annotate import steps
from jaxvision.annotate.drawing import colour
from jaxvision.annotate.previews import Cache, Preview, file_of, preview
from jaxvision.annotate.records import ImageRecord, State, Verdict
from jaxvision.annotate.review.queue import ORDERS, Filters, Index
from jaxvision.annotate.review.views import record_view
from jaxvision.annotate.store import Change, Conflict, Store
from jaxvision.errors import DataError, UserError, amount, nearest
from jaxvision.formats.image_file import BadImage, read
from jaxvision.formats.labelled import Value

SIDE = 2048
"""Pixels of the longer side of a picture on the page."""
MOST_ENTRIES = 50_000
"""Entries of a queue that the page is told at once; it asks again when it has come to their end."""
REMEMBERED = 256
"""Last actions whose answers are kept: one that is sent twice, since its answer was lost, is done once."""
DIGITS = 9
"""Classes that a key of their own sets."""
COLOURS = 256
"""Colours that the page is told; classes of higher numbers begin with the first again."""
Answer = dict[str, Any]
Answering = Callable[[], Answer]
"""What an action that is done is answered with; asked again where the store could not be read."""


class Missing(UserError, LookupError):
    """The page asks for an image that there is not."""


class Outdated(Conflict):
    """A conflict, with the record as it is now."""

    def __init__(self, text: str, record: Answer | None):
        super().__init__(text)
        self.record = record


class Desk:
    """A store under review by a person.

    Args:
      store: opened to be written.
      images: folder of the images.
      who: name of the person.
    """

    def __init__(self, store: Store, images: Path, who: str):
        self.store, self.folder, self.who = store, images, f"human:{who}"
        self.index = Index(store)
        self.previews = Cache()
        self._answers: OrderedDict[str, Answering] = OrderedDict()

    def session(self) -> Answer:
        """What the page has to know first."""
        self.index.follow()
        attributes = [[key, list(map(_plain, values))] for key, values in self.index.attributes().items()]
        return {
            "who": self.who,
            "classes": self._classes(),
            "sources": self.index.models(),
            "attributes": attributes,
            "orders": list(ORDERS),
            "colours": list(map(colour, range(COLOURS))),
        }

    def _classes(self) -> list[str]:
        """Names of the classes: those of the store in their order, then others. Of many, those that occur come first."""
        stated = json.loads(self.store.settings.get("classes", "[]"))
        names = [each for each in stated if isinstance(each, str)] if isinstance(stated, list) else []
        found = self.index.labels()
        first = [each for each in names if each in set(found)] if len(names) > DIGITS else []
        return list(dict.fromkeys([*first, *names, *found]))

    def queue(self, query: Mapping[str, str]) -> Answer:
        """What is shown, in order: `[number of the image, id of the object or None]` each."""
        self.index.follow()
        order = ORDERS.get(query.get("order", ""), next(iter(ORDERS.values())))
        find = self.index.images if query.get("by") == "images" else self.index.objects
        found = find(filters_of(query), order)
        entries = [list(each) for each in found.entries[:MOST_ENTRIES]]
        counts = {"total": len(found.entries), "images": found.images, "objects": found.objects}
        return {"entries": entries, **counts, "complete": len(self.index.complete)}

    def record(self, number: int) -> Answer:
        """All that is known of an image."""
        return self._view(self._record(number).name)

    def _record(self, number: int) -> ImageRecord:
        if not 0 <= number < len(self.index.records):
            raise Missing(f"there is no image {number}; there are {amount(len(self.index.records), 'image')}")
        return self.index.records[number]

    def _view(self, name: str) -> Answer:
        record = self.store.get(name)
        assert record is not None  # no image leaves a store
        number = self.index.numbers[name]
        try:
            version = version_of(file_of(self.folder, name))
        except BadImage:
            version = ""
        return record_view(record, number, self.index.wrong[number], version)

    def picture(self, number: int) -> tuple[Preview, str]:
        """The image on a screen, and the version of its file. Raises BadImage if it can't be read."""
        path = file_of(self.folder, self._record(number).name)
        version = version_of(path)
        return self.previews.get((number, version), lambda: preview(read(path), SIDE)), version

    def file(self, number: int) -> Answer:
        """Whether the file of an image is another than the one that was annotated, or can't be read."""
        record = self._record(number)
        try:
            data = read(file_of(self.folder, record.name))
        except BadImage as error:
            return {"failure": str(error).replace(str(self.folder), "").lstrip("/")}
        return {"changed": record.sha256 not in ("", hashlib.sha256(data).hexdigest())}

    def change(self, body: Answer) -> Answering:
        """Does what a person did to an image: `{key, number, version, changes: [{action, object, value}]}`, as one step."""
        number, version, listed = body.get("number"), body.get("version"), body.get("changes")
        if not isinstance(number, int) or not isinstance(version, int) or not isinstance(listed, list) or not listed:
            raise DataError("a change needs number, version and changes")
        name = self._record(number).name
        changes = [(name, change_of(each), version) for each in listed]
        try:
            self.store.apply_all(changes, self.who)
        except Conflict as error:
            self.index.follow()
            raise Outdated(str(error), self._view(name)) from error
        return lambda: self._changed(name)

    def _changed(self, name: str) -> Answer:
        self.index.follow()
        return {"record": self._view(name), "complete": len(self.index.complete)}

    def many(self, body: Answer) -> Answering:
        """Does one thing to all objects that filters let through: `{key, filters, action, value, count}`, as one step.

        Images that another process changes meanwhile are left as they are; `left` is how many.

        Raises:
          Outdated: if they are not `count` any more, as the person was asked.
        """
        self.index.follow()
        query = body.get("filters")
        if not isinstance(query, dict):
            raise DataError("many needs filters")
        found = self.index.matching(filters_of(query))
        count = sum(len(objects) for _, objects in found)
        if count != body.get("count"):
            raise Outdated(f"by now these are {amount(count, 'object')}: look again, and decide then", None)
        one = change_of({**body, "object": None})
        if one.action not in ("accept", "reject", "rename", "attribute"):
            raise DataError(f"{one.action} can't be done to many objects")
        changes = [
            (record.name, one._replace(object=each.id), record.version) for record, objects in found for each in objects
        ]
        return self._applied(changes)

    def finish(self, body: Answer) -> Answering:
        """Marks the images whose objects are all decided as reviewed: `{key, count}`, as one step.

        Images that another process changes meanwhile are left as they are; `left` is how many.

        Raises:
          Outdated: if they are not `count` any more, as the person was asked.
        """
        self.index.follow()
        records = [self.index.records[number] for number in sorted(self.index.complete)]
        if len(records) != body.get("count"):
            raise Outdated(f"by now these are {amount(len(records), 'image')}: look again, and decide then", None)
        return self._applied([(record.name, Change("reviewed"), record.version) for record in records])

    def _applied(self, changes: list[tuple[str, Change, int]]) -> Answering:
        """Changes many images; the answer counts the changes, and the images that were left."""
        left = self.store.apply_in_portions(changes, self.who)
        answer = {"count": sum(name not in left for name, *_ in changes), "left": len(left)}
        return lambda: self._followed(answer)

    def _followed(self, answer: Answer) -> Answer:
        self.index.follow()
        return {**answer, "complete": len(self.index.complete)}

    def undo(self, body: Answer) -> Answering:
        """Takes back what this person did last; also before a restart."""
        return self._travelled("undo")

    def redo(self, body: Answer) -> Answering:
        """Does again what was taken back last."""
        return self._travelled("redo")

    def _travelled(self, way: steps.Way) -> Answering:
        self.index.follow()
        try:
            name = steps.travel(self.store, self.who, way)
        except Conflict as error:
            raise Outdated(str(error), None) from error
        return lambda: {"nothing": True} if name is None else self._turned(name)

    def _turned(self, name: str) -> Answer:
        several = len(self.index.follow()) > 1
        last = [event.object for event in self.store.history(name)[-1:]]
        answer = {"record": self._view(name), "object": last[0] if last else None, "several": several}
        return {**answer, "complete": len(self.index.complete)}

    def once(self, action: str, body: Answer) -> Answer:
        """Does an action of the page (`change`, `many`, `finish`, `undo`, `redo`), unless its key says that it has been done.

        An action that was done, but whose answer could not be made, is answered when it is sent again.
        """
        key = body.get("key")
        if not isinstance(key, str) or not 0 < len(key) <= 64:
            raise DataError("an action needs a key of up to 64 characters")
        if key not in self._answers:
            self._answers[key] = cache(getattr(self, action)(body))
            while len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
        return self._answers[key]()


def version_of(file: Path) -> str:
    """What is another when a file has changed: its time and its size. Raises BadImage where there is none."""
    try:
        found = file.stat()
    except OSError as error:
        raise BadImage(f"{file.name}: {error.strerror or error}") from None
    return f"{found.st_mtime_ns:x}-{found.st_size:x}"


def change_of(found: Any) -> Change:
    """The change that the page tells: `{action, object, value}`; the store checks the value."""
    if not isinstance(found, dict) or not isinstance(found.get("action"), str):
        raise DataError("a change is an object with action, object and value")
    number = found.get("object")
    if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
        raise DataError("the object of a change is a number")
    if found["action"] == "add":
        number = None
    return Change(found["action"], number, found.get("value"))  # pyright: ignore[reportArgumentType]


def filters_of(query: Mapping[str, Any]) -> Filters:
    """The filters that the page tells; a field that is missing or empty lets everything through.

    Raises:
      DataError: for a value that is none of a filter.
    """
    allowed = {"verdict": (*get_args(Verdict), "human"), "state": get_args(State)}
    for key, values in allowed.items():
        if query.get(key) and query[key] not in values:
            raise DataError(f"{key}={query[key]!r} is no filter{nearest(query[key], values)}")
    try:
        low, high = (float(query.get(key) or default) for key, default in (("low", 0), ("high", 1)))
        attribute = json.loads(query["attribute"]) if query.get("attribute") else None
        if attribute is not None:
            key, value = attribute
            attribute = str(key), tuple(value) if isinstance(value, list) else value
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"the filters can't be read: {error}") from None
    text = {key: query.get(key) or None for key in ("label", "source", "verdict", "state")}
    return Filters(low=low, high=high, attribute=attribute, **text)


def _plain(value: Value) -> Any:
    return list(value) if isinstance(value, tuple) else value
