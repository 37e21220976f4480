"""Stability over the frames of a video, against plain loops, and the command on a video."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from jaxvision.errors import ConfigError, DataError
from jaxvision.trust import video

FILE = Path("clip.mp4")


def classes(names):
    return ((number, {"classes": [{"name": name, "probability": 0.5}]}) for number, name in enumerate(names))


def test_answers_that_change_are_counted_between_neighbours():
    found = video.compared(FILE, classes("aabba"))
    assert found.summary() == {"frames": 5, "flip_rate": 2 / 4}
    assert [each.unstable for each in found.changes] == [0, 1, 0, 1]
    assert "answers that change from one to the next: 0.5000" in video.told(found, FILE)


def objects(*each):
    return {"objects": [{"label": label, "score": 0.9, "box": list(box)} for label, *box in each]}


def test_detections_without_a_match_are_counted():
    first = objects(("cat", 0, 0, 10, 10), ("dog", 20, 20, 30, 30), ("cat", 50, 50, 60, 60))
    second = objects(("cat", 0, 0, 10, 8), ("cat", 20, 20, 30, 30), ("cat", 50, 56, 60, 66))
    found = video.compared(FILE, enumerate([first, second, second, objects(), objects()]))
    assert [(each.unstable, each.of) for each in found.changes] == [(4, 6), (0, 6), (3, 3), (0, 0)]
    assert found.summary() == {
        "frames": 5,
        "flip_rate": pytest.approx(7 / 15),
        "match_iou": pytest.approx((2 * 0.8 + 6) / 8),
    }
    assert "mean IoU of the matches: 0.9500" in video.told(found, FILE)


def test_matches_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(20):
        corners = rng.uniform(0, 20, (2, 8, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(5, 15, (2, 8, 2))], -1)
        labels = rng.integers(0, 2, (2, 8))
        old, new = (
            objects(*zip(map(str, l), *b.T, strict=True))["objects"] for l, b in zip(labels, boxes, strict=True)
        )
        pairs = sorted(
            (-iou(a["box"], b["box"]), i, j)
            for i, a in enumerate(old)
            for j, b in enumerate(new)
            if a["label"] == b["label"]
        )
        wanted, used = [], set()
        for negative, i, j in pairs:
            if -negative >= 0.5 and not {("old", i), ("new", j)} & used:
                wanted.append(-negative)
                used |= {("old", i), ("new", j)}
        assert video.matches(old, new) == pytest.approx(wanted)


def iou(a, b):
    width, height = (max(0.0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1))
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    return width * height / (area(a) + area(b) - width * height)


def test_what_is_no_number_is_null():
    found = video.compared(FILE, enumerate([objects(), objects()]))
    assert math.isnan(found.summary()["flip_rate"])
    data = json.loads(video.as_json(found, FILE))
    assert data["summary"] == {"frames": 2, "flip_rate": None, "match_iou": None}
    assert data["changes"] == [{"frame": 0, "next": 1, "unstable": 0, "of": 0}]


def test_what_has_no_stability_is_told():
    with pytest.raises(DataError, match="clip.mp4 has fewer than two frames"):
        video.compared(FILE, classes("a"))
    with pytest.raises(ConfigError, match="--video is for a classifier or a detector"):
        video.compared(FILE, enumerate([{"pixels": {}}] * 2))
    with pytest.raises(DataError, match=r"a.jpg is no video by its name \(known are .mp4,"):
        video.stability(None, Path("a.jpg"), 0.3)  # pyright: ignore[reportArgumentType]
