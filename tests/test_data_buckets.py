import itertools

import jax
import numpy as np
import pytest
from detection_files import SIZES, write_coco

from jaxvision.data import buckets, objects, order, placement, streams, target
from jaxvision.data.randomness import Purpose, permutation
from jaxvision.data.readers import threads
from jaxvision.data.source import concatenate
from jaxvision.data.subset import subset
from jaxvision.types import Shard

WIDE, TALL, SQUARE = (32, 48), (40, 24), (40, 40)
CANVASES = (WIDE, TALL, SQUARE)
BUCKET = [0, 2, 1, 0]
"""Of the images of 40x60, 64x64, 50x30 and 32x48 pixels."""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = write_coco(tmp_path_factory.mktemp("coco"))
    return lambda: objects.coco(path, path.with_suffix(""))


def stream_of(small, seed=5, **options):
    placers = [placement.letterbox(canvas) for canvas in CANVASES]
    return buckets.training(
        small,
        order=order.shuffled(1),
        placers=placers,
        batch_size=3,
        seed=seed,
        target=target.objects(4),
        reader=threads(1),
        **options,
    )


def take(stream, start, count, shard=Shard()):  # noqa: B008
    batches = stream.batches(start, shard)
    taken = [jax.tree.map(np.asarray, batch) for batch in itertools.islice(batches, count)]
    batches.close()
    return taken


def test_batches_are_those_of_each_canvas_alone(small):
    stream = stream_of(small)
    found = take(stream, 0, 12)
    canvases = [batch.image.shape[1:3] for batch in found]
    for k, canvas in enumerate(CANVASES):
        members = np.flatnonzero(np.array(BUCKET) == k)
        alone = streams.training(
            lambda members=members: subset(small(), members),
            order=order.shuffled(1),
            placer=placement.letterbox(canvas),
            batch_size=3,
            target=target.objects(4),
            reader=threads(1),
        )
        mine = [batch for batch, shape in zip(found, canvases, strict=True) if shape == canvas]
        assert len(mine) == 3 * len(members)  # of every four steps, as many as it has images
        for batch, expected in zip(mine, take(alone, 0, len(mine)), strict=True):
            expected = expected.replace(index=members[expected.index].astype(np.int32))
            jax.tree.map(np.testing.assert_array_equal, batch, expected)
    assert canvases[0] == SQUARE  # the largest
    assert stream.spec.image.shape == (3, *SQUARE, 3)
    drawn = np.concatenate([batch.index for batch in found])
    np.testing.assert_array_equal(np.bincount(drawn), [9, 9, 9, 9])


def test_a_batch_is_a_function_of_seed_step_and_shard(small):
    found = take(stream_of(small), 0, 9)
    for one, other in zip(take(stream_of(small), 5, 4), found[5:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    for one, other in zip(take(stream_of(small), 2, 4, Shard(1, 3)), found[2:6], strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[1:2]), one, other)
    shapes = lambda seed: [batch.image.shape for batch in take(stream_of(small, seed), 0, 12)]
    assert len({tuple(shapes(seed)) for seed in range(4)}) > 1


def test_turns_are_drawn_without_bias_and_counted():
    bucket = np.repeat([0, 1, 2], [5, 1, 4])
    turn = buckets.turn_of(bucket, seed=7, first=1)
    turns = [turn(step) for step in range(50)]
    assert turns[0].bucket == 1
    seen = [0, 0, 0]
    for number, (which, step) in enumerate(turns):
        assert step == seen[which]
        seen[which] += 1
        if number >= 10:
            drawn = permutation(7, Purpose.INTERLEAVE, number // 10, 10)
            assert which == bucket[drawn[number % 10]]
    assert seen == [25, 5, 20]


def test_the_step_is_compiled_once_for_each_canvas(small):
    compiled = []

    @jax.jit
    def step(batch):
        compiled.append(batch.image.shape)
        return batch.image.sum()

    for batch in take(stream_of(small), 0, 12):
        step(batch)
    assert len(compiled) == 3


def test_an_evaluation_has_every_example_once_as_the_pipeline_of_its_canvas_has_it(small):
    placers = [placement.letterbox(canvas) for canvas in CANVASES]
    options = {"batch_size": 3, "target": target.objects(4), "reader": threads(1)}
    stream = buckets.evaluation(small, placers=placers, **options)
    found = take(stream, 0, 9)
    assert [batch.image.shape[1:3] for batch in found] == [WIDE, TALL, SQUARE]
    assert [batch.index[batch.valid].tolist() for batch in found] == [[0, 3], [2], [1]]
    for k, batch in enumerate(found):
        whole = take(streams.evaluation(small, placer=placers[k], **options | {"batch_size": 4}), 0, 1)[0]
        for row in np.flatnonzero(batch.valid):
            jax.tree.map(
                lambda x, y, row=row, at=batch.index[row]: np.testing.assert_array_equal(x[row], y[at]), batch, whole
            )
    (last,) = take(stream, 2, 9)
    jax.tree.map(np.testing.assert_array_equal, last, found[2])
    for part, batch in zip(take(stream, 1, 9, Shard(2, 3)), found[1:], strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[2:3]), part, batch)
    assert stream.spec.image.shape == (3, *SQUARE, 3)
    assert stream.about().examples == 4
    assert stream.faults(range(4)) == []
    assert stream.decode(np.zeros((10, 15, 3), np.uint8)).image.shape == (*WIDE, 3)
    assert stream.decode(np.zeros((90, 40, 3), np.uint8)).size == (40, 18)


def test_an_evaluation_may_have_a_canvas_that_no_image_uses(small):
    placers = [placement.letterbox((8, 9)), placement.letterbox((8, 900))]
    found = take(buckets.evaluation(small, placers=placers, batch_size=3, reader=threads(1)), 0, 9)
    assert np.concatenate([batch.index for batch in found]).tolist() == [0, 1, 2, 3, -1, -1]
    with pytest.raises(ValueError, match="that differ"):
        buckets.evaluation(small, placers=placers[:1], batch_size=3)


def test_sizes_are_known_or_read(small):
    source = small()
    for known in (source, source._replace(sizes=None)):
        np.testing.assert_array_equal(buckets.image_sizes(known), SIZES)
    part, both = subset(source, [3, 1]), concatenate(source, source)
    np.testing.assert_array_equal(buckets.image_sizes(part), [SIZES[3], SIZES[1]])
    np.testing.assert_array_equal(buckets.image_sizes(both), SIZES * 2)
    assert part.sizes is not None
    assert both.sizes is not None
    np.testing.assert_array_equal(buckets.nearest_canvas(np.asarray(SIZES), CANVASES), BUCKET)


def test_faults_are_found_in_every_bucket(small):
    stream = stream_of(small)
    assert stream.about().examples == 4
    assert stream.decode is None
    assert stream.faults(range(4)) == []


def test_what_can_not_be_is_refused(small):
    fit = placement.letterbox
    options = {"order": order.shuffled(0), "batch_size": 2, "reader": threads(1)}
    with pytest.raises(ValueError, match=r"two canvases or more that differ, got \[\(8, 9\)\]"):
        buckets.training(small, placers=[fit((8, 9))], **options)
    with pytest.raises(ValueError, match="that differ"):
        buckets.training(small, placers=[fit(8), fit(8)], **options)
    stream = buckets.training(small, placers=[fit((8, 9)), fit((8, 900))], **options)
    with pytest.raises(ValueError, match=r"no image is nearest to the canvas 8x900 \(height x width\): leave it out"):
        next(stream.batches(0))
