"""The review page in a real Chromium without a window: what a person does is what the store holds, whatever happens.

Needs Debian's chromium and chromium-driver, and the extra browser:
python -m pytest -n0 -m browser tests/test_annotate_browser.py
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from annotated_shapes import MODEL, make_store
from PIL import Image

from jaxvision.annotate.records import Annotation, ImageRecord
from jaxvision.annotate.store import Store
from jaxvision.masks import runs

pytestmark = pytest.mark.browser
SIZE = (1280, 800)
HOSTILE = "<img src=x onerror=\"window.hacked='label'\">"
LIMIT = 0.1
"""Seconds from a key to the picture that shows what it did."""


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        f"window-size={SIZE[0]},{SIZE[1]}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(os.environ.get("CHROMEDRIVER", "/usr/bin/chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


class Server:
    """`annotate review` as a process."""

    def __init__(self, store, port=0):
        command = [sys.executable, "-m", "jaxvision.annotate", "review", str(store), f"--port={port}", "--as=ann"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.address = re.search(r"http\S+", self.process.stdout.readline()).group()
        self.port = int(re.search(r":(\d+)/", self.address).group(1))

    def end(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture
def serve():
    """Starts servers, and ends them afterwards."""
    started = []

    def start(store, port=0):
        started.append(Server(store, port))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.end()


class Page:
    """The page, as a person sees and uses it."""

    def __init__(self, browser, address):
        self.browser = browser
        browser.get(address)
        self.until("document.body.dataset.ready")

    def js(self, code, *arguments):
        return self.browser.execute_script(code, *arguments)

    def until(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not self.js(f"return {condition}"):
            assert time.monotonic() < end, f"{condition}; the page says {self.notice()!r}"
            time.sleep(0.03)

    def stored(self):
        """Waits until all that was done is stored."""
        self.until("document.getElementById('stored').className === 'stored'")

    def notice(self):
        return self.js("const it = document.getElementById('notice'); return it.hidden ? '' : it.textContent")

    def text(self, name):
        return self.js("return document.getElementById(arguments[0]).textContent", name)

    def keys(self, *keys, held=()):
        from selenium.webdriver import ActionChains

        actions = ActionChains(self.browser, duration=20)
        for each in held:
            actions.key_down(each)
        for each in keys:
            actions.send_keys(each)
        for each in held:
            actions.key_up(each)
        actions.perform()

    def place(self, x, y):
        """Where on the screen a pixel of the image is."""
        left, top, width, height = self.js(
            "const b = document.getElementById('picture').getBoundingClientRect(); return [b.left, b.top, b.width, b.height]"
        )
        rows, columns = self.size
        return left + x * width / columns, top + y * height / rows

    @property
    def size(self):
        width, height = self.js(
            "const p = document.getElementById('picture'); return [p.naturalWidth, p.naturalHeight]"
        )
        return height, width

    def drag(self, start, end):
        """Drags the mouse from a pixel of the image to another."""
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.actions.action_builder import ActionBuilder

        actions = ActionBuilder(self.browser)
        (x, y), (u, v) = self.place(*start), self.place(*end)
        mouse = actions.pointer_action
        mouse.move_to_location(round(x), round(y)).pointer_down()
        mouse.move_to_location(round((x + u) / 2), round((y + v) / 2)).move_to_location(round(u), round(v)).pointer_up()
        actions.perform()
        ActionChains(self.browser).release().perform()

    def click(self, selector):
        from selenium.webdriver.common.by import By

        self.browser.find_element(By.CSS_SELECTOR, selector).click()

    def selected(self):
        """Id of the selected object."""
        return int(self.js("return document.querySelector('.object.selected')?.dataset.id ?? 0"))


def objects_of(path, name):
    with Store(path, readonly=True) as store:
        return {each.id: each for each in store.get(name).objects}


def first(page, path):
    """The image that is shown, and the objects that the store has of it."""
    name = page.text("name")
    return name, objects_of(path, name)


def test_what_was_done_is_what_the_store_holds_though_the_server_was_killed(browser, serve, tmp_path):
    from selenium.webdriver.common.keys import Keys

    path = make_store(tmp_path / "shapes", 3, masks=False)
    server = serve(path)
    page = Page(browser, server.address)
    assert browser.current_url == f"http://127.0.0.1:{server.port}/"  # the token is no longer in the address
    name, expected = first(page, path)
    page.keys("n", "p")
    page.js("document.querySelector('[value=images]').click()")  # image by image from here on
    page.until("document.getElementById('place').textContent.startsWith('image')")
    name, expected = first(page, path)

    accepted = page.selected()
    page.keys("a")
    expected[accepted] = expected[accepted]._replace(verdict="accepted", human=True)
    rejected = page.selected()
    assert rejected not in (0, accepted)
    page.keys("x")
    expected[rejected] = expected[rejected]._replace(verdict="rejected", human=True)
    renamed = page.selected()
    page.keys("3")
    page.keys("c")
    page.keys("squ", Keys.ENTER)
    corrected = {"verdict": "accepted", "human": True, "score": None, "probability": None}
    assert expected[renamed].label != "square" or page.selected() == renamed
    expected[renamed] = expected[renamed]._replace(label="square", **corrected)

    page.keys("t")
    page.keys("a", held=[Keys.CONTROL])
    page.keys("very dark", Keys.ENTER)
    expected[renamed] = expected[renamed]._replace(attributes={"colour": "very dark"})
    page.stored()
    assert objects_of(path, name) == expected

    box = expected[renamed].box
    centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    page.drag(centre, (80, 80))  # the middle of the image
    page.stored()
    moved = objects_of(path, name)[renamed]
    assert np.allclose(np.subtract(moved.box[2:], moved.box[:2]), np.subtract(box[2:], box[:2]), atol=0.11)
    assert np.allclose(np.add(moved.box[2:], moved.box[:2]) / 2, 80, atol=1)
    expected[renamed] = expected[renamed]._replace(box=moved.box)
    page.drag(moved.box[2:], (moved.box[2] + 10, moved.box[3] - 5))
    page.stored()
    resized = objects_of(path, name)[renamed]
    assert resized.box[:2] == moved.box[:2]
    assert np.allclose(resized.box[2:], np.add(moved.box[2:], (10, -5)), atol=1)
    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    page.keys(Keys.ARROW_LEFT, held=[Keys.SHIFT])
    nudged = np.add(resized.box, (2, -1, 1, -1)).round(1)
    expected[renamed] = expected[renamed]._replace(box=tuple(nudged.tolist()))
    page.stored()
    assert np.allclose(objects_of(path, name)[renamed].box, nudged)
    expected[renamed] = objects_of(path, name)[renamed]

    page.keys("d")
    page.drag((20, 30), (60, 50))
    page.keys(Keys.ENTER)  # the class that stands there: the one set last
    page.stored()
    new = max(objects_of(path, name))
    drawn = objects_of(path, name)[new]
    assert new not in expected
    assert (drawn.label, drawn.sources, drawn.human) == ("square", (), True)
    assert np.allclose(drawn.box, (20, 30, 60, 50), atol=1)
    page.keys("1", "u", "r")
    page.stored()
    expected[new] = drawn._replace(label="circle")
    assert objects_of(path, name) == expected

    browser.refresh()
    page = Page(browser, browser.current_url)
    page.js("document.querySelector('[value=images]').click()")
    server.end(signal.SIGKILL)
    page.keys("x")
    page.until("document.getElementById('stored').className === 'gone'")
    page.keys("x", "2")
    assert "away" in page.notice() or "not answer" in page.notice()
    assert objects_of(path, name) == expected

    server = serve(path, server.port)  # another token: the page says so, and what it could not store is not there
    page.until("document.getElementById('stored').className === 'locked'")
    assert "open the address" in page.notice()
    page.js("window.onbeforeunload = null")
    browser.execute_cdp_cmd("Page.enable", {})
    browser.get("about:blank")
    page = Page(browser, server.address)
    assert objects_of(path, name) == expected
    page.keys("u")  # of the server before: the name of what was drawn
    page.until(f"document.getElementById('name').textContent === {json.dumps(name)}")
    page.stored()
    expected[new] = drawn
    assert objects_of(path, name) == expected
    page.keys("u")
    page.stored()
    del expected[new]
    assert objects_of(path, name) == expected
    page.keys(Keys.ENTER, Keys.ENTER)  # once more, for the guesses that are not decided
    page.stored()
    with Store(path, readonly=True) as store:
        assert store.get(name).state == "reviewed"


def test_a_key_before_the_next_image_has_come_decides_nothing_unseen(browser, serve, tmp_path):
    path = make_store(tmp_path / "shapes", 8, masks=False)
    page = Page(browser, serve(path).address)
    page.js("""const plain = window.fetch;  // a slow server, from now on
        window.fetch = async (...all) => { await new Promise((go) => setTimeout(go, 400)); return plain(...all); }""")
    order = page.js(
        "return fetch('/api/queue?verdict=new').then((answer) => answer.json()).then((found) => found.entries)"
    )
    page.keys(*["a"] * 8)
    page.stored()
    names = [f"shapes {number:03}.png" for number in range(8)]
    accepted = [
        [names.index(name), each.id] for name in names for each in objects_of(path, name).values() if each.human
    ]
    assert sorted(accepted) == sorted(order[: len(accepted)])  # none was passed over
    assert page.text("place").startswith(f"object {len(accepted) + 1} of")


def test_two_tabs_can_not_overwrite_each_other(browser, serve, tmp_path):
    path = make_store(tmp_path / "shapes", 1, masks=False)
    server = serve(path)
    page = Page(browser, server.address)
    page.keys("n", "p")
    number = page.selected()
    one = browser.current_window_handle
    browser.switch_to.new_window("tab")
    other = Page(browser, f"http://127.0.0.1:{server.port}/")
    assert other.selected() == number
    other.keys("x")
    other.stored()
    browser.close()
    browser.switch_to.window(one)
    page.keys("a")
    page.until("!document.getElementById('notice').hidden")
    assert "Changed elsewhere meanwhile: 1 action not stored" in page.notice()
    page.stored()
    assert objects_of(path, "shapes 000.png")[number].verdict == "rejected"
    assert page.js(
        "return document.querySelector(`[data-id='${arguments[0]}']`).classList.contains('rejected')", number
    )
    page.keys("p")
    page.click(f"#objects [data-id='{number}']")
    page.keys("a")
    page.stored()
    assert objects_of(path, "shapes 000.png")[number].verdict == "accepted"


def test_what_the_server_can_not_store_now_waits_and_is_stored(browser, serve, tmp_path):
    path = make_store(tmp_path / "shapes", 1, masks=False)
    page = Page(browser, serve(path).address)
    number = page.selected()
    page.js("""const plain = window.fetch, full = { error: "annotations.sqlite: the disk is full" };
        window.failing = 503;
        window.fetch = async (...all) => window.failing && all[1]?.method === "POST"
          ? new Response(JSON.stringify(full), { status: window.failing }) : plain(...all);""")
    page.keys("a")
    page.until("document.getElementById('stored').className === 'gone'")
    waits = "annotations.sqlite: the disk is full: 1 action not stored yet"
    assert waits in page.notice()
    page.keys("x")  # nothing more can be done
    assert "nothing can be done" in page.notice()
    page.js("window.failing = 500")
    page.until(f"document.getElementById('notice').textContent.includes('{waits}')")  # again, after the other notice
    assert not objects_of(path, "shapes 000.png")[number].human
    page.js("window.failing = 0")
    page.stored()
    assert page.notice() == ""
    found = objects_of(path, "shapes 000.png")
    assert [each.id for each in found.values() if each.human] == [number]
    assert found[number].verdict == "accepted"


def small_store(folder, **more):
    """An image with one object."""
    images = folder / "images"
    images.mkdir()
    Image.new("RGB", (64, 64)).save(images / "small.png")
    found = Annotation(0, "sign", (5, 5, 40, 40), score=0.5, sources=(MODEL,), **more)
    with Store(folder / "s.sqlite", create=True) as store:
        store.settings["images"] = json.dumps(str(images))
        store.put(ImageRecord("small.png", "", (64, 64), (found,)), who="m")
    return folder / "s.sqlite"


TYPE = """
const [key, place, text] = arguments;
const label = [...document.querySelectorAll('#attributes label')].find((each) => each.innerText.startsWith(key));
const input = label.querySelectorAll('input')[place];
input.value = text;
input.dispatchEvent(new Event('change', { bubbles: true }));
return [...label.querySelectorAll('input')].map((each) => each.value);
"""


def test_attributes_keep_their_type_and_texts_their_commas(browser, serve, tmp_path):
    attributes = {"lines": ("Hello, world", "42"), "lit": True, "count": 3, "colour": "red"}
    path = small_store(tmp_path, attributes=attributes)
    page = Page(browser, serve(path).address)

    def typed(key, place, text, **expected):
        shown = page.js(TYPE, key, place, text)
        page.stored()
        attributes.update(expected)
        assert objects_of(path, "small.png")[1].attributes == attributes
        return shown

    assert typed("lines", 1, "43", lines=("Hello, world", "43")) == ["Hello, world", "43", ""]
    typed("lines", 2, "a, b", lines=("Hello, world", "43", "a, b"))
    typed("lines", 1, "", lines=("Hello, world", "a, b"))
    assert typed("lit", 0, "maybe") == ["true"]
    assert "lit is as it was; allowed are true and false" in page.notice()
    typed("lit", 0, "no", lit=False)
    assert typed("count", 0, "three") == ["3"]
    assert "allowed are numbers" in page.notice()
    typed("count", 0, "4", count=4)
    typed("colour", 0, "very, very red", colour="very, very red")
    typed("colour", 0, "red", colour="red")
    page.js(
        "const it = document.getElementById('new-attribute'); it.value = arguments[0]; it.dispatchEvent(new Event('change'))",
        'lines = ["x, y", "z"]',
    )
    page.stored()
    assert objects_of(path, "small.png")[1].attributes["lines"] == ("x, y", "z")


@pytest.mark.parametrize("polygon", [True, False])
def test_a_mask_that_can_not_follow_its_box_is_told(browser, serve, tmp_path, polygon):
    from selenium.webdriver.common.keys import Keys

    pixels = np.zeros((64, 64), bool)
    pixels[5:40, 5:40] = True
    mask = ((5.0, 5.0, 40.0, 5.0, 40.0, 40.0),) if polygon else runs.encode(pixels)
    path = small_store(tmp_path, segmentation=mask)
    page = Page(browser, serve(path).address)
    page.keys(Keys.ARROW_RIGHT, held=[Keys.SHIFT])
    page.stored()
    assert objects_of(path, "small.png")[1].box == (5, 5, 41, 40)
    assert ("is removed" in page.notice()) != polygon
    page.keys("u")
    page.stored()
    assert objects_of(path, "small.png")[1].segmentation == mask


def test_names_can_not_become_script(browser, serve, tmp_path):
    hostile = [HOSTILE.replace("label", where) for where in ("label", "key", "value", "model", "file")]
    label, key, value, model, _ = hostile
    folder = tmp_path / "images"
    folder.mkdir()
    name = "<img src=x onerror=window.hacked='file'>.png"
    Image.new("RGB", (64, 64)).save(folder / name)
    found = Annotation(0, label, (5, 5, 40, 40), None, 0.5, None, {key: value}, (MODEL._replace(model=model),))
    with Store(tmp_path / "s.sqlite", create=True) as store:
        store.settings["images"] = json.dumps(str(folder))
        store.settings["classes"] = json.dumps([label])
        store.put(ImageRecord(name, "", (64, 64), (found, found._replace(box=(2, 2, 60, 60)))), who=model)
    page = Page(browser, serve(tmp_path / "s.sqlite").address)
    page.keys("c")
    page.keys("<")
    shown = page.js(
        "return document.body.innerText + [...document.querySelectorAll('option, text')].map(e => e.textContent)"
    )
    for text in (name, label, key, model):
        assert text in shown
    page.js("document.getElementById('chooser').close()")
    page.keys("a", "1", "u", "l")
    page.stored()
    assert page.js("return document.querySelectorAll('img').length") == 1  # the picture
    assert page.js("return window.hacked") is None
    # Even a script that got into the page would not run.
    page.js("const it = document.createElement('div'); it.innerHTML = arguments[0]; document.body.append(it)", label)
    page.js(
        "const it = document.createElement('script'); it.textContent = 'window.hacked = 1'; document.body.append(it)"
    )
    time.sleep(0.3)
    assert page.js("return window.hacked") is None
    assert any("Content Security Policy" in each["message"] for each in browser.get_log("browser"))


def test_all_of_a_class_above_a_probability_at_once(browser, serve, tmp_path):
    path = make_store(tmp_path / "shapes", 6, masks=False)
    page = Page(browser, serve(path).address)
    page.js("const f = document.forms[0].elements; f.label.value = 'circle'; f.low.value = 0.7;")
    page.js("document.forms[0].dispatchEvent(new Event('change'))")
    with Store(path, readonly=True) as store:
        objects = [each for record in store.records() for each in record.objects]
    fitting = sum(each.label == "circle" and each.probability >= 0.7 for each in objects)
    assert 1 < fitting < len(objects)
    page.until(f"document.getElementById('count').textContent.startsWith('{fitting} objects')")
    page.click("#accept-all")
    page.until("document.getElementById('ask').open")
    assert f"Accept: {fitting} objects" in page.text("question")
    page.click("#yes")
    page.until("document.getElementById('count').textContent.startsWith('Nothing')")
    accepted = lambda: [
        each for number in range(6) for each in objects_of(path, f"shapes {number:03}.png").values() if each.human
    ]
    assert len(accepted()) == fitting
    assert all(each.label == "circle" and each.probability >= 0.7 for each in accepted())
    page.click("#undo")
    page.stored()
    assert not accepted()


def test_a_box_is_drawn_by_keys_alone(browser, serve, tmp_path):
    from selenium.webdriver.common.keys import Keys

    path = make_store(tmp_path / "shapes", 1, masks=False)
    page = Page(browser, serve(path).address)
    page.keys("d", "d", Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    page.keys(Keys.ARROW_RIGHT, held=[Keys.SHIFT])
    page.keys(Keys.ENTER, "2")
    page.stored()
    new = list(objects_of(path, "shapes 000.png").values())[-1]
    assert (new.label, new.box) == ("square", (71, 71, 92, 91))


def states_of(path):
    with Store(path, readonly=True) as store:
        return [record.state for record in store.records()]


def count_of(path):
    with Store(path, readonly=True) as store:
        return sum(len(record.objects) for record in store.records())


@pytest.mark.parametrize("by", ["objects", "images"])
def test_an_image_whose_objects_are_all_decided_waits_for_the_word_that_none_is_missing(browser, serve, tmp_path, by):
    from selenium.webdriver.common.keys import Keys

    path = make_store(tmp_path / "shapes", 4, masks=False)
    page = Page(browser, serve(path).address)
    page.js("document.querySelector(`[value=${arguments[0]}]`).click()", by)
    page.until(f"document.getElementById('place').textContent.startsWith('{by[:-1]}')")
    halts, pressed = 0, 0
    while "last one" not in page.notice():
        shown = page.text("name")
        page.keys("a")
        pressed += 1
        page.stored()
        if page.notice().startswith("All objects of this image are decided. Enter"):
            halts += 1
            assert page.text("name") == shown
            assert all(each.verdict == "accepted" for each in objects_of(path, shown).values())
            page.keys("x")
            assert all(each.verdict == "accepted" for each in objects_of(path, shown).values())
            if halts == 1:
                page.keys(Keys.ENTER)
                page.stored()
    assert halts == 4
    assert pressed == count_of(path) + 3  # one more for each image that was left unmarked
    assert sorted(states_of(path)) == ["new"] * 3 + ["reviewed"]
    assert "All objects of 3 images are decided, but they are not marked as reviewed" in page.notice()
    page.keys("v")
    assert "Mark 3 images as reviewed: all their objects are decided." in page.text("question")
    page.click("#yes")
    page.until("document.getElementById('notice').textContent.includes('Reviewed: 3 images')")
    assert states_of(path) == ["reviewed"] * 4
    assert page.js("return document.getElementById('finish').hidden")
    page.keys("u")
    page.stored()
    assert sorted(states_of(path)) == ["new"] * 3 + ["reviewed"]


@pytest.mark.parametrize("by", ["objects", "images"])
def test_enter_asks_once_where_a_guess_is_not_decided(browser, serve, tmp_path, by):
    from selenium.webdriver.common.keys import Keys

    path = small_store(tmp_path)
    page = Page(browser, serve(path).address)
    page.js("document.querySelector(`[value=${arguments[0]}]`).click()", by)
    page.until(f"document.getElementById('place').textContent.startsWith('{by[:-1]}')")
    page.keys(Keys.ENTER)
    assert page.notice() == "1 object is undecided: sign 50 %. Enter again lets it stand, X rejects it."
    page.keys("m")  # something else meanwhile: it asks again
    page.keys(Keys.ENTER)
    assert "undecided" in page.notice()
    assert states_of(path) == ["new"]
    page.keys(Keys.ENTER)
    page.stored()
    assert states_of(path) == ["reviewed"]
    page.keys("u")
    page.stored()
    page.keys(Keys.ENTER, "x")
    page.stored()
    assert "All objects of this image are decided" in page.notice()
    page.keys(Keys.ENTER)
    page.stored()
    assert states_of(path) == ["reviewed"]
    assert objects_of(path, "small.png")[1].verdict == "rejected"


def test_a_drawn_box_has_the_class_that_is_chosen_for_it(browser, serve, tmp_path):
    from selenium.webdriver.common.keys import Keys

    path = make_store(tmp_path / "shapes", 2, masks=False)
    page = Page(browser, serve(path).address)
    page.until("document.getElementById('picture').naturalWidth")
    name, before = first(page, path)
    drawn = lambda: [each.label for number, each in objects_of(path, name).items() if number not in before]
    sketched = lambda: page.js("return document.querySelectorAll('.sketch').length")
    page.keys("d")
    assert "Drag a box" in page.notice()
    page.keys(Keys.ESCAPE)
    assert page.notice() == ""
    page.keys("d")
    page.drag((20, 30), (60, 50))
    assert (page.notice(), sketched()) == ("", 1)
    assert page.js("return document.getElementById('chooser').open")
    page.keys(Keys.ESCAPE)  # without a class
    page.stored()
    assert (drawn(), sketched()) == ([], 0)
    for keys in (("3",), (Keys.ENTER,), ("squ", Keys.ENTER)):
        page.keys("d")
        page.drag((20, 30), (60, 50))
        page.keys(*keys)
        page.stored()
        page.keys("n", "p")  # something else is selected, and says nothing of the next class
    assert drawn() == ["triangle", "triangle", "square"]
    page.keys("d", Keys.PAGE_DOWN)
    page.until(f"document.getElementById('name').textContent !== {json.dumps(name)}")
    assert (page.notice(), page.js("return document.querySelectorAll('.drawing').length")) == ("", 0)
    page.keys(Keys.ESCAPE, "a")
    assert page.notice() == "No object is selected."
    page.keys("m")
    assert page.notice() == ""
    assert page.js("return getComputedStyle(document.getElementById('stage')).userSelect") == "none"


def test_all_that_are_this_sure_are_not_those_that_are_less(browser, serve, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (64, 64)).save(folder / "small.png")
    sures = (0.0234, 0.0233, 0.02, 0.3)
    found = [Annotation(0, "sign", (k, k, 40, 40), score=sure, sources=(MODEL,)) for k, sure in enumerate(sures)]
    with Store(tmp_path / "s.sqlite", create=True) as store:
        store.settings["images"] = json.dumps(str(folder))
        store.put(ImageRecord("small.png", "", (64, 64), tuple(found)), who="m")
    page = Page(browser, serve(tmp_path / "s.sqlite").address)
    page.click("#objects [data-id='1']")
    page.keys("l")
    page.until("document.getElementById('count').textContent.startsWith('2 objects')")
    assert page.js("return document.forms[0].elements.low.value") == "0.0234"


def test_rejecting_all_warns_and_leaves_what_is_accepted(browser, serve, tmp_path):
    path = make_store(tmp_path / "shapes", 2, masks=False)
    page = Page(browser, serve(path).address)
    name, accepted = page.text("name"), page.selected()
    page.keys("a")
    page.stored()
    page.js("document.forms[0].elements.verdict.value = ''; document.forms[0].dispatchEvent(new Event('change'))")
    count = count_of(path)
    page.until(f"document.getElementById('count').textContent.startsWith('{count} objects')")
    page.click("#reject-all")
    page.until("document.getElementById('ask').open")
    assert f"Reject: {count - 1} objects in 2 images? 1 decided object stays as it is." in page.text("question")
    assert page.js("return document.getElementById('yes').className") == "bad"
    page.click("#yes")
    page.until("document.getElementById('notice').textContent.startsWith('Stored')")
    verdicts = {
        (each, object.id): object.verdict
        for each in ("shapes 000.png", "shapes 001.png")
        for object in objects_of(path, each).values()
    }
    assert verdicts.pop((name, accepted)) == "accepted"
    assert set(verdicts.values()) == {"rejected"}


CUT = """
const parts = ['button', 'input', 'dd', 'span', 'select', 'label'].map((name) => `aside ${name}`);
return [...document.querySelectorAll(parts)].filter((each) => {
  const place = each.getBoundingClientRect(), side = each.closest('aside').getBoundingClientRect();
  return place.width && !each.closest('fieldset, #classes') && each.scrollWidth > each.clientWidth + 1 && each.clientWidth
    || place.right > side.right;
}).map((each) => each.outerHTML.slice(0, 80));
"""


@pytest.mark.parametrize("width", [1280, 700])
def test_nothing_at_the_sides_is_cut(browser, serve, tmp_path, width):
    attributes = {"colour": "orange", "colours": ("orange 0.33", "brown 0.18", "black 0.17", "purple 0.12")}
    path = small_store(tmp_path, attributes=attributes)
    page = Page(browser, serve(path).address)
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page.js("document.querySelector('#facts dd').textContent = 'accepted, touched by a person'")
        assert page.js(CUT) == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


LATENCY = """
const done = arguments[arguments.length - 1];
window.latencies = [];
addEventListener('keydown', (event) => {
  const from = performance.now();
  requestAnimationFrame(() => { const channel = new MessageChannel();  // the first task after the frame is painted
    channel.port1.onmessage = () => window.latencies.push(performance.now() - from);
    channel.port2.postMessage(0); });
}, true);
done();
"""


@pytest.mark.parametrize("masks", [False, True])
def test_a_key_is_drawn_within_a_tenth_of_a_second(browser, serve, tmp_path, masks):
    from selenium.webdriver.common.keys import Keys

    path = large_store(tmp_path, masks)
    began = time.monotonic()
    page = Page(browser, serve(path).address)
    page.until("document.getElementById('picture').complete && document.getElementById('picture').naturalWidth")
    shown = time.monotonic() - began
    assert page.size == (1536, 2048)
    assert page.js("return document.querySelectorAll('.object').length") == 200
    browser.execute_async_script(LATENCY)
    keys = ["n", "n", "p", Keys.ARROW_RIGHT, Keys.ARROW_DOWN, "a", "x", "2", "n", "u", "m", "m", "f", "n", "a", "3"]
    slower = [contention()]
    for count, key in enumerate(keys, 1):
        page.keys(key)
        page.until(f"window.latencies.length === {count}")
    latencies, slower = sorted(page.js("return window.latencies")), max(*slower, contention())
    page.stored()
    print(
        f"\n200 objects on 12 MP, masks {masks}: median {latencies[8]:.0f} ms, longest {latencies[-1]:.0f} ms; "
        f"{slower:.1f} times slower than on an idle machine (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores); "
        f"shown {shown:.1f} s after the command"
    )
    assert latencies[-2] / 1000 <= LIMIT * slower  # all but one: where others compute, one may have to wait for them


def contention():
    """How many times as long as on an idle machine a computation takes now, since others compute too."""
    wall, used = time.perf_counter(), time.process_time()
    while time.process_time() < used + 0.1:
        sum(range(10_000))
    return max(1.0, (time.perf_counter() - wall) / 0.1)


def large_store(folder, masks):
    """An image of 12 megapixels, with 200 objects."""
    rng = np.random.default_rng(0)
    images = folder / "images"
    images.mkdir()
    small = Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8))
    small.resize((4000, 3000), Image.Resampling.BICUBIC).save(images / "large.jpg", quality=90)
    digest = hashlib.sha256((images / "large.jpg").read_bytes()).hexdigest()
    objects = []
    for k in range(200):
        x, y = rng.uniform(0, (3600, 2600))
        width, height = rng.uniform(60, 400, 2)
        angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        oval = np.stack([x + width / 2 * (1 + np.cos(angles)), y + height / 2 * (1 + np.sin(angles))], 1)
        polygon = (tuple(oval.reshape(-1).tolist()),) if masks else None
        score = float(rng.uniform(0.3, 1))
        box = (x, y, x + width, y + height)
        objects.append(Annotation(0, f"class {k % 5}", box, polygon, score, score, {}, (MODEL,)))
    with Store(folder / "s.sqlite", create=True) as store:
        store.settings["images"] = json.dumps(str(images))
        store.put(ImageRecord("large.jpg", digest, (3000, 4000), tuple(objects)), who="m")
    return folder / "s.sqlite"
