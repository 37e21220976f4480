"""Changes of a record, one at a time, as a person makes them or a page sends them as JSON."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.annotate import findings, rows
from jaxvision.annotate.changes import Change, changed
from jaxvision.annotate.records import Annotation, ImageRecord, Source
from jaxvision.annotate.rows import Row
from jaxvision.errors import DataError
from jaxvision.masks import runs
from jaxvision.masks.runs import Runs

POLYGON = ((10.0, 10.0, 30.0, 10.0, 20.0, 40.0),)
FOUND = Annotation(4, "cup", (10, 10, 30, 40), POLYGON, 0.5, 0.6, {"colour": "red"}, (Source("ssd", "c0"),))
DRAWN = Annotation(2, "cat", (0, 0, 5, 5), verdict="accepted", human=True)


def after(action, number=4, value=None, found=FOUND):
    """The object after a change, and the record around it."""
    row = Row(ImageRecord("a", "12", (100, 200), (DRAWN, found), version=7), 9)
    new = changed(row, Change(action, number, json.loads(json.dumps(value))))
    assert new.record.version == 8
    return {each.id: each for each in new.record.objects}


def test_what_each_action_does():
    kept = FOUND._replace(human=True)
    corrected = kept._replace(verdict="accepted", score=None, probability=None)
    assert after("accept")[4] == kept._replace(verdict="accepted")
    assert after("reject")[4] == kept._replace(verdict="rejected")
    assert after("rename", value="bowl")[4] == corrected._replace(label="bowl")
    assert after("attribute", value=["words", ["a", "b"]])[4] == kept._replace(
        attributes={"colour": "red", "words": ("a", "b")}
    )
    assert after("attribute", value=["colour", None])[4] == kept._replace(attributes={})
    assert after("note", value="look again")[4].attributes["note"] == "look again"
    assert after("segmentation", value=None)[4] == corrected._replace(segmentation=None)
    mask = runs.encode(np.arange(20_000).reshape(100, 200) % 7 < 3)
    assert after("segmentation", value=mask.coco())[4] == corrected._replace(segmentation=mask)
    assert after("delete") == {2: DRAWN, 4: kept._replace(verdict="rejected")}
    assert after("delete", 2) == {4: FOUND}
    added = after("add", None, {"label": "tie", "box": [1, 2, 3, 4], "attributes": {"n": 3}})
    assert added[9] == Annotation(9, "tie", (1, 2, 3, 4), None, None, None, {"n": 3}, (), "accepted", True)


def test_a_polygon_follows_its_box_and_a_mask_of_pixels_does_not():
    moved = after("move", value=[20, 10, 60, 25])[4]
    assert moved.box == (20, 10, 60, 25)
    np.testing.assert_allclose(moved.segmentation, [[20, 10, 60, 10, 40, 25]])
    assert moved.score is None
    assert (
        after("move", value=[0, 0, 5, 5], found=FOUND._replace(segmentation=Runs((9, 9), b"1")))[4].segmentation is None
    )


def test_the_state_and_the_note_of_an_image():
    row = Row(ImageRecord("a", "12", (100, 200), (FOUND,)), 9)
    reviewed = changed(row, Change("reviewed"))
    assert reviewed.record.state == "reviewed"
    assert reviewed.record.objects == (FOUND,)
    assert changed(reviewed, Change("reviewed", None, False)).record.state == "new"
    assert changed(row, Change("note", None, "blurred")).note == "blurred"


@pytest.mark.parametrize(
    ("action", "number", "value"),
    [
        *(("rename", 4, value) for value in ("", None, 3, ["a"])),
        *(
            ("move", 4, value)
            for value in (None, [1, 2, 3], [5, 5, 5, 9], [0, 0, 1, float("nan")], "abcd", [9, 0, 1, 1])
        ),
        *(
            ("add", None, value)
            for value in (None, {}, {"label": "", "box": [0, 0, 1, 1]}, {"label": "a", "box": [0, 0]})
        ),
        *(("attribute", 4, value) for value in (None, ["a"], ["a", {}], ["a", float("inf")], [3, "a"])),
        *(("segmentation", 4, value) for value in ([[1, 2]], [[1, 2, 3, 4, 5]], {"size": [1]}, "abc", 3)),
        ("segmentation", 4, [[0, 0, 1e300, 0, 0, 9]]),
        ("move", 4, [0, 0, 1e30, 9]),
        ("move", 4, [0, 0, 1e25, 9]),  # its polygon would have an outline that nobody can fill
        *(("reviewed", 4, None), ("accept", None, None), ("accept", 3, None), ("admire", 4, None)),
    ],
)
def test_what_does_not_fit_is_refused(action, number, value):
    with pytest.raises(DataError, match="a: |there is no action 'admire'"):
        after(action, number, value)


@pytest.mark.parametrize(
    ("lengths", "told"),
    [
        ({"size": [10, 10], "counts": "T3"}, r"a: segmentation is of \[10, 10\] pixels, the image of \[100, 200\]"),
        ({"size": [200, 100], "counts": "T3"}, "it is transposed"),
        ({"size": [100, 200], "counts": "51"}, "allowed are lengths from 0, 20,000 together"),
        ({"size": [100, 200], "counts": "zzzz~~"}, "COCO's text of run lengths"),
        ({"size": [100, 200], "counts": ""}, "allowed are lengths from 0, 20,000 together"),
        ({"size": [100, 200], "counts": "é"}, "COCO's text of run lengths"),
    ],
)
def test_run_lengths_that_are_none_of_the_image_are_refused_with_both_sizes(lengths, told):
    with pytest.raises(DataError, match=told):
        after("segmentation", value=lengths)
    with pytest.raises(DataError, match=told):
        after("add", None, {"label": "tie", "box": [1, 2, 3, 4], "segmentation": lengths})


@pytest.mark.parametrize("mask", [{"size": [9], "counts": "1"}, {"counts": "1"}, {"size": [9, 9], "counts": "é"}, 5])
def test_an_object_that_can_not_be_read_is_named(mask):
    plain = rows.plain(FOUND) | {"segmentation": mask}
    values = rows.values(Row(ImageRecord("b.jpg", "12", (9, 9))))
    with pytest.raises(DataError, match="b.jpg: object 4 can't be read"):
        rows.row_of((*values[:-1], json.dumps([plain])))


text = st.text('aé"\\\n\0中😀', max_size=4)
values = st.one_of(text, st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False))
attributes = st.dictionaries(text, st.one_of(values, st.lists(text, max_size=3).map(tuple)), max_size=3)
number = st.floats(0, 1e6)
polygons = st.lists(st.lists(number, min_size=6, max_size=9).map(tuple), min_size=1, max_size=2).map(tuple)
objects = st.builds(
    Annotation,
    st.integers(1, 10**6),
    text,
    st.tuples(number, number, number, number),
    st.one_of(
        st.none(),
        st.lists(st.lists(number, min_size=6).map(tuple), min_size=1).map(tuple),
        st.just(Runs((3, 4), b"1b")),
    ),
    st.one_of(st.none(), st.floats(0, 1)),
    st.one_of(st.none(), st.floats(0, 1)),
    attributes,
    st.lists(st.builds(Source, text, text, text), max_size=2).map(tuple),
    st.sampled_from(("new", "accepted", "rejected")),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(objects)
def test_an_object_comes_back_from_its_text(each):
    assert rows.annotation_of(json.loads(rows.dumps(rows.plain(each)))) == each


def test_numbers_of_numpy_become_those_of_python():
    box = tuple(np.float32([0.1, 2, 3, 4]))
    each = Annotation(np.int64(1), "a", box, score=np.float32(0.1), attributes={"n": np.int32(3), "x": np.float64(0.1)})
    text = rows.dumps(rows.plain(each))
    assert rows.annotation_of(json.loads(text)) == Annotation(
        1, "a", tuple(map(float, box)), score=float(np.float32(0.1)), attributes={"n": 3, "x": 0.1}
    )


def test_what_json_can_not_hold_is_refused():
    with pytest.raises(DataError, match="a record can't hold"):
        rows.dumps(rows.plain(FOUND._replace(score=float("nan"))))
    with pytest.raises(DataError, match="a record can't hold"):
        rows.dumps(rows.plain(FOUND._replace(label="half a pair \ud83d")))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 12)] * 4), min_size=2, max_size=2))
def test_the_iou_of_boxes_counts_cells(corners):
    one, other = ((min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners)
    cells = np.zeros((2, 12, 12), bool)
    for grid, (x0, y0, x1, y1) in zip(cells, (one, other), strict=True):
        grid[y0:y1, x0:x1] = True
    either = (cells[0] | cells[1]).sum()
    expected = (cells[0] & cells[1]).sum() / either if either else 0
    assert findings.iou(one, other) == pytest.approx(expected)


def test_ids_of_findings_are_checked():
    two = ImageRecord("a", "12", (9, 9), (FOUND, FOUND))
    with pytest.raises(DataError, match=r"a: the ids of its objects are \[4, 4\]; allowed are 0 and different"):
        findings.found(None, two)
