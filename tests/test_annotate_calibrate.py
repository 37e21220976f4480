"""`annotate calibrate`: a store, the truth of some of its images, what comes out."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxvision.annotate import promises, verdicts
from jaxvision.annotate.changes import Change
from jaxvision.annotate.checked import checked
from jaxvision.annotate.commands import calibrate as command
from jaxvision.annotate.makers import Makers
from jaxvision.annotate.records import Annotation, ImageRecord, Source
from jaxvision.annotate.store import Store
from jaxvision.formats.annotation import AnnotatedImage, AnnotatedObject

BY = (Source("net", "0a"),)
SIDE = 100
IMAGES, CHECKED, EACH = 60, 40, 5


def guess(label, box, score, **more):
    return Annotation(0, label, tuple(map(float, box)), score=score, sources=BY, **more)


def place(number):
    return (number * 20, 0, number * 20 + 10, 10)


def scene(seed=0):
    """Guesses of each image, and which of them are right: sure ones nearly always, unsure ones seldom."""
    rng = np.random.default_rng(seed)
    for number in range(IMAGES):
        score = rng.choice([0.7, 0.8, 0.3, 0.2], EACH, p=[0.4, 0.3, 0.1, 0.2]) + rng.uniform(0, 0.05, EACH)
        right = rng.random(EACH) < np.where(score > 0.5, 0.99, 0.02)
        yield f"a/{number:03}.png", score.tolist(), right.tolist()


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("original")
    with Store(path / "s.sqlite", create=True) as store, store.together():
        for name, score, _ in scene():
            objects = tuple(guess("cup", place(k), each) for k, each in enumerate(score))
            store.put(ImageRecord(name, "00", (SIDE, SIDE), objects), who="net")
        store.put(ImageRecord("broken.png", "", (0, 0), failure="it is empty"), who="net")
        store.put(ImageRecord("empty.png", "00", (SIDE, SIDE)), who="net")
    write_truth(path / "truth.json", list(scene())[:CHECKED])
    return path


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "work")


def write_truth(path, rows, classes=("cup",), more=()):
    images = [{"id": n, "file_name": name, "height": SIDE, "width": SIDE} for n, (name, *_) in enumerate(rows, 1)]
    annotations = [
        {"id": 100 * n + k + 1, "image_id": n, "category_id": 1, "bbox": [20 * k, 0, 10, 10], "area": 100, "iscrowd": 0}
        for n, (_, _, right) in enumerate(rows, 1)
        for k in range(EACH)
        if right[k]
    ]
    categories = [{"id": k, "name": name} for k, name in enumerate(classes, 1)]
    path.write_text(json.dumps({"images": images, "annotations": annotations + list(more), "categories": categories}))
    (path.parent / "a").mkdir(exist_ok=True)
    Image.new("L", (SIDE, SIDE)).save(path.parent / rows[0][0])


def run(folder, *flags):
    return command.main([str(folder / "s.sqlite"), f"--truth={folder / 'truth.json'}", *flags])


def records(folder):
    with Store(folder / "s.sqlite", readonly=True) as store:
        return list(store.records())


def test_a_store_is_calibrated(folder, capsys):
    assert run(folder, f"--report={folder / 'report'}", "--accept", "--missed=0.3") == 0
    told = capsys.readouterr().out
    assert "checked: 40 images, 200 guesses" in told
    assert "accepted from" in told
    with Store(folder / "s.sqlite", readonly=True) as store:
        found = verdicts.of_store(store)
    assert found.complete
    assert "need no look: in the" in told
    zones = found.zones[0]
    right = sum(sum(right) for _, _, right in list(scene())[:CHECKED])
    assert (zones.classes, zones.images, zones.guesses, zones.objects) == (("cup",), 40, 200, right)
    states = {}
    for record in records(folder):
        for each in record.objects:
            assert each.probability == promises.calibrated(found, "cup", each.score, "net")
            zone = found.zone("cup", each.probability)
            assert each.verdict == {"accept": "accepted", "review": "new", "drop": "rejected"}[zone]
        standing = [each.verdict for each in record.objects if each.verdict != "rejected"]
        done = bool(standing) and set(standing) == {"accepted"}
        assert record.state == ("accepted" if done else "new")
        states[record.name] = record.state
    assert list(states.values()).count("accepted") > 5
    assert states["empty.png"] == states["broken.png"] == "new"
    pixels = np.asarray(Image.open(folder / "report" / "reliability.png").convert("RGB"))
    assert pixels.shape[1] > 800
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_a_second_time_changes_no_byte_and_without_accept_nothing_is_decided(folder):
    run(folder, "--accept")
    digest = lambda: hashlib.sha256((folder / "s.sqlite").read_bytes()).hexdigest()
    before = digest()
    run(folder, "--accept")
    assert digest() == before
    run(folder)
    assert {each.verdict for record in records(folder) for each in record.objects} == {"new"}
    assert {record.state for record in records(folder)} == {"new"}


def test_what_a_person_touched_stays_and_counts_as_the_model_made_it(folder):
    name = next(scene())[0]
    with Store(folder / "s.sqlite") as store:
        untouched = verdicts.model_guesses(store, store.get(name))
        for action, value in (("rename", "bowl"), ("move", (0, 50, 10, 60)), ("delete", None)):
            version = store.get(name).version
            number = store.get(name).objects[["rename", "move", "delete"].index(action)].id
            store.apply(name, Change(action, number, value), who="human:x", version=version)
        store.apply(
            name, Change("add", None, {"label": "cup", "box": (60, 60, 70, 80)}), who="human:x", version=version + 1
        )
        assert verdicts.model_guesses(store, store.get(name)) == untouched
        touched = [each for each in store.get(name).objects if each.human]
    assert len(touched) == 4
    run(folder, "--accept")
    record = next(record for record in records(folder) if record.name == name)
    assert [each for each in record.objects if each.human] == touched
    assert all(each.probability is not None for each in record.objects if not each.human)


def test_images_need_a_look_where_too_much_may_be_missed(folder, capsys):
    rows, rest = list(scene())[:CHECKED], {"category_id": 1, "area": 100, "iscrowd": 0}
    more = [{"id": n, "image_id": n, "bbox": [0, 50, 10, 10], **rest} for n in range(1, CHECKED + 1)]
    write_truth(folder / "truth.json", rows, more=more)  # an object in each image that no model has found
    assert run(folder, "--accept", "--missed=0.1") == 0
    told = capsys.readouterr().out.splitlines()[-1]
    with Store(folder / "s.sqlite", readonly=True) as store:
        found = verdicts.of_store(store)
    unseen = found.unseen
    zones = [
        [found.zone("cup", promises.calibrated(found, "cup", each, "net")) for each in score] for _, score, _ in rows
    ]
    clear = [n for n, each in enumerate(zones) if "accept" in each and "review" not in each]
    hits = sum(zone == "accept" and yes for n in clear for zone, yes in zip(zones[n], rows[n][2], strict=True))
    objects = sum(sum(rows[n][2]) + 1 for n in clear)
    assert unseen[:3] == (len(clear), objects, objects - hits)
    assert unseen.missed / unseen.objects < unseen.bound < 0.5
    assert f"need a look for what was not found: in the {len(clear)} checked ones, {hits} of {objects} objects" in told
    assert "more than the 0.1 allowed" in told
    assert {record.state for record in records(folder)} == {"new"}
    assert "accepted" in {each.verdict for record in records(folder) for each in record.objects}


def test_guesses_of_another_model_than_the_checked_ones_stay_in_review(folder, capsys):
    other = (Source("net", "0b"),)
    with Store(folder / "s.sqlite") as store:
        for name, *_ in list(scene())[CHECKED:]:
            record = store.get(name)
            store.put(record._replace(objects=tuple(each._replace(sources=other) for each in record.objects)), who="b")
    assert run(folder, "--accept") == 0
    count = (IMAGES - CHECKED) * EACH
    assert (
        f"{count} guesses of other models or settings than the checked ones, net: to review" in capsys.readouterr().out
    )
    for record in records(folder):
        for each in record.objects:
            assert (each.probability is None) == (each.sources == other)
            assert each.verdict == "new" or each.sources == BY
    assert any(each.verdict == "accepted" for record in records(folder) for each in record.objects)


def labelled(store, name, models):
    digest = models[0].checkpoint
    store.settings[f"labelling {digest}"] = json.dumps({"models": list(map(list, models)), "names": [{}]})
    store.put(store.get(name)._replace(labelling=digest), who="b")


def test_images_of_an_older_model_are_no_sample_of_those_of_a_newer(folder, capsys):
    newer, names = (Source("net", "0b"),), [name for name, *_ in scene()]
    with Store(folder / "s.sqlite") as store:
        for name in names[:3]:
            store.apply(name, Change("reviewed"), who="human:x", version=store.get(name).version)
        first = store.get(names[3]).objects[0].id
        store.apply(names[3], Change("accept", first), who="human:x", version=store.get(names[3]).version)
        for name in names[3:]:
            new = tuple(guess("cup", each.box, each.score)._replace(sources=newer) for each in store.get(name).objects)
            store.put(store.get(name)._replace(objects=new), who="b")
            labelled(store, name, newer)
    assert run(folder) == 0
    told = capsys.readouterr().out
    assert "checked: 36 images" in told
    assert "left out 1 image that a person worked on before other models labelled it" in told
    assert "left out 3 images that other models or settings labelled" in told
    with Store(folder / "s.sqlite", readonly=True) as store:
        assert verdicts.of_store(store).made_by == Makers(store.settings).of(store.get(names[-1]))


def test_a_calibration_judges_what_a_person_has_left_by_then(folder):
    name, number = "a/000.png", 1
    with Store(folder / "s.sqlite") as store, Store(folder / "s.sqlite") as person:
        for each in scene():
            store.put(store.get(each[0])._replace(objects=store.get(each[0]).objects[:1]), who="net")
        made_by = Makers(store.settings).of(store.get(name))
        zones = (promises.Zones(("cup",), 0.01, None, 1, 1, 1, 1),)
        sure = promises.Calibration(promises.USUAL, {"": 1.0}, zones, promises.Unseen(99, 99, 0, 0.01), made_by)
        together, calls = store.together, []

        def later():
            calls.append(1)
            if len(calls) == 2:  # the setting is stored, and the first records may have been read
                person.apply(name, Change("reject", number), who="human:x", version=person.get(name).version)
            return together()

        store.together = later
        verdicts.apply(store, sure, accept=True)
        states = {
            record.name: (record.state, record.objects[0].verdict) for record in store.records() if record.objects
        }
    assert len(calls) > 2
    assert states.pop(name) == ("new", "rejected")
    assert set(states.values()) == {("accepted", "accepted")}


def test_each_object_is_found_once_by_the_best_and_crowds_count_nothing():
    box, other, crowd = (0, 0, 10, 10), (50, 50, 60, 60), (80, 80, 100, 100)
    guesses = [
        guess("a", box, 0.6),
        guess("a", (1, 0, 11, 10), 0.9),
        guess("b", other, 0.8),
        guess("a", (82, 82, 90, 90), 0.7),
        guess("a", (0, 0, 30, 30), 0.5),
        guess("c", box, 0.95),
    ]
    truth = [
        AnnotatedObject("", 0, box),
        AnnotatedObject("", 0, other),
        AnnotatedObject("", 0, crowd, ignore=True),
    ]
    found = checked(
        [guesses, []], [AnnotatedImage("x", None, "", n, None, t) for n, t in ((0, truth), (1, truth[:1]))], "ab"
    )
    told = {float(score): bool(right) for score, right in zip(found.score, found.right, strict=True)}
    assert told == {0.9: True, 0.8: False, 0.6: False, 0.5: False}
    assert found.true_image.tolist() == [0, 0, 1]
    assert found.images == 2


def test_a_few_of_the_images_are_numbered_anew():
    rows = [[guess("a", place(k), 0.5 + n / 10) for k in range(n)] for n in range(1, 4)]
    truth = [AnnotatedImage(str(n), None, "", n, None, [AnnotatedObject("", 0, place(0))]) for n in range(3)]
    whole = checked(rows, truth, ("a",))
    part = whole.of_images(np.array([2, 0]))
    assert part.image.tolist() == [0, 0, 0, 1]
    assert part.right.tolist() == [True, False, False, True]
    assert part.true_image.tolist() == [0, 1]


REFUSED = {
    "another class": (lambda f: write_truth(f / "truth.json", list(scene()), ("cups",)), "did you mean 'cups'?"),
    "other images": (
        lambda f: write_truth(f / "truth.json", [("a/x.png", [], [False] * EACH)]),
        "no image of the truth, such as 'a/x.png', is in the store",
    ),
    "no store": (lambda f: (f / "s.sqlite").unlink(), "there is no store"),
    "no truth": (lambda f: (f / "truth.json").unlink(), "truth.json"),
    "no JSON": (lambda f: (f / "truth.json").write_text("{"), "truth.json"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_calibrated_is_told_in_one_line(folder, capsys, case):
    change, told = REFUSED[case]
    change(folder)
    assert run(folder) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("flag", ["--precision=1", "--confidence=0", "--missed=x", "--precision=nan", "--missed=-0.1"])
def test_numbers_out_of_bounds_are_refused(folder, capsys, flag):
    with pytest.raises(SystemExit):
        run(folder, flag)
    assert "allowed are numbers above 0 and below 1" in capsys.readouterr().err


def test_an_image_of_another_size_is_named(folder, capsys):
    truth = json.loads((folder / "truth.json").read_text())
    truth["images"][3]["width"] = 77
    (folder / "truth.json").write_text(json.dumps(truth))
    assert run(folder) == 2
    assert (
        "a/003.png: its height and width are 100 x 77 in the truth, 100 x 100 in the store" in capsys.readouterr().err
    )


def test_too_few_images_are_told_with_how_many_more(folder, capsys):
    write_truth(folder / "truth.json", list(scene())[:10])
    assert run(folder) == 1
    assert "more images" in capsys.readouterr().out


def test_a_class_that_nobody_checked_is_left_out_and_said(folder, capsys):
    with Store(folder / "s.sqlite") as store:
        record = store.get("a/000.png")
        more = (*record.objects, guess("tie", (0, 70, 10, 90), 0.9))
        store.put(record._replace(objects=more), who="net")
    assert run(folder, "--accept") == 0
    assert "left out 1 guess of class 'tie', which the truth does not have" in capsys.readouterr().out
    tie = records(folder)[0].objects[-1]
    assert (tie.label, tie.verdict) == ("tie", "new")
    assert tie.probability is not None
