"""Laws of the store: random runs, persons, undo and redo against the same written plainly with dicts and lists."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.annotate.records import Annotation, ImageRecord, Source
from jaxvision.annotate.store import Change, Conflict, ImageChanged, Store

FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
NAMES, PERSONS, LABELS = ("a", "b"), ("human:x", "human:y"), ("cup", "tie", "cat")
Thing = tuple[str, int, int, bool, str]
"""Label, place, pixels right of it, human, verdict; two of one place are at IoU 18/22 or more, of two places at 0."""


class Plain:
    """The store as it is meant, in memory."""

    def __init__(self):
        self.images: dict[str, dict] = {}
        self.done: dict[str, list] = {who: [] for who in PERSONS}
        self.undone: dict[str, list] = {who: [] for who in PERSONS}

    def put(self, name, sha, guesses):
        image = self.images.get(name)
        if image is None:
            image = {"sha": None, "things": {}, "next": 1, "reviewed": False, "version": 0}
        human = {number: thing for number, thing in image["things"].items() if thing[3]}
        if (human or image["reviewed"]) and image["sha"] != sha:
            raise ImageChanged
        if image["reviewed"]:
            return False
        free = {number: thing for number, thing in image["things"].items() if not thing[3]}
        things, following, new = dict(human), image["next"], []
        for guess in guesses:
            same = [number for number in sorted(free) if free[number] == guess]
            if same:
                things[same[0]] = free.pop(same[0])
            elif not any(
                place == guess[1] and (verdict != "rejected" or label == guess[0])
                for label, place, _, _, verdict in human.values()
            ):
                new.append(guess)
        for guess in new:
            things[following] = guess
            following += 1
        if name in self.images and (things, sha) == (image["things"], image["sha"]):
            return False
        version = image["version"] + 1
        self.images[name] = {"sha": sha, "things": things, "next": following, "reviewed": False, "version": version}
        return True

    def apply(self, who, changes):
        step = []
        for name, action, number, value in changes:
            image = self.images[name]
            if action == "reviewed":
                step.append((name, "reviewed", image["reviewed"], value))
                image["reviewed"] = value
            else:
                number = image["next"] if action == "add" else number
                image["next"] = max(image["next"], number + 1)
                before = image["things"].get(number)
                after = self.after(before, action, value)
                step.append((name, number, before, after))
                self.set(image, number, after)
            image["version"] += 1
        self.done[who].append(step)
        self.undone[who] = []

    @staticmethod
    def set(image, number, thing):
        if thing is None:
            del image["things"][number]
        else:
            image["things"][number] = thing

    @staticmethod
    def after(before, action, value):
        if action == "add":
            return (value, 5, 0, True, "accepted")
        label, place, shift, _, verdict = before
        if action == "rename":
            return (value, place, shift, True, "accepted")
        if action == "delete":
            return None if place == 5 else (label, place, shift, True, "rejected")
        return (label, place, shift, True, {"accept": "accepted", "reject": "rejected"}.get(action, verdict))

    def travel(self, who, back):
        source, goal = (self.done, self.undone) if back else (self.undone, self.done)
        if not source[who]:
            return False
        step = source[who].pop()
        turned = [(n, k, after, before) for n, k, before, after in reversed(step)] if back else step
        trial = {name: {**image, "things": dict(image["things"])} for name, image in self.images.items()}
        for name, number, before, after in turned:
            image = trial[name]
            now = image["reviewed"] if number == "reviewed" else image["things"].get(number)
            if now != before:
                raise Conflict
            if number == "reviewed":
                image["reviewed"] = after
            elif after is not None or number in image["things"]:
                self.set(image, number, after)
        for name in {name for name, *_ in step}:
            trial[name]["version"] += 1
        self.images = trial
        goal[who].append(step)
        return True


def annotation(thing):
    label, place, shift, _, _ = thing
    return Annotation(0, label, (place * 30 + shift, 0, place * 30 + shift + 20, 20), sources=(Source("m", "c"),))


def thing(each):
    return each.label, int(each.box[0]) // 30, int(each.box[0]) % 30, each.human, each.verdict


guess = st.tuples(st.sampled_from(LABELS), st.integers(0, 1), st.integers(0, 1)).map(lambda of: (*of, False, "new"))
runs = st.tuples(st.just("put"), st.sampled_from(NAMES), st.sampled_from("122222"), st.lists(guess, max_size=3))
action = st.sampled_from(("accept", "reject", "rename", "delete", "attribute", "add", "reviewed"))
change = st.tuples(st.sampled_from(NAMES), action, st.integers(0, 3), st.sampled_from(LABELS), st.booleans())
acts = st.tuples(st.just("apply"), st.sampled_from(PERSONS), st.lists(change, min_size=1, max_size=2))
travels = st.tuples(st.sampled_from(("undo", "redo", "undo")), st.sampled_from(PERSONS))
again = st.just(("restart",))


def fitting(plain, changes):
    """The changes that there is an image and an object for, one an object."""
    found, taken = [], set()
    for name, action, index, label, yes in changes:
        numbers = sorted(plain.images.get(name, {"things": {}})["things"])
        number = numbers[index % len(numbers)] if numbers else None
        if name not in plain.images or (number is None and action not in ("add", "reviewed")):
            continue
        if (name, number) not in taken:
            taken.add((name, number))
            value = {"rename": label, "add": label, "reviewed": yes}.get(action)
            found.append((name, action, None if action in ("add", "reviewed") else number, value))
    return found


def told(action, value):
    if action == "add":
        return {"label": value, "box": (150, 0, 170, 20)}
    return ("seen", None) if action == "attribute" else value


def outcome(function, *arguments, **named):
    """What a function returns, as a truth value, or the type of what it raises."""
    try:
        return bool(function(*arguments, **named))
    except (Conflict, ImageChanged) as error:
        return type(error)


def do(store, plain, command):
    kind, *rest = command
    if kind == "put":
        name, sha, guesses = rest
        record = ImageRecord(name, sha, (20, 200), tuple(map(annotation, guesses)))
        assert outcome(store.put, record, who="m") == outcome(plain.put, name, sha, guesses)
    elif kind == "apply":
        who, changes = rest
        listed = fitting(plain, changes)
        if listed:
            versions = {name: plain.images[name]["version"] for name, *_ in listed}
            store.apply_all([(n, Change(a, k, told(a, v)), versions[n]) for n, a, k, v in listed], who)
            plain.apply(who, listed)
    else:
        (who,) = rest
        travel = store.undo if kind == "undo" else store.redo
        assert outcome(travel, who) == outcome(plain.travel, who, kind == "undo")


def compare(store, plain):
    assert store.names() == sorted(plain.images)
    for record in store.records():
        image = plain.images[record.name]
        assert {each.id: thing(each) for each in record.objects} == image["things"]
        assert (record.version, record.sha256) == (image["version"], image["sha"])
        assert (record.state == "reviewed") == image["reviewed"]


def check(commands):
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        store, plain = Store(Path(folder) / "store", create=True), Plain()
        try:
            for command in commands:
                if command == ("restart",):
                    store.close()
                    store = Store(Path(folder) / "store")
                    continue
                do(store, plain, command)
                compare(store, plain)
                if command[0] == "put":  # a second time it changes nothing, and writes nothing
                    before = store.path.read_bytes()
                    do(store, plain, command)
                    assert store.path.read_bytes() == before
            assert store.ask("PRAGMA integrity_check") == [("ok",)]
        finally:
            store.close()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(runs, runs, acts, acts, travels, again), max_size=14))
def test_any_sequence_is_as_it_is_meant(commands):
    check(commands)


@pytest.mark.slow
@settings(max_examples=250, deadline=None)
@given(st.lists(st.one_of(runs, runs, acts, acts, acts, travels, travels, again), max_size=40))
def test_any_long_sequence_is_as_it_is_meant(commands):
    check(commands)
