"""The gallery: pages of a bounded size that hold what the store does, and nothing that a name could run."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from annotated_shapes import MODEL, make_store
from PIL import Image

from jaxvision.annotate import __main__ as annotate
from jaxvision.annotate import drawing
from jaxvision.annotate.gallery import MOST_CORNERS, thinned
from jaxvision.annotate.records import Annotation, ImageRecord
from jaxvision.annotate.store import Change, Store

HOSTILE = "</title><img src=x onerror=alert(1)>"


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its texts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def written(store, *flags):
    output = store.parent / "gallery.html"
    status = annotate.main(["gallery", str(store), f"--output={output}", *flags])
    return status, [Tags(path.read_text("utf-8")) for path in sorted(store.parent.glob("gallery*.html"))]


def test_pages_hold_every_image_with_its_objects_in_its_place(tmp_path, capsys):
    path = make_store(tmp_path / "shapes", 5, size=128)
    with Store(path) as store:
        record = store.get("shapes 000.png")
        store.apply(record.name, Change("reject", 1), who="human:ann", version=record.version)
        kept = [[each for each in record.objects if each.verdict != "rejected"] for record in store.records()]
    status, pages = written(path, "--per-page=2", "--size=64")
    assert status == 0
    assert capsys.readouterr().out.endswith("gallery.html: 5 images on 3 pages\n")
    assert [len(page.of("figure")) for page in pages] == [2, 1, 2]  # files sorted by name: 2, 3, 1
    labels = [each["data-label"] for page in pages for each in page.of("g")]
    assert sorted(labels) == sorted(each.label for objects in kept for each in objects)
    boxes = [
        tuple(float(each[key]) for key in ("x", "y", "width", "height"))
        for page in pages
        for each in page.of("rect")
        if each.get("class") != "halo"
    ]
    expected = [
        (x0 / 2, y0 / 2, (x1 - x0) / 2, (y1 - y0) / 2) for o in kept for x0, y0, x1, y1 in (each.box for each in o)
    ]
    assert np.allclose(sorted(boxes), sorted(expected), atol=0.051)
    links = [[each["href"] for each in page.of("a")] for page in pages]
    assert links == [["gallery.html", "gallery-2.html", "gallery-3.html"] * 2] * 3


def test_pictures_are_inside_the_page_and_small(tmp_path):
    path = make_store(tmp_path / "shapes", 1, size=400)
    _, (page,) = written(path)
    (image,) = page.of("image")
    kind, _, data = image["href"].partition(";base64,")
    pixels = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (kind, pixels.format, pixels.size) == ("data:image/jpeg", "JPEG", (320, 320))
    assert not [each for each in page.tags if {"src", "srcset", "onload", "onerror", "style"} & set(each[1])]


def test_names_can_not_become_script(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    name = "<img src=x onerror=alert(2)>.png"
    Image.new("RGB", (32, 32)).save(images / name)
    found = Annotation(0, HOSTILE, (1, 1, 20, 20), None, 0.5, None, {HOSTILE: HOSTILE}, (MODEL,))
    with Store(tmp_path / "s.sqlite", create=True) as store:
        store.settings["images"] = json.dumps(str(images))
        store.put(ImageRecord(name, "", (32, 32), (found,)), who="m")
    _, (page,) = written(tmp_path / "s.sqlite")
    assert page.of("g")[0]["data-label"] == HOSTILE
    assert page.of("figcaption")[0]["title"] == name
    assert not page.of("img")
    assert len(page.of("script")) == 1
    policy = page.of("meta")[1]["content"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert len(re.findall("'sha256-", policy)) == 2


def test_what_can_not_be_shown_is_named_and_the_rest_is_there(tmp_path, capsys):
    path = make_store(tmp_path / "shapes", 3)
    (path.parent / "images" / "shapes 001.png").write_bytes(b"no image")
    status, (page,) = written(path)
    assert status == 1
    assert [each.get("class") for each in page.of("figure")] == [None, "failed", None]
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("jaxvision: shapes 001.png: ")


@pytest.mark.parametrize("flag", ["--per-page=0", "--per-page=1001", "--size=63", "--size=1e9", "--output=gallery.png"])
def test_flags_that_can_not_be_are_one_line(tmp_path, capsys, flag):
    with pytest.raises(SystemExit) as ended:
        annotate.main(["gallery", str(tmp_path), "--output=x.html", flag])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_empty_store_has_no_gallery(tmp_path, capsys):
    Store(tmp_path / "s.sqlite", create=True).close()
    assert (
        annotate.main(["gallery", str(tmp_path / "s.sqlite"), f"--output={tmp_path}/x.html", f"--images={tmp_path}"])
        == 2
    )
    assert "the store has no images" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()


def test_polygons_of_many_corners_are_thinned():
    angles = np.linspace(0, 6, 1000)
    polygon = np.stack([np.cos(angles), np.sin(angles)], 1).reshape(-1).tolist()
    assert len(thinned(polygon)) <= 2 * MOST_CORNERS
    assert thinned(polygon[:8]) == polygon[:8]


def test_colours_of_many_classes_differ_and_black_text_can_be_read_on_the_first():
    assert len({drawing.colour(number) for number in range(100)}) == 100
    for each in drawing.BRIGHT:
        red, green, blue = (int(each[k : k + 2], 16) / 255 for k in (1, 3, 5))
        linear = [
            level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in (red, green, blue)
        ]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert (luminance + 0.05) / 0.055 > 7  # WCAG's contrast AAA with near black
