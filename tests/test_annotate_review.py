"""The review server without a browser: what is let in, what the page is told, what it stores."""

import io
import json
import socket

import numpy as np
import pytest
from annotated_shapes import make_store
from asgi_client import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxvision.annotate import __main__ as annotate
from jaxvision.annotate import drawing, order, previews, schema
from jaxvision.annotate.records import Annotation, ImageRecord, Source
from jaxvision.annotate.review import desk, security, server
from jaxvision.annotate.review.queue import ORDERS, Filters, Index
from jaxvision.annotate.store import Change, Store
from jaxvision.errors import ConfigError, DataError, WorkdirError
from jaxvision.masks import runs
from jaxvision.masks.polygons import edges

TOKEN = "t" * 43
DOOR = security.Door(TOKEN, "jaxvision-8017")
HOST, ORIGIN = "127.0.0.1:8017", "http://127.0.0.1:8017"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("review") / "shapes")


@pytest.fixture
def path(made, tmp_path):
    """A store of its own, of the same images."""
    copy = tmp_path / made.name
    copy.write_bytes(made.read_bytes())
    return copy


@pytest.fixture
def opened(path):
    with Store(path) as store:
        yield store


@pytest.fixture
def page(opened):
    """The server, as the page of a person talks to it who has opened its address."""
    return opened_page(opened)


def opened_page(store):
    client = Client(application(store), host=HOST, origin=ORIGIN)
    assert client.get(f"/?token={TOKEN}").status == 200
    return client


def application(store):
    return server.application(desk.Desk(store, previews.images_of(store, None), "ann"), DOOR)


def entries(page, **query):
    return page.get("/api/queue", query).json()["entries"]


def change(page, number, *changes, version=None, key=None):
    version = page.get(f"/api/record/{number}").json()["version"] if version is None else version
    listed = [dict(zip(("action", "object", "value"), each, strict=False)) for each in changes]
    body = {"key": key or f"{number} {version} {listed}"[:60], "number": number, "version": version, "changes": listed}
    return page.post("/api/change", body)


# What is let in


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {"host": "evil.example"}, 403),
        ("GET", "/", {"host": "evil.example:8017"}, 403),
        ("GET", "/", {"host": "127.0.0.1.evil.example:8017"}, 403),
        ("GET", "/", {"host": "localhost.evil.example"}, 403),
        ("GET", "/", {"host": "user@127.0.0.1:8017"}, 403),
        ("GET", "/", {"host": "127.0.0.1:8017/x"}, 403),
        ("GET", "/", {"host": "127.0.0.1:port"}, 403),
        ("GET", "/", {"host": ""}, 403),
        ("GET", "/", {"host": "localhost:9000"}, None),
        ("GET", "/", {"host": "[::1]:8017"}, None),
        ("GET", "/", {"host": "10.1.2.3:8017"}, None),
        ("GET", "/api/queue", {"origin": "http://evil.example"}, 403),
        ("GET", "/api/queue", {"origin": "http://127.0.0.1:9999"}, 403),
        ("GET", "/api/queue", {"origin": "null"}, 403),
        ("GET", "/api/queue", {"origin": "https://127.0.0.1:8017"}, None),
        ("GET", "/api/queue", {"sec-fetch-site": "cross-site"}, 403),
        ("GET", "/api/queue", {"sec-fetch-site": "same-site"}, 403),
        ("GET", "/image/0", {"sec-fetch-site": "same-origin"}, None),
        ("GET", "/", {"sec-fetch-site": "cross-site"}, None),
        ("GET", "/api/queue", {"cookie": ""}, 403),
        ("GET", "/api/queue", {"cookie": f"jaxvision-9999={TOKEN}"}, 403),
        ("GET", "/api/queue", {"cookie": f"jaxvision-8017={TOKEN[:-1]}"}, 403),
        ("GET", "/api/queue", {"cookie": "jaxvision-8017="}, 403),
        ("GET", "/api/queue", {"cookie": f"a=b; jaxvision-8017={TOKEN}; c=d"}, None),
        ("POST", "/api/change", {}, 403),
        ("POST", "/api/change", {"origin": ORIGIN}, None),
        ("POST", "/api/change", {"origin": ORIGIN, "cookie": ""}, 403),
        ("POST", "/api/change", {"origin": ORIGIN, "content-length": str((1 << 20) + 1)}, 413),
        ("POST", "/api/change", {"origin": ORIGIN, "content-length": "-1"}, 413),
    ],
)
def test_only_the_page_of_the_one_with_the_token_is_let_in(method, path, headers, status):
    given = {"host": HOST, "cookie": f"jaxvision-8017={TOKEN}", **headers}
    try:
        refusal = DOOR.refusal(method, path, "", given)
    except ValueError:
        refusal = security.Refusal(403, "")
    assert (refusal.status if refusal else None) == status


def test_the_token_opens_the_page_alone_and_becomes_a_cookie(opened):
    client = Client(application(opened), host=HOST)
    assert client.get("/").status == 403
    assert client.get("/?token=wrong").status == 403
    assert client.get(f"/api/queue?token={TOKEN}").status == 403
    answer = client.get(f"/?token={TOKEN}")
    assert answer.status == 200
    assert answer.headers["set-cookie"] == f"jaxvision-8017={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    assert client.get("/api/queue").status == 200
    assert "set-cookie" not in client.get("/").headers


def test_every_answer_has_the_policy_and_pages_of_other_names_get_nothing(page):
    for path in ("/", "/static/page.js", "/api/session", "/image/0", "/nothing"):
        headers = page.get(path).headers
        assert headers["content-security-policy"] == security.POLICY
        assert headers["x-content-type-options"] == "nosniff"
    refused = page.get("/api/session", host="evil.example")
    assert (refused.status, refused.headers["content-security-policy"]) == (403, security.POLICY)
    assert "unsafe" not in security.POLICY


def test_a_body_without_a_length_is_bounded(page):
    def pieces():
        for _ in range(20):
            yield b" " * (1 << 17)

    assert page.post("/api/change", pieces()).status == 413


@pytest.mark.parametrize(
    "name", ["../server.py", "..%2fserver.py", "%2e%2e/server.py", "server.py", "/etc/passwd", "page.md"]
)
def test_no_other_file_is_given_away(page, name):
    assert page.get(f"/static/{name}").status == 404


# Images, by number


def test_an_image_is_given_by_its_number(page):
    answer = page.get("/image/0")
    pixels = np.asarray(Image.open(io.BytesIO(answer.content)))
    routes = page.application.app.routes  # none takes the name of an image
    assert [route.path for route in routes if "{" in route.path and "int" not in route.path] == ["/static/{name}"]
    assert pixels.shape == (160, 160, 3)
    assert page.get("/image/4").status == 404
    assert page.get("/image/-1").status == 404
    assert page.get("/image/shapes 000.png").status == 404


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../secret.png"])
def test_a_name_in_the_store_leads_nowhere_else(made, opened, name):
    secret = made.parent / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    opened.put(ImageRecord(name, "", (8, 8)), who="m")
    table = desk.Desk(opened, made.parent / "images", "ann")
    with pytest.raises(Exception, match="leads out of the folder"):
        table.picture(table.index.numbers[name])


def test_an_image_that_is_another_now_or_missing_is_told(page, opened, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "shapes 000.png")
    table = desk.Desk(opened, folder, "ann")
    assert page.get("/api/file/0").json() == {"changed": False}
    assert table.file(0) == {"changed": True}
    assert "there is no file" in table.file(1)["failure"]


def test_a_changed_image_has_another_address_and_only_what_it_names_is_kept(opened, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "shapes 000.png")
    page = Client(server.application(desk.Desk(opened, folder, "ann"), DOOR), host=HOST, origin=ORIGIN)
    page.get(f"/?token={TOKEN}")
    first = page.get("/api/record/0").json()["picture"]
    assert "immutable" in page.get(first).headers["cache-control"]
    Image.new("RGB", (8, 8), "blue").save(folder / "shapes 000.png", compress_level=0)
    second = page.get("/api/record/0").json()["picture"]
    assert second != first
    assert page.get(first).headers["cache-control"] == page.get("/image/0").headers["cache-control"] == "no-store"
    answer = page.get(second)
    assert "immutable" in answer.headers["cache-control"]
    assert Image.open(io.BytesIO(answer.content)).getpixel((4, 4)) == (0, 0, 255)
    assert page.get("/api/record/1").json()["picture"] == "/image/1?v="  # there is no file


# What is shown


def test_what_is_most_probably_wrong_comes_first(page, opened):
    names = opened.names()
    expected = [[names.index(place.name), place.id] for place in order.objects(opened.records())]
    assert entries(page) == expected
    assert len(expected) > 10
    assert entries(page, order="likely right first")[0] == expected[-1]
    images = [[names.index(name), None] for name, _ in order.images(opened.records())]
    assert entries(page, by="images") == images


def objects(*described):
    known = {"box": (0.0, 0.0, 9.0, 9.0)}
    return tuple(Annotation(**{**known, "id": k + 1, **each}) for k, each in enumerate(described))


def test_filters_by_class_source_probability_attribute_verdict_and_state(tmp_path):
    first, second = (Source("one", "1"),), (Source("one", "1"), Source("two", "2"))
    records = [
        ImageRecord("a", "", (9, 9), objects(
            {"label": "cup", "score": 0.2, "probability": 0.95, "sources": first, "attributes": {"colour": "red"}},
            {"label": "cup", "score": 0.8, "sources": second},
            {"label": "cat", "score": 0.9, "verdict": "accepted", "sources": first, "attributes": {"colour": "blue"}},
        )),
        ImageRecord("b", "", (9, 9), objects({"label": "cup", "verdict": "accepted", "human": True}), "reviewed"),
        ImageRecord("c", "", (9, 9)),
    ]  # fmt: skip
    with Store(tmp_path / "s", create=True) as store:
        for record in records:
            store.put(record, who="one")
        index = Index(store)
    every = Filters(verdict=None)

    def shown(**filters):
        return sorted(index.objects(every._replace(**filters), ORDERS["likely wrong first"]).entries)

    assert shown() == [(0, 1), (0, 2), (0, 3), (1, 1)]
    assert shown(label="cup") == [(0, 1), (0, 2), (1, 1)]
    assert shown(source="two") == [(0, 2)]
    assert shown(low=0.85) == [(0, 1), (0, 3), (1, 1)]
    assert shown(high=0.85) == [(0, 2)]
    assert shown(attribute=("colour", "red")) == [(0, 1)]
    assert shown(verdict="new") == [(0, 1), (0, 2)]
    assert shown(verdict="new", state="reviewed") == []
    assert shown(verdict="human") == [(1, 1)]
    assert shown(state="reviewed") == [(1, 1)]
    images = lambda filters: [number for number, _ in index.images(filters, ORDERS["likely wrong first"]).entries]
    assert images(every) == [0, 1, 2]
    assert images(Filters()) == [0, 2]
    assert images(every._replace(label="cat")) == [0]
    assert index.models() == ["one", "two"]
    assert index.attributes() == {"colour": ["blue", "red"]}


def test_colours_are_filtered_by_name_and_other_texts_as_they_are(tmp_path):
    described = (
        {"label": "cup", "attributes": {"colours": ("black 0.62", "grey 0.30"), "text": ("Exit 0.5", "42")}},
        {"label": "cup", "attributes": {"colours": ("grey 0.90", "white 0.10"), "text": "grey 0.90"}},
        {"label": "cup", "attributes": {"colours": ("dark grey",)}},
    )
    with Store(tmp_path / "s", create=True) as store:
        store.put(ImageRecord("a", "", (9, 9), objects(*described)), who="one")
        index = Index(store)
    assert index.attributes() == {
        "colours": ["black", "dark grey", "grey", "white"],
        "text": ["42", "Exit 0.5", "grey 0.90"],
    }
    shown = lambda *pair: sorted(each for _, each in index.objects(Filters(attribute=pair), abs).entries)
    assert shown("colours", "grey") == [1, 2]
    assert shown("colours", "black") == [1]
    assert shown("text", "Exit 0.5") == [1]


def test_images_without_an_object_count_as_images_of_the_queue(page, opened):
    opened.put(ImageRecord("empty.png", "", (9, 9)), who="m")
    found = page.get("/api/queue", {"by": "images"}).json()
    assert (found["total"], found["images"]) == (5, 5)
    assert page.get("/api/queue").json()["images"] == 4


def test_a_guess_with_a_note_waits_with_the_doubt_that_it_had(page, opened):
    before, unsure = entries(page), {"verdict": "new", "low": 0.99}
    (number, object), surest = before[0], entries(page, **unsure)
    wrong = lambda: {each["id"]: each["wrong"] for each in page.get(f"/api/record/{number}").json()["objects"]}
    doubts = wrong()
    assert change(page, number, ("note", object, "is this a cup??")).status == 200
    assert opened.get(opened.names()[number]).objects[object - 1].human
    assert entries(page) == before
    assert wrong() == doubts
    assert entries(page, **unsure) == surest  # "accept all that are sure" does not take it


def test_what_another_process_stores_is_followed(page, path):
    before = len(entries(page, verdict="new"))
    with Store(path) as other:
        record = other.get("shapes 000.png")
        other.apply(record.name, Change("accept", record.objects[0].id), who="human:bob", version=record.version)
        other.put(ImageRecord("zebra.png", "", (9, 9), objects({"label": "zebra", "score": 0.4})), who="m")
    assert len(entries(page, verdict="new")) == before  # one is decided, and one is new
    assert [4, 1] in entries(page, label="zebra")
    assert "zebra" in page.get("/api/session").json()["classes"]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_outlines_of_masks_fill_to_the_same_pixels(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.6
    assert np.array_equal(filled([each.polygon for each in edges(mask)], mask.shape), mask)
    assert np.array_equal(filled(drawing.outlines(runs.encode(mask)), mask.shape), mask)


def filled(polygons, shape):
    """The pixels inside polygons by the even-odd rule: a ray from each pixel's centre to the left is counted."""
    inside = np.zeros(shape, int)
    for polygon in polygons:
        corners = np.reshape(polygon, (-1, 2))
        for (x, y), (u, v) in zip(corners, np.roll(corners, -1, 0), strict=True):
            if x == u:
                inside[min(y, v) : max(y, v), x:] += 1
    return inside % 2 == 1


def test_a_mask_that_can_not_be_is_not_drawn_and_the_page_is_there(page, opened):
    broken = {"box": (0.0, 0.0, 9.0, 9.0), "segmentation": runs.Runs((9, 9), b"51")}
    opened.put(ImageRecord("zebra.png", "", (9, 9), objects({"label": "zebra", **broken})), who="m")
    page.get("/api/queue")
    (shown,) = page.get("/api/record/4").json()["objects"]
    assert not shown["path"]


def test_a_large_mask_is_outlined_on_a_coarser_grid():
    mask = np.zeros((3000, 4000), bool)
    mask[400:1200, 800:2000] = True
    (corners,) = drawing.outlines(runs.encode(mask))
    assert np.reshape(corners, (-1, 2)).min(0).tolist() == [800, 400]
    assert np.reshape(corners, (-1, 2)).max(0).tolist() == [2000, 1200]


# What is stored


def test_each_action_is_in_the_store_at_once(page, opened):
    record = opened.get("shapes 001.png")
    first, second = record.objects[:2]
    assert change(page, 1, ("accept", first.id)).status == 200
    assert opened.get(record.name).objects[0].verdict == "accepted"
    change(page, 1, ("rename", second.id, "<img src=x onerror=alert(1)>"), ("attribute", second.id, ["size", 3]))
    stored = opened.get(record.name).objects[1]
    assert (stored.label, stored.attributes["size"], stored.human) == ("<img src=x onerror=alert(1)>", 3, True)
    added = change(page, 1, ("add", None, {"label": "cat", "box": [1, 2, 30.5, 40]})).json()["record"]["objects"][-1]
    assert (added["label"], added["box"], added["sources"], added["human"]) == ("cat", [1, 2, 30.5, 40], [], True)
    change(page, 1, ("move", first.id, [0, 0, 10, 12]), ("reviewed",))
    assert opened.get(record.name).objects[0].box == (0, 0, 10, 12)
    assert opened.get(record.name).state == "reviewed"
    assert {event.who for event in opened.history(record.name)} == {"shapes_detector", "human:ann"}


def test_two_tabs_can_not_overwrite_each_other(page, opened):
    version = opened.get("shapes 000.png").version
    assert change(page, 0, ("accept", 1), version=version).status == 200
    answer = change(page, 0, ("rename", 1, "cat"), version=version)
    assert answer.status == 409
    assert answer.json()["record"]["objects"][0]["verdict"] == "accepted"
    assert opened.get("shapes 000.png").objects[0].label != "cat"


def test_what_is_sent_twice_is_done_once(page, opened):
    version = opened.get("shapes 000.png").version
    first, second = (change(page, 0, ("accept", 1), version=version, key="tab-1") for _ in range(2))
    assert first.json() == second.json()
    assert opened.get("shapes 000.png").version == version + 1


def test_while_another_process_writes_the_page_is_told_to_send_it_again(path, monkeypatch):
    monkeypatch.setattr(schema, "PATIENCE", 0.05)
    with Store(path) as store, Store(path) as other:
        client = opened_page(store)
        version = store.get("shapes 000.png").version
        with other.together():
            refused = change(client, 0, ("accept", 1), version=version, key="tab-1")
        assert (refused.status, "another process has been writing" in refused.json()["error"]) == (503, True)
        assert store.get("shapes 000.png").version == version
        assert change(client, 0, ("accept", 1), version=version, key="tab-1").status == 200
        assert store.get("shapes 000.png").objects[0].verdict == "accepted"


@pytest.mark.parametrize("action", ["change", "undo", "many"])
def test_what_was_done_but_not_answered_is_answered_when_it_is_sent_again(page, opened, monkeypatch, action):
    change(page, 0, ("accept", 1), key="before")
    version, follow, history = opened.get("shapes 000.png").version, Index.follow, len(opened.history())
    body = {"key": "1", "number": 0, "version": version, "changes": [{"action": "reject", "object": 2}]}
    body |= {"filters": {"verdict": "human"}, "action": "reject", "count": 1}

    def unreadable(index):
        if len(opened.history()) > history:
            raise WorkdirError("the disk failed")
        return follow(index)

    monkeypatch.setattr(Index, "follow", unreadable)
    assert page.post(f"/api/{action}", body).status == 503
    monkeypatch.setattr(Index, "follow", follow)
    assert page.post(f"/api/{action}", body).status == 200
    assert len(opened.history()) == history + 1


@pytest.mark.parametrize(
    ("error", "status"),
    [(WorkdirError("full"), 503), (schema.Busy("busy"), 503), (DataError("none"), 400), (ConfigError("port"), 500)],
)
def test_what_may_succeed_later_has_a_status_of_its_own(page, monkeypatch, error, status):
    monkeypatch.setattr(desk.Desk, "undo", lambda self, body: raise_(error))
    answer = page.post("/api/undo", {"key": "1"})
    assert (answer.status, answer.json()) == (status, {"error": str(error)})


def raise_(error):
    raise error


def test_undo_and_redo_after_a_restart(page, path, opened):
    before = opened.get("shapes 000.png").objects
    change(page, 0, ("accept", 1), ("reject", 2))
    after = opened.get("shapes 000.png").objects
    opened.close()
    with Store(path) as again:
        client = opened_page(again)
        answer = client.post("/api/undo", {"key": "1"}).json()
        assert answer["record"]["number"] == 0
        assert again.get("shapes 000.png").objects == before
        assert client.post("/api/redo", {"key": "2"}).status == 200
        assert again.get("shapes 000.png").objects == after
        client.post("/api/undo", {"key": "3"})
        assert client.post("/api/undo", {"key": "4"}).json() == {"nothing": True}


def test_filters_that_nest_too_deeply_are_refused(page):
    answer = page.get("/api/queue", {"attribute": "[" * 20_000})
    assert (answer.status, "filters can't be read" in answer.json()["error"]) == (400, True)


def test_many_at_once_are_one_step(page, opened):
    filters = {"label": "square", "low": 0.6, "verdict": "new"}
    fitting = lambda: [
        each
        for record in opened.records()
        for each in record.objects
        if each.label == "square" and each.probability >= 0.6 and each.verdict == "new"
    ]
    count = len(fitting())
    assert count > 1
    body = {"key": "1", "filters": filters, "action": "accept", "count": count + 1}
    assert page.post("/api/many", body).status == 409
    answer = page.post("/api/many", {**body, "key": "2", "count": count}).json()
    assert (answer["count"], answer["left"]) == (count, 0)
    assert not fitting()
    assert page.post("/api/undo", {"key": "3"}).json()["several"]
    assert len(fitting()) == count


def test_images_whose_objects_are_all_decided_are_counted_and_marked_in_one_step(page, opened):
    empty, noted = ImageRecord("empty.png", "", (9, 9)), objects({"label": "cup", "score": 0.4})
    for record in (empty, empty._replace(name="noted.png", objects=noted)):
        opened.put(record, who="m")
    page.get("/api/queue")
    change(page, 5, ("note", 1, "a mug?"))  # touched, not decided
    complete = lambda: page.get("/api/queue").json()["complete"]
    names = [*(f"shapes {number:03}.png" for number in range(4)), "empty.png", "noted.png"]
    states = lambda: [opened.get(name).state for name in names]
    assert complete() == 0
    for number in range(1, 4):
        *others, last = (each.id for each in opened.get(names[number]).objects)
        change(page, number, *(("accept", each) for each in others))
        assert complete() == number - 1
        assert change(page, number, ("reject", last)).json()["complete"] == complete() == number
    change(page, 3, ("reviewed",))
    assert complete() == 2
    assert page.post("/api/finish", {"key": "1", "count": 3}).status == 409
    assert states() == ["new", "new", "new", "reviewed", "new", "new"]
    assert page.post("/api/finish", {"key": "2", "count": 2}).json() == {"count": 2, "left": 0, "complete": 0}
    assert states() == ["new", "reviewed", "reviewed", "reviewed", "new", "new"]
    assert page.post("/api/undo", {"key": "3"}).json()["complete"] == 2
    assert states() == ["new", "new", "new", "reviewed", "new", "new"]


@pytest.mark.parametrize("state", ["reviewed", "accepted"])
def test_an_export_tells_of_images_that_nobody_has_marked_as_reviewed(page, opened, tmp_path, capsys, state):
    for number, name in enumerate(opened.names()[:2]):
        change(page, number, *(("accept", each.id) for each in opened.get(name).objects))
    change(page, 0, ("reviewed",))
    flags = [f"--output={tmp_path / 'x.json'}", "--format=coco", f"--state={state}"]
    assert annotate.main(["export", str(opened.path), *flags]) == 0
    told = capsys.readouterr().out
    assert ("of 1 image left out all objects are decided" in told) == (state == "reviewed")
    assert "3 images of state new" in told


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("change", "[]"),
        ("change", "{"),
        ("change", "[" * 100_000),
        ("change", '{"key": "1"}'),
        ("change", '{"key": "1", "number": 0, "version": 1, "changes": []}'),
        ("change", '{"key": "1", "number": 0, "version": 1, "changes": [3]}'),
        ("change", '{"key": "1", "number": 0, "version": 1, "changes": [{"action": "burn", "object": 1}]}'),
        ("change", '{"key": "1", "number": 0, "version": 1, "changes": [{"action": "accept", "object": "1"}]}'),
        ("change", '{"key": "1", "number": 0, "version": 1, "changes": [{"action": "accept", "object": 99}]}'),
        (
            "change",
            '{"key": "1", "number": 0, "version": 1, "changes": [{"action": "move", "object": 1, "value": [NaN]}]}',
        ),
        (
            "change",
            '{"key": "1", "number": 0, "version": 1, "changes": [{"action": "rename", "object": 1, "value": ""}]}',
        ),
        ("change", '{"number": 0, "version": 1, "changes": [{"action": "accept", "object": 1}]}'),
        ("many", '{"key": "1"}'),
        ("many", '{"key": "1", "filters": {"low": "x"}}'),
        ("many", '{"key": "1", "filters": {"verdict": "good"}}'),
        ("finish", '{"count": 1}'),
        ("many", json.dumps({"key": "1", "filters": {"attribute": "[" * 100_000}})),
        ("undo", "{}"),
    ],
)
def test_what_no_page_sends_is_refused_and_changes_nothing(page, opened, action, body):
    before = list(opened.records())
    answer = page.post(f"/api/{action}", body)
    assert answer.status == 400
    assert "\n" not in answer.json()["error"]
    assert list(opened.records()) == before


# The command


def test_a_port_in_use_is_one_line(path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert annotate.main(["review", str(path), f"--port={port}"]) == 2
    told = capsys.readouterr().err
    assert told == f"jaxvision: port {port} of 127.0.0.1 is in use; --port=0 takes one that is free\n"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--port=65536"], "'65536' is no whole number from 0 to 65,535"),
        (["--as= "], "is no name of 1 to 100 characters"),
        (["--host=192.0.2.1", "--port=0"], "port 0 of 192.0.2.1 can't be listened at: "),
        (["--images=/nowhere", "--port=0"], "there is no folder /nowhere with the images of "),
    ],
)
def test_flags_that_can_not_be_are_one_line(path, capsys, flags, told):
    try:
        status = annotate.main(["review", str(path), *flags])
    except SystemExit as ended:
        status = ended.code
    error = capsys.readouterr().err
    assert (status, error.count("\n")) == (2, 1)
    assert told in error


def test_a_store_that_is_none_is_one_line(tmp_path, capsys):
    assert annotate.main(["review", str(tmp_path / "nothing.sqlite")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_the_extra_the_message_names_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    with pytest.raises(ConfigError, match=r"pip install 'jaxvision\[review\]'"):
        server.check_installed()


def test_other_machines_are_let_in_by_name_only_when_asked_for():
    assert server.names_of("127.0.0.1") == server.names_of("::1") == security.LOOPBACK
    assert socket.gethostname().lower() in server.names_of("0.0.0.0")
    assert server.address("::1", 1, "x") == "http://[::1]:1/?token=x"


# Previews


def test_a_preview_is_upright_of_8_bits_and_no_larger_than_a_screen():
    pixels = np.zeros((40, 3000, 3), np.uint8)
    pixels[:, :1500] = 250
    file = io.BytesIO()
    Image.fromarray(pixels).save(
        file, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0\0\0\0\0"
    )
    made = previews.preview(file.getvalue(), 2048)
    image = np.asarray(Image.open(io.BytesIO(made.data)))
    assert made.type == "image/jpeg"
    assert image.shape[:2] == made.size
    assert 1500 <= image.shape[0] <= 2048
    assert image[:500].mean() < 20  # turned by a quarter to the left: the white half is below
    assert image[-500:].mean() > 230


@pytest.mark.parametrize(
    ("mode", "suffix"), [("I;16", "png"), ("CMYK", "jpeg"), ("RGBA", "png"), ("P", "gif"), ("LA", "png")]
)
def test_every_image_that_a_model_can_read_has_a_preview(mode, suffix):
    file = io.BytesIO()
    Image.new(mode, (700, 30)).save(file, suffix)
    made = previews.preview(file.getvalue(), 256)
    image = Image.open(io.BytesIO(made.data))
    assert (image.size, image.mode in ("RGB", "L"), made.type) == ((256, 11), True, "image/png")


def test_the_cache_keeps_the_last_previews_within_its_bytes():
    cache, made = previews.Cache(100), []

    def make(size):
        made.append(size)
        return previews.Preview(b"x" * size, "", (1, 1))

    for key, size in enumerate((40, 50, 60, 200)):
        assert len(cache.get(key, lambda size=size: make(size)).data) == size
        assert cache.bytes <= 100
    cache.get(2, lambda: make(60))
    cache.get(0, lambda: make(40))
    assert made == [40, 50, 60, 200, 40]
