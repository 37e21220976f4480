"""The panoptic merge against the published algorithm, written anew with its two slips set right, and by hand."""

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from scipy.special import softmax

from jaxvision.masks.panoptic import VOID, merge
from jaxvision.types import Canvas, MapMasks

THINGS = (True, True, False, False, False)


def canvas_of(size, original_size=None, window=None):
    return Canvas(np.zeros((*size, 3), np.uint8), size, original_size or size, window=window)


def enlarged(logits, extent, size):
    """Bilinear interpolation of one map to its extent, of which the content is kept."""
    for axis in (0, 1):
        cells = logits.shape[axis]
        at = (np.arange(size[axis]) + 0.5) * cells / extent[axis] - 0.5
        logits = np.apply_along_axis(
            lambda line, at=at, cells=cells: np.interp(at, np.arange(cells), line), axis, logits
        )
    return logits


def by_definition(labels, scores, logits, extent, canvas, threshold, smallest):
    """Ids and segments, from masks of the whole image."""
    queries = [n for n in range(len(labels)) if scores[n] > threshold]
    height, width = canvas.original_size
    masks = np.stack([enlarged(each, extent, canvas.size) for each in logits])
    while queries:
        best = softmax(masks[queries], 0).argmax(0)
        leader, first = {}, {}
        for k, query in enumerate(queries):
            leader[k] = k if THINGS[labels[query]] else first.setdefault(labels[query], k)
        for k in leader:
            best[best == k] = leader[k]
        file = np.asarray(Image.fromarray(best.astype(np.int32)).resize((width, height), Image.Resampling.NEAREST))
        area = {k: int((file == k).sum()) for k in leader.values()}
        small = {k for k in area if area[k] <= smallest}
        if not small:
            break
        queries = [query for k, query in enumerate(queries) if leader[k] not in small]
    else:
        return np.full((height, width), VOID), []
    ids, segments = np.zeros((height, width), int), []
    for number, k in enumerate(sorted(area), 1):
        ids[file == k] = number
        best_score = max(scores[query] for j, query in enumerate(queries) if leader[j] == k)
        segments.append((number, labels[queries[k]], best_score, area[k]))
    return ids, segments


@pytest.mark.parametrize("original_size", [(20, 27), (53, 71), (9, 8)])
def test_it_equals_the_published_algorithm(original_size):
    canvas, extent, dropped = canvas_of((20, 27), original_size), (24, 32), 0
    for seed in range(8):
        smallest = canvas.original_size[0] * canvas.original_size[1] // 60
        random = np.random.RandomState(seed)
        labels, scores = random.randint(0, 5, 12), random.uniform(0.6, 1, 12)
        logits = 3 * random.standard_normal((12, 6, 8))
        found = merge(labels, scores, MapMasks(logits, extent), canvas, things=THINGS, threshold=0.7, smallest=smallest)
        ids, segments = by_definition(labels, scores, logits, extent, canvas, 0.7, smallest)
        assert_array_equal(found.ids, ids)
        assert [tuple(each) for each in found.segments] == segments
        assert found.ids.dtype == np.int32
        taking_part = {-1 - n if THINGS[label] else label for n, label in enumerate(labels) if scores[n] > 0.7}
        dropped += len(taking_part) - len(segments)
    assert dropped > 0


def quadrants(side=8):
    """Logits of four queries, each of which has a corner of the image."""
    logits = np.full((4, side, side), -9.0)
    for n, (y, x) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        logits[n, y * side // 2 :][: side // 2, x * side // 2 :][:, : side // 2] = 9
    return MapMasks(logits, (side, side))


def test_no_two_segments_have_one_id():
    things = [n != 7 for n in range(8)]
    found = merge(np.array([7, 3, 7, 4]), np.full(4, 0.9), quadrants(), canvas_of((8, 8)), things=things)
    assert_array_equal(found.ids[::4, ::4], [[1, 2], [1, 3]])
    assert [(each.id, each.label, each.area) for each in found.segments] == [(1, 7, 32), (2, 3, 16), (3, 4, 16)]
    apart = merge(np.array([7, 3, 7, 4]), np.full(4, 0.9), quadrants(), canvas_of((8, 8)), things=[True] * 8)
    assert_array_equal(apart.ids[::4, ::4], [[1, 2], [3, 4]])


def test_stuff_that_was_merged_keeps_its_pixels_when_another_segment_is_dropped():
    logits = np.full((4, 8, 8), -9.0)
    logits[0, :, :4], logits[1, :, 4:] = 9, 9
    logits[2, :2, :2] = 12  # a thing of four pixels
    logits[3] = 0  # other stuff, the second choice everywhere
    labels, scores = np.array([2, 2, 0, 3]), np.array([0.9, 0.95, 0.9, 0.9])
    found = merge(labels, scores, MapMasks(logits, (8, 8)), canvas_of((8, 8)), things=THINGS)
    assert found.segments == [(1, 2, 0.95, 64)]
    assert_array_equal(found.ids, 1)
    kept = merge(labels, scores, MapMasks(logits, (8, 8)), canvas_of((8, 8)), things=THINGS, smallest=3)
    assert [each.area for each in kept.segments] == [60, 4]


def test_scores_up_to_the_threshold_leave_void():
    for scores, smallest in ((np.full(4, 0.85), 4), (np.full(4, 0.9), 16)):
        found = merge(
            np.array([0, 1, 0, 1]), scores, quadrants(), canvas_of((8, 8), (5, 6)), things=THINGS, smallest=smallest
        )
        assert found.segments == []
        assert_array_equal(found.ids, np.full((5, 6), VOID))


def test_outside_the_window_that_was_shown_is_void():
    canvas = canvas_of((8, 8), (8, 12), window=(2, 0, 10, 8))
    found = merge(np.array([0, 1, 0, 1]), np.full(4, 0.9), quadrants(), canvas, things=THINGS)
    expected = np.kron([[1, 2], [3, 4]], np.ones((4, 4), int))
    assert_array_equal(found.ids, np.pad(expected, ((0, 0), (2, 2))))
    assert [each.area for each in found.segments] == [16] * 4


def test_a_label_that_is_neither_thing_nor_stuff_is_refused():
    with pytest.raises(ValueError, match="it has 2, and label 3 is met"):
        merge(np.array([0, 3, 0, 1]), np.ones(4), quadrants(), canvas_of((8, 8)), things=(True, False))
    with pytest.raises(ValueError, match=r"got 3 labels, 4 scores and logits of shape \(4, 8, 8\)"):
        merge(np.array([0, 1, 0]), np.ones(4), quadrants(), canvas_of((8, 8)), things=THINGS)


def test_memory_does_not_grow_with_the_queries():
    def peak(queries):
        logits = np.random.RandomState(0).standard_normal((queries, 25, 34)).astype(np.float32)
        canvas = canvas_of((400, 533), (1500, 2000))
        tracemalloc.start()
        merge(np.zeros(queries, int), np.ones(queries), MapMasks(logits, (400, 544)), canvas, things=THINGS)
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return taken

    few, many = peak(2), peak(12)
    assert many < few + 2e6
    assert many < 60e6
