import collections.abc
import itertools
import logging
import re
import weakref

import jax
import numpy as np
import pytest
from data_encoding import encoded, noise
from detection_files import write_coco
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.data import arrays, objects, order, placement, readers, resident, samples, streams, synthetic, target
from jaxvision.data.decode import decode
from jaxvision.data.source import Example, annotations
from jaxvision.formats.image_file import upright_size
from jaxvision.types import Labels

PLACERS = {
    "keep": placement.keep((64, 64)),
    "stretch": placement.stretch((48, 64)),
    "fit": placement.letterbox((48, 64)),
    "shortest side": placement.resize_shortest_edge(32, 50, 60),
    "centre crop": placement.resize_and_centre_crop(40, 32),
    "centre": placement.resize_and_centre_crop(50, (48, 40)),
    "padded": placement.letterbox((48, 64), fill=127, centred=True),
    "random crop": placement.random_resized_crop(32, area=(0.2, 1.0)),
    "jitter": placement.large_scale_jitter(48, (0.5, 2.0)),
}
side = st.integers(0, 400).map(lambda value: value / 8)
boxes = st.lists(st.tuples(side, side, side, side), max_size=6)


def row_of(form, example, where, canvas):
    """The row that one example fills."""
    rows = form.empty(1, canvas)
    told = form.fill(rows, 0, example, where)
    return jax.tree.map(lambda x: x[0], rows), told


def by_hand(corners, where):
    """The box on the canvas, side by side, or None if too little of it is left."""
    (left, top, right, bottom), (height, width), (across, down, rest_across, rest_down) = where
    x0, y0, x1, y1 = corners
    if x1 <= x0 or y1 <= y0:
        return None
    x = [(x - left) * width / (right - left) + across for x in (x0, x1)]
    y = [(y - top) * height / (bottom - top) + down for y in (y0, y1)]
    low = max(across, 0), max(down, 0)
    high = width + across + min(rest_across, 0), height + down + min(rest_down, 0)
    cut = [min(max(side, a), b) for side, a, b in zip((x[0], y[0], x[1], y[1]), low * 2, high * 2, strict=True)]
    whole = max(abs(a - b) for a, b in zip(cut, (x[0], y[0], x[1], y[1]), strict=True)) < 1e-3
    return cut if whole or (cut[2] - cut[0] >= 1 and cut[3] - cut[1] >= 1) else None


@settings(max_examples=30, deadline=None)
@given(boxes, st.sampled_from(sorted(PLACERS)), st.integers(0, 2**32 - 1), st.integers(1, 64), st.integers(1, 64))
def test_boxes_go_where_the_placer_puts_the_image(found, name, seed, height, width):
    placer = PLACERS[name]
    where = placer.place(np.random.default_rng(seed), (height, width))
    example = Example(b"", objects=annotations(np.reshape(found, (-1, 4)), np.arange(len(found))))
    row, told = row_of(target.objects(8), example, where, placer.canvas)
    expected = [(label, by_hand(box, where)) for label, box in enumerate(found)]
    expected = [(label, box) for label, box in expected if box is not None]
    assert told is None
    assert row.valid.tolist() == [True] * len(expected) + [False] * (8 - len(expected))
    np.testing.assert_allclose(row.boxes[row.valid], np.reshape([box for _, box in expected], (-1, 4)), atol=1e-3)
    assert row.labels[row.valid].tolist() == [label for label, _ in expected]
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (found[label] for label, _ in expected)]
    np.testing.assert_allclose(row.area[row.valid], areas, rtol=1e-6)
    for name in ("boxes", "labels", "ignore", "area"):
        assert not getattr(row, name)[~row.valid].any()


@pytest.mark.parametrize("name", sorted(PLACERS))
def test_boxes_and_masks_stay_around_the_pixels_that_they_were_around(name):
    image, corners = np.zeros((50, 60, 3), np.uint8), np.asarray([[8, 6, 30, 26], [34, 20, 52, 46]])
    masks = np.zeros((2, 50, 60), bool)
    for number, (x0, y0, x1, y1) in enumerate(corners):
        image[y0:y1, x0:x1, number] = 255
        masks[number, y0:y1, x0:x1] = True
    example = Example(image, objects=annotations(corners, [0, 1])._replace(masks=masks))
    for seed in range(12):
        placed = decode(image, PLACERS[name], np.random.default_rng(seed))
        row, _ = row_of(target.objects(2, masks="canvas"), example, placed.placement, PLACERS[name].canvas)
        for box, label, mask in zip(row.boxes[row.valid], row.labels[row.valid], row.masks[row.valid], strict=True):
            shown = placed.image[..., label] > 127
            assert (shown != mask).sum() <= 0.15 * max(shown.sum(), 30)
            if shown.sum() > 8:
                rows, columns = np.nonzero(shown)
                seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                np.testing.assert_allclose(box, seen, atol=1.5)
        gone = {0, 1} - set(row.labels[row.valid].tolist())
        assert all((placed.image[..., label] > 127).sum() <= 64 for label in gone)


def test_the_largest_stay_and_those_to_ignore_go_first():
    corners = [[0, 0, 9, 9], [0, 0, 4, 4], [0, 0, 6, 6], [0, 0, 8, 8]]
    found = annotations(corners, range(4), ignore=[True, False, False, False])
    where = placement.keep(64).place(None, (64, 64))
    row, told = row_of(target.objects(2), Example(b"", objects=found), where, (64, 64))
    assert row.labels.tolist() == [2, 3]
    assert told == "4 objects, but rows for 2: 2 left out; target.objects(4) holds them"


def test_weights_go_with_their_objects_and_are_1_where_the_source_has_none():
    found = annotations([[0, 0, 9, 9], [0, 0, 4, 4], [5, 5, 5, 9], [0, 0, 8, 8]], range(4))
    weighted = found._replace(weight=np.float32([0.1, 0.2, 0.3, 0.4]))
    where = placement.keep(64).place(None, (64, 64))
    row, _ = row_of(target.objects(2, weights=True), Example(b"", objects=weighted), where, (64, 64))
    assert row.labels.tolist() == [0, 3]
    np.testing.assert_array_equal(row.weight, np.float32([0.1, 0.4]))
    row, _ = row_of(target.objects(4, weights=True), Example(b"", objects=found), where, (64, 64))
    np.testing.assert_array_equal(row.weight, [1, 1, 1, 0])
    assert row_of(target.objects(4), Example(b"", objects=weighted), where, (64, 64))[0].weight is None


def test_what_has_no_objects_is_refused():
    where = placement.keep(4).place(None, (4, 4))
    with pytest.raises(ValueError, match="no objects, only labels"):
        row_of(target.objects(2), Example(b"", 1), where, (4, 4))
    with pytest.raises(ValueError, match="no masks of its objects"):
        row_of(target.objects(2, masks="canvas"), Example(b"", objects=annotations([], [])), where, (4, 4))
    with pytest.raises(ValueError, match=r"objects\(rows=0\): allowed is 1 or more"):
        target.objects(0)
    assert isinstance(target.LABELS.empty(3, (4, 4)), Labels)


TREES = samples.trees_dir()
FORM = target.objects(64)
LEFT_OUT = "3 objects, but rows for 2: 1 left out; target.objects(3) holds them"


def trees(split="train"):
    return objects.coco(TREES / f"{split}.json", TREES / split)


def take(stream, count):
    batches = stream.batches(0)
    taken = [jax.tree.map(np.asarray, batch) for batch in itertools.islice(batches, count)]
    batches.close()
    return taken


def test_every_pipeline_gives_the_same_boxes_and_they_are_those_of_the_file():
    options = {"order": order.shuffled(3), "batch_size": 24, "target": FORM}
    readings = [
        streams.training(trees, placer=placement.keep(256), **options),
        arrays.training(trees, canvas=256, **options),
        resident.training(trees, canvas=256, **options),
    ]
    first, *others = [take(stream, 3) for stream in readings]
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, first, other)
    found = trees().objects()
    indices = np.concatenate([batch.index for batch in first])
    assert sorted(indices) == list(range(72))
    for batch in first:
        for row, index in enumerate(batch.index):
            valid = batch.target.valid[row]
            np.testing.assert_array_equal(batch.target.boxes[row][valid], found[index].boxes)
            np.testing.assert_array_equal(batch.target.labels[row][valid], found[index].labels)
    assert sum(batch.target.valid.sum() for batch in first) == 481
    spec = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), first[0])
    assert all(stream.spec == spec for stream in readings)


def test_a_program_is_compiled_once_for_any_number_of_objects():
    compiled = []

    @jax.jit
    def count(batch):
        compiled.append(batch.image.shape)
        return batch.target.valid.sum()

    stream = arrays.evaluation(trees, canvas=256, batch_size=10, target=FORM)
    counts = [int(count(batch)) for batch in stream.batches(0)]
    assert (sum(counts), len(set(counts)) > 3, len(compiled)) == (481, True, 1)


@pytest.mark.parametrize("room", [streams, arrays, resident])
def test_more_objects_than_rows_are_told_in_training_and_end_an_evaluation(room, caplog, monkeypatch, tmp_path):
    path = write_coco(tmp_path)
    make = lambda: objects.coco(path, path.with_suffix(""))
    place = {"placer": placement.keep(64)} if room is streams else {"canvas": 64}
    options = {"batch_size": 4, "target": target.objects(2), **place}
    monkeypatch.setattr("jaxvision.data.loading._reported", set())
    with caplog.at_level(logging.WARNING, "jaxvision.data.loading"):
        batches = take(room.training(make, order=order.sequential(), **options), 3)
    assert batches[2].target.valid.sum(1).tolist() == [2, 1, 0, 2]
    assert [record.getMessage() for record in caplog.records] == [f"003.png: {LEFT_OUT}"]
    with pytest.raises(ValueError, match=rf"^003\.png: {re.escape(LEFT_OUT)}$"):
        take(room.evaluation(make, **options), 1)
    faults = room.evaluation(make, **options).faults(range(4))
    assert [(fault.text, fault.skipped) for fault in faults] == [(f"003.png: {LEFT_OUT}", False)]


def test_an_unreadable_image_is_skipped_with_its_objects(tmp_path):
    path = write_coco(tmp_path)
    (path.with_suffix("") / "001.png").write_bytes(encoded(noise(64, 64, 3))[:60])
    make = lambda: objects.coco(path, path.with_suffix(""))
    stream = arrays.evaluation(make, canvas=64, batch_size=4, target=target.objects(4), on_bad_image="skip")
    (batch,) = take(stream, 1)
    assert batch.valid.tolist() == [True, False, True, True]
    assert batch.target.valid.sum(1).tolist() == [2, 0, 0, 3]
    assert upright_size(path.with_suffix("") / "000.png") == (40, 60)


def test_an_image_of_another_size_than_stated_is_skipped_or_ends_it_as_chosen(tmp_path, caplog):
    path = write_coco(tmp_path)
    (path.with_suffix("") / "001.png").write_bytes(encoded(noise(64, 48, 3)))
    options = {"canvas": 64, "batch_size": 4, "target": target.objects(4)}
    make = lambda: objects.coco(path, path.with_suffix(""))
    with caplog.at_level(logging.WARNING):
        (batch,) = take(arrays.evaluation(make, on_bad_image="skip", **options), 1)
    assert batch.valid.tolist() == [True, False, True, True]
    assert "001.png is 64x64 here, and 48x64 in its file" in caplog.text
    stream = arrays.evaluation(make, **options)
    with pytest.raises(ValueError, match=r"001\.png: .* is 64x64 here"):
        take(stream, 1)
    (fault,) = stream.faults([0, 1, 2, 3])
    assert "64x64 here" in fault.text
    assert not fault.skipped


def masked(mask):
    """One object, and the smallest box around it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    found = annotations([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], [0])
    return Example(b"", objects=found._replace(masks=mask[None]))


def an_l(side=60):
    mask = np.zeros((side, side), bool)
    mask[5:55, 5:15] = mask[45:55, 5:55] = True
    return mask


def test_an_object_that_the_border_cut_has_the_box_of_what_its_mask_shows():
    row, _ = row_of(
        target.objects(1, masks="canvas"), masked(an_l()), placement.Placement((0, 30, 60, 60), (30, 60)), (40, 60)
    )
    assert row.valid.tolist() == [True]
    assert row.boxes.tolist() == [[5, 0, 55, 25]]
    np.testing.assert_array_equal(row.masks[0, :30], an_l()[30:])
    assert not row.masks[0, 30:].any()
    where = placement.Placement((10, 5, 60, 45), (40, 50))
    row, _ = row_of(target.objects(1, masks="canvas"), masked(an_l()), where, (40, 50))
    assert row.boxes.tolist() == [[0, 0, 5, 40]], "not the 45 pixels of its box"


def test_an_object_whose_mask_is_cut_away_whole_is_not_there():
    where = placement.Placement((20, 0, 60, 40), (40, 40))
    row, told = row_of(target.objects(1, masks="canvas"), masked(an_l()), where, (40, 40))
    assert not row.valid.any()
    assert not row.masks.any()
    assert told is None
    assert row_of(target.objects(1), masked(an_l()), where, (40, 40))[0].valid.all(), "its box is there"


def test_a_thin_object_keeps_a_mask_when_it_shrinks():
    for column in range(20, 30):
        mask = np.zeros((80, 80), bool)
        mask[10:70, column] = True
        row, _ = row_of(
            target.objects(1, masks="canvas"), masked(mask), placement.letterbox(20).place(None, (80, 80)), (20, 20)
        )
        assert row.valid.all()
        assert set(np.nonzero(row.masks[0])[1]) == {column // 4}


def test_a_mask_smaller_than_its_image_is_refused():
    where = placement.keep(80).place(None, (60, 70))
    with pytest.raises(ValueError, match="a mask is 60 x 60 pixels"):
        row_of(target.objects(1, masks="canvas"), masked(an_l()), where, (80, 80))


def drawn(count=4, seed=0):
    return synthetic.shapes(count, seed=seed, size=96, classes=synthetic.SHAPES).read(np.arange(count))


def in_canvas(cut, canvas):
    """Masks of the canvas from cut ones, by hand: each pixel is of the cell that its centre lies in."""
    y, x = (np.arange(side) + 0.5 for side in canvas)
    cells = np.unpackbits(cut.bits, axis=-1).astype(bool)
    side = cells.shape[-1]
    found = np.zeros((len(cells), *canvas), bool)
    for mask, grid, (x0, y0, x1, y1) in zip(found, cells, cut.frames, strict=True):
        if x1 > x0:
            axes = (y, y0, y1), (x, x0, x1)
            rows, columns = (np.floor((at - low) / (high - low) * side).astype(int) for at, low, high in axes)
            inside = ((rows >= 0) & (rows < side))[:, None] & ((columns >= 0) & (columns < side))[None]
            mask[:] = inside & grid[rows.clip(0, side - 1)[:, None], columns.clip(0, side - 1)[None]]
    return found


@pytest.mark.parametrize("name", sorted(PLACERS))
def test_masks_as_bits_are_those_of_the_canvas(name):
    placer = placement.keep((96, 99)) if name == "keep" else PLACERS[name]
    for seed, example in enumerate(drawn()):
        where, canvas = placer.place(np.random.default_rng(seed), (96, 96)), placer.canvas
        whole, _ = row_of(target.objects(8, masks="canvas"), example, where, canvas)
        packed, _ = row_of(target.objects(8, masks="bits"), example, where, canvas)
        bits = np.unpackbits(packed.masks.bits, axis=-1, count=packed.masks.width)
        np.testing.assert_array_equal(bits.astype(bool), whole.masks)
        assert packed.masks.bits.shape[-1] == -(-canvas[1] // 8)
        for field in ("boxes", "labels", "valid", "ignore", "area"):
            np.testing.assert_array_equal(getattr(packed, field), getattr(whole, field))


@pytest.mark.parametrize("name", sorted(PLACERS))
def test_cut_masks_cover_the_whole_object_wherever_the_canvas_ends(name):
    placer = placement.keep((96, 99)) if name == "keep" else PLACERS[name]
    shown, ious = 0, []
    for seed, example in enumerate(drawn(8)):
        where, canvas = placer.place(np.random.default_rng(seed), (96, 96)), placer.canvas
        whole, _ = row_of(target.objects(8, masks="canvas"), example, where, canvas)
        cut, _ = row_of(target.objects(8, masks=56), example, where, canvas)
        for field in ("boxes", "labels", "valid", "ignore", "area"):
            np.testing.assert_array_equal(getattr(cut, field), getattr(whole, field))
        inside = np.zeros(canvas, bool)
        inside[where.spot] = True
        found = in_canvas(cut.masks, canvas) & inside
        for mask, expected in zip(found[whole.valid], whole.masks[whole.valid], strict=True):
            shown += 1
            ious.append((mask & expected).sum() / (mask | expected).sum())
        scale = np.asarray(
            [where.size[1] / (where.box[2] - where.box[0]), where.size[0] / (where.box[3] - where.box[1])] * 2
        )
        boxes = (example.objects.boxes - [*where.box[:2], *where.box[:2]]) * scale + [
            *where.padding[:2],
            *where.padding[:2],
        ]
        kept = [number for number in range(len(boxes)) if np.abs(cut.masks.frames - boxes[number]).max(1).min() < 1e-3]
        assert len(kept) >= whole.valid.sum()
        assert not cut.masks.frames[~cut.valid].any()
    assert shown > 8
    assert np.mean(ious) > 0.9  # where an image is halved, centres lie between pixels


def test_what_masks_may_be_is_told():
    for wrong in (True, 12, 0, -8, "bit"):
        with pytest.raises(ValueError, match=rf'masks={wrong!r}: allowed are "canvas", "bits", the side of a grid'):
            target.objects(2, masks=wrong)


@pytest.mark.parametrize("masks", ["canvas", "bits", 32])
def test_masks_go_through_every_reader_and_padding_has_none(masks):
    make = lambda: synthetic.shapes(5, seed=0, size=64)
    options = {"placer": placement.letterbox((40, 44)), "batch_size": 4, "target": target.objects(8, masks=masks)}
    readings = [
        streams.evaluation(make, reader=each, **options)
        for each in (readers.threads(2), readers.tf_data(2), resident.reader())
    ]
    first, *others = (take(each, 2) for each in readings)
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, first, other)
    spec = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), first[0])
    assert all(each.spec == spec for each in readings)
    last = first[1]
    assert last.valid.tolist() == [True, False, False, False]
    for leaf in jax.tree.leaves(last.target.masks):
        assert leaf[0].any()
        assert not leaf[1:].any()


def test_one_mask_of_a_source_is_there_at_a_time():
    alive, most = weakref.WeakSet(), []

    class Made(collections.abc.Sequence):
        def __len__(self):
            return 30

        def __getitem__(self, index):
            mask = np.zeros((200, 300), bool).view(Counted)
            mask[index * 5 : index * 5 + 9, 20:60] = True
            alive.add(mask)
            most.append(len(alive))
            return mask

    class Counted(np.ndarray):
        __hash__ = object.__hash__

    boxes = [[20, index * 5, 60, index * 5 + 9] for index in range(30)]
    found = annotations(boxes, np.zeros(30))._replace(masks=Made())
    where = placement.letterbox(64).place(None, (200, 300))
    row, _ = row_of(target.objects(30, masks="bits"), Example(b"", objects=found), where, (64, 64))
    assert row.valid.all()
    assert max(most) <= 2
