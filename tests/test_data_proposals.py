"""Selective search finds what was drawn, the same every time; proposals reach the batch as objects do."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_encoding import encoded
from detection_files import CLASSES, write_coco, write_voc, write_yolo
from numpy.testing import assert_allclose, assert_array_equal
from test_ops_nms import overlap

from jaxvision.augment import flip
from jaxvision.data import arrays, loading, order, placement, proposals, resident, synthetic, target
from jaxvision.data.proposals import Search, finder, fit, selective_search
from jaxvision.data.source import Example, Source, annotations
from jaxvision.errors import DataError

SEARCH = Search(width=64, smallest=4)
TRUTH = np.array([[8, 10, 30, 26], [36, 30, 56, 44]], np.float32)


@pytest.fixture(scope="module")
def drawn():
    """Two plain rectangles on plain ground, 48 x 64 pixels."""
    pytest.importorskip("cv2.ximgproc.segmentation")
    image = np.full((48, 64, 3), 90, np.uint8)
    for (x0, y0, x1, y1), colour in zip(TRUTH.astype(int), ((220, 40, 40), (40, 60, 230)), strict=True):
        image[y0:y1, x0:x1] = colour
    return image


def source_of(*images, objects=None, proposed=None):
    """Images with objects and proposals."""
    read = lambda indices: [Example(images[i], objects=objects, proposals=proposed) for i in indices]
    return Source(len(images), read, lambda: np.zeros(0, int), ("a", "b"), lambda i: f"image {i}", "fixed")


def test_it_finds_what_was_drawn_each_once_and_in_order(drawn):
    boxes = selective_search(drawn, SEARCH)
    assert (boxes.dtype, boxes.shape[1]) == (np.float32, 4)
    assert all(max(overlap(box, true) for box in boxes) > 0.85 for true in TRUTH)
    assert boxes.tolist() == sorted(map(list, {tuple(box) for box in boxes.tolist()}))
    assert ((boxes[:, 2:] - boxes[:, :2]) >= 4).all()
    assert (boxes >= 0).all()
    assert (boxes <= [64, 48, 64, 48]).all()


def test_a_file_is_searched_as_its_pixels_are_at_any_width(drawn):
    assert_array_equal(selective_search(encoded(drawn), SEARCH), selective_search(drawn, SEARCH))
    wide = selective_search(drawn, Search("quality", 128, 8))
    assert all(max(overlap(box, true) for box in wide) > 0.85 for true in TRUTH)
    assert (wide <= [64, 48, 64, 48]).all()
    assert len(selective_search(drawn[:1], Search(width=64, smallest=4))) == 0


def test_proposals_are_the_same_every_time_and_kept_by_content_and_settings(drawn, tmp_path):
    first = finder(SEARCH, tmp_path / "a")(drawn)
    assert_array_equal(finder(SEARCH, tmp_path / "b")(drawn), first)
    assert first.tolist() != sorted(first.tolist())
    assert_array_equal(np.unique(first, axis=0), np.unique(selective_search(drawn, SEARCH), axis=0))
    (file,) = (tmp_path / "a").rglob("*.npz")
    np.savez(file, boxes=np.ones((1, 4), np.float32))
    assert finder(SEARCH, tmp_path / "a")(drawn).tolist() == [[1, 1, 1, 1]]
    assert len(finder(SEARCH._replace(smallest=6), tmp_path / "a")(drawn)) > 1
    changed = drawn.copy()
    changed[0, 0] += 1
    assert len(finder(SEARCH, tmp_path / "a")(changed)) > 1
    assert len(list((tmp_path / "a").rglob("*.*"))) == 3


def test_what_cannot_be_read_has_none_and_a_broken_file_is_named(drawn, tmp_path):
    find = finder(SEARCH, tmp_path)
    assert find(b"no image").shape == (0, 4)
    assert not list(tmp_path.iterdir())
    find(drawn)
    (file,) = tmp_path.rglob("*.npz")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match=rf"{file.name} holds no proposals: .*; remove it"):
        find(drawn)
    with pytest.raises(ValueError, match="allowed are the modes fast, quality, and sizes from 1"):
        finder(Search("slow"))  # type: ignore[arg-type]


def test_without_opencv_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match=r"pip install 'jaxvision\[proposals\]'"):
        selective_search(np.zeros((40, 40, 3), np.uint8))


def test_recall_and_best_iou_equal_the_loop():
    random = np.random.default_rng(0)
    corner = random.uniform(0, 8, (3, 12, 2))
    boxes = np.concatenate([corner, corner + random.uniform(8, 20, (3, 12, 2))], -1)
    proposed = [boxes[0, :8], boxes[1, :3], boxes[2, :0]]
    truth = [annotations(rows[8:], np.zeros(4), [False, False, True, False]) for rows in boxes]
    found = fit(proposed, truth, rows=5)
    best = [
        max([overlap(box, each) for box in near[:5]], default=0)
        for near, rows in zip(proposed, boxes, strict=True)
        for each in rows[[8, 9, 11]].astype(np.float32)
    ]
    assert 0 < np.mean(np.array(best) >= 0.5) < 1
    assert_allclose(found, (np.mean(np.array(best) >= 0.5), np.mean(best), 9, 8 / 3), rtol=1e-6)
    none = fit([boxes[0]], [annotations([], [])])
    assert np.isnan(none.recall) and np.isnan(none.mean_best_iou) and none[2:] == (0, 12)  # noqa: PT018


@pytest.mark.parametrize("placer", [placement.letterbox((40, 30)), placement.large_scale_jitter(40, (0.5, 2.5))])
def test_proposals_move_to_the_canvas_as_objects_do(placer):
    random = np.random.default_rng(1)
    corner = random.uniform(0, 50, (30, 2))
    boxes = np.concatenate([corner, corner + random.uniform(1, 30, (30, 2))], 1).clip(0, [60, 48] * 2)
    source = source_of(
        np.zeros((48, 60, 3), np.uint8), objects=annotations(boxes, np.ones(30)), proposed=boxes.astype(np.float32)
    )
    how = loading.loading(placer, 3, 0, "raise", target.objects(30), target.proposals(30))
    rows = loading.load(source, lambda positions: positions * 0, np.arange(6), how)
    assert_array_equal(rows.given.boxes, rows.target.boxes)
    assert_array_equal(rows.given.valid, rows.target.valid)
    assert rows.given.valid.sum(1).min() > 10
    few = loading.load(source, lambda positions: positions * 0, np.arange(6), how._replace(given=target.proposals(4)))
    assert_array_equal(few.given.boxes, rows.target.boxes[:, :4])
    assert few.given.valid.all()
    assert not rows.given.labels.any()


def test_pipelines_give_proposals_and_a_flip_moves_them():
    boxes = np.float32([[2, 3, 9, 7], [0, 0, 16, 12]])
    image = np.zeros((12, 16, 3), np.uint8)
    source = source_of(image, image, objects=annotations(boxes, [0, 1]), proposed=boxes)
    options = {"canvas": (14, 20), "batch_size": 3, "target": target.objects(2), "given": target.proposals(3)}
    batches = []
    for room in (arrays, resident):
        stream = room.training(lambda: source, order=order.shuffled(0), **options)
        tested = room.evaluation(lambda: source, **options)
        batches += [next(stream.batches(0)), next(tested.batches(0))]
        for batch, like in zip(batches[-2:], (stream.spec, tested.spec), strict=True):
            shapes = jax.tree.map(lambda x: (x.shape, x.dtype), batch)
            assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), like)
    jax.tree.map(assert_array_equal, batches[0], batches[2])
    jax.tree.map(assert_array_equal, batches[1], batches[3])
    given = batches[1].given
    assert given.valid.tolist() == [[True, True, False]] * 2 + [[False] * 3]
    assert_array_equal(given.boxes[0], [*boxes, [0, 0, 0, 0]])
    flipped = jax.jit(flip(1.0))(jax.random.key(0), jnp.int32(0), jax.tree.map(jnp.asarray, batches[1]))
    assert_array_equal(flipped.given.boxes[0, :2], [[7, 3, 14, 7], [0, 0, 16, 12]])


def test_a_source_without_proposals_and_no_rows_are_refused():
    how = loading.loading(placement.keep(16), 3, 0, "raise", target.objects(2), target.proposals(3))
    source = source_of(np.zeros((8, 8, 3), np.uint8), objects=annotations([], []))
    with pytest.raises(
        ValueError, match=r"image 0: it has no proposals, and nothing finds any: `find=data\.proposals\.finder"
    ):
        loading.load(source, lambda positions: positions, np.arange(1), how)
    with pytest.raises(ValueError, match=r"proposals\(rows=0\): allowed is 1 or more"):
        target.proposals(0)


def test_the_command_computes_them_and_prints_the_recall(drawn, tmp_path, capsys):
    path, cache = write_coco(tmp_path), tmp_path / "cache"
    command = [str(path), f"--cache={cache}", "--width=64", "--smallest=4"]
    assert proposals.main(command) == 0
    printed = capsys.readouterr().out
    assert "small.json: 4 images, " in printed
    assert " proposals each, 5 objects: recall " in printed
    files = {file: file.stat().st_mtime_ns for file in cache.rglob("*.npz")}
    assert len(files) == 4
    assert proposals.main(command) == 0
    assert capsys.readouterr().out == printed
    assert {file: file.stat().st_mtime_ns for file in cache.rglob("*.npz")} == files
    assert proposals.main([str(tmp_path / "none.json")]) == 2
    assert "there is no file or folder" in capsys.readouterr().err
    with pytest.raises(DataError, match="there is no file or folder"):
        proposals.main([str(tmp_path / "none.json"), "--traceback"])


def test_the_command_names_broken_images_and_leaves_them_out(drawn, tmp_path, capsys):
    path = write_coco(tmp_path)
    file = path.with_suffix("") / "003.png"
    file.write_bytes(file.read_bytes()[:-200])
    assert proposals.main([str(path), f"--cache={tmp_path / 'cache'}", "--width=64", "--smallest=4"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("left out 003.png: can't be decoded")
    assert "small.json: 3 images, " in printed
    assert " proposals each, 2 objects: recall " in printed


@pytest.mark.parametrize("write", [write_voc, write_yolo])
def test_the_command_takes_the_classes_of_a_folder_that_names_none(drawn, tmp_path, capsys, write):
    write(tmp_path)
    command = [str(tmp_path), f"--cache={tmp_path / 'cache'}", "--width=64", "--smallest=4"]
    assert proposals.main(command) == (0 if write is write_voc else 2)  # an XML file has names, a YOLO text numbers
    assert proposals.main([*command, f"--classes={','.join(CLASSES)}"]) == 0
    assert "objects: recall " in capsys.readouterr().out


def test_drawn_shapes_are_found(drawn, tmp_path):
    find = finder(Search(width=192, smallest=8), tmp_path)
    examples = synthetic.shapes(4, seed=0, size=96).read(np.arange(4))
    found = fit([find(each.image) for each in examples], [each.objects for each in examples], 200)  # type: ignore[misc]
    assert found.recall == 1
    assert found.mean_best_iou > 0.9
