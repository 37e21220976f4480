"""Large images in tiles: what is put together is what the whole image gives."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detectors import variables_of
from numpy.testing import assert_allclose, assert_array_equal

from jaxvision.data import placement
from jaxvision.data.decode import decode, pixels_of
from jaxvision.errors import ConfigError
from jaxvision.masks import paste, runs
from jaxvision.ops import boxes as box_ops
from jaxvision.run import prediction, tiles
from jaxvision.run.tiles import Tiling, checked
from jaxvision.tasks.unet import UNet, unet
from jaxvision.types import BoxMasks, ClassScores, Detections, PixelScores


def on_canvas(placer):
    return lambda pixels: decode(pixels, placer).canvas


def predictor(predict, rows=2):
    """From canvases to predictions, `rows` at a time, by a jitted function of a batch."""
    jitted = jax.jit(predict)

    def run(canvases):
        for group in prediction.alike(((None, each) for each in canvases), rows):
            shown = [canvas for _, canvas in group]
            height, width, channels = shown[0].image.shape
            spec = prediction.loading.as_batch(prediction.loading.empty_rows(rows, (height, width), channels))
            found = jax.device_get(jitted(prediction.batch_of(shown, spec.replace(target=None), 0)))
            yield from ((canvas, jax.tree.map(lambda x: x[row], found)) for row, canvas in enumerate(shown))  # noqa: B023

    return run, jitted


@pytest.mark.parametrize("extent", [1, 63, 64, 65, 100, 129, 500, 3000])
@pytest.mark.parametrize(("size", "overlap"), [(64, 0), (64, 16), (96, 40), (256, 100)])
def test_tiles_cover_a_side_and_their_weights_sum_to_one(extent, size, overlap):
    tiling = checked(size, overlap)
    starts = tiles.starts(extent, tiling)
    assert starts == sorted(set(starts))
    assert all(start % 32 == 0 for start in starts)
    assert starts[-1] + size >= extent > starts[-1]
    assert starts[-1] + size < extent + 32 or len(starts) == 1
    assert all(first + size - second >= overlap for first, second in pairwise(starts))
    found, total = tiles.weights(starts, tiling, extent), np.zeros(extent)
    for start, weight in found.items():
        assert weight.min() >= 0
        total[start : start + size] += weight
        if overlap and start > 0:
            assert_array_equal(weight[: (tiling.size - tiling.step) * 3 // 8], 0)
    assert_allclose(total, 1)


@pytest.mark.parametrize(("size", "overlap"), [(20, 0), (64, 40), (512, 481), (512, -1)])
def test_tiles_that_do_not_get_on_are_refused(size, overlap):
    with pytest.raises(ConfigError, match=f"tiles of {size} pixels that overlap by {overlap}: allowed are"):
        checked(size, overlap)
    assert checked(512) == Tiling(512, 128)


@pytest.fixture(scope="module")
def small():
    task = unet(UNet(3, width=4, depth=2))
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    canvas = decode(image, placement.keep(64)).canvas
    spec = prediction.loading.as_batch(prediction.loading.empty_rows(1, (64, 64), 3)).replace(target=None)
    return task, variables_of(task, prediction.batch_of([canvas], spec, 0))


@pytest.mark.parametrize("shape", [(210, 333), (96, 97), (50, 300), (33, 40)])
def test_a_u_net_gives_in_tiles_what_it_gives_for_the_whole(small, shape):
    task, variables = small
    image = np.random.default_rng(1).integers(0, 255, (*shape, 3), np.uint8)
    run, jitted = predictor(lambda batch: task.predict(variables, batch))
    found = tiles.tiled(run, on_canvas(placement.keep(128)), checked(128, 64))(image)
    assert jitted._cache_size() == 1
    whole = predictor(lambda batch: task.predict(variables, batch), 1)[0]
    ((_, expected),) = whole([decode(image, placement.keep(shape)).canvas])
    assert found.logits.shape == expected.logits.shape == (*shape, 3)
    assert_allclose(found.logits, expected.logits, atol=1e-5 * np.abs(expected.logits).max())


def coordinates(batch):
    """Scores that are the coordinates of the content by its size, on a map half as fine as the canvas."""
    height, width = (side // 2 for side in batch.image.shape[1:3])
    y, x = jnp.mgrid[:height, :width].astype(jnp.float32) + 0.5
    bright = batch.image[:, ::2, ::2].mean(-1)
    return PixelScores(jnp.stack([jnp.broadcast_to(each[None], bright.shape) for each in (y, x)] + [bright], -1))


def test_scores_are_resized_to_the_pixels_of_the_image():
    """A ramp of brightness comes back though each tile is made smaller for its canvas, and its map smaller still."""
    ramp = np.broadcast_to(np.linspace(0, 250, 300)[None, :, None], (130, 300, 3))
    run, _ = predictor(coordinates)
    found = tiles.tiled(run, on_canvas(placement.stretch(64)), checked(96, 32))(ramp.astype(np.uint8))
    assert found.logits.shape == (130, 300, 3)
    assert_allclose(found.logits[:, 3:-3, 2], ramp[:, 3:-3, 0], atol=4)


@pytest.mark.parametrize(
    "placer",
    [placement.letterbox(64), placement.stretch((48, 64)), placement.letterbox((80, 64), fill=127, centred=True)],
    ids=["letterbox", "stretch", "centred"],
)
def test_a_tile_knows_its_place_in_the_image(placer):
    image = np.random.default_rng(0).integers(0, 255, (150, 170, 3), np.uint8)
    tiling = checked(96, 32)
    for corner in ((0, 0), (0, 96), (64, 64), (64, 96)):
        canvas = tiles._placed(image, corner, tiling, on_canvas(placer))
        (across, down), (x, y) = canvas.to_file()
        expected = decode(image[corner[0] : corner[0] + 96, corner[1] : corner[1] + 96], placement.keep(96)).canvas
        height, width = expected.size
        assert canvas.original_size == (150, 170)
        assert canvas.image.shape[:2] == placer.canvas
        whole = on_canvas(placer)(np.zeros((96, 96, 3), np.uint8))
        assert_allclose((across, down), whole.to_file()[0])
        assert_allclose((x, y), np.add(whole.to_file()[1], corner[::-1]))
        if placer.fill == 0:
            bottom, right = canvas.size[0] * down + y, canvas.size[1] * across + x
            assert abs(bottom - corner[0] - height) <= 0.5 * down
            assert abs(right - corner[1] - width) <= 0.5 * across


def bright_objects(batch):
    """The box and the mask of what is bright in each channel of each image, as a detector would give them."""

    def one(image):
        on = image > 145
        rows, columns = on.any(1), on.any(0)
        low = [jnp.argmax(columns, 0), jnp.argmax(rows, 0)]
        high = [on.shape[1] - jnp.argmax(columns[::-1], 0), on.shape[0] - jnp.argmax(rows[::-1], 0)]
        boxes = jnp.stack([*low, *high], -1).astype(jnp.float32)
        at = (jnp.arange(28) + 0.5) / 28

        def grid(channel, box):
            x, y = (box[axis] + at * (box[2 + axis] - box[axis]) for axis in (0, 1))
            return channel[y.astype(int)][:, x.astype(int)].astype(jnp.float32)

        return boxes, on.any((0, 1)), jax.vmap(grid, (2, 0))(on, boxes)

    boxes, valid, grids = jax.vmap(one)(jnp.asarray(batch.image))
    labels = jnp.broadcast_to(jnp.arange(3)[None], valid.shape)
    scores = jnp.where(valid, 0.9, 0.0)
    return Detections(boxes, labels, scores, valid, BoxMasks(grids, boxes))


def scene(seed, shape=(260, 300)):
    """A dark image with a bright rectangle in each channel, and their boxes."""
    rng, image, boxes = np.random.default_rng(seed), np.zeros((*shape, 3), np.uint8), []
    for channel in range(3):
        height, width = rng.integers(20, 60, 2)
        y, x = (int(rng.integers(0, side - length)) for side, length in zip(shape, (height, width), strict=True))
        image[y : y + height, x : x + width, channel] = 250
        boxes.append([x, y, x + width, y + height])
    return image, np.array(boxes, np.float32)


@pytest.mark.parametrize("seed", range(12))
def test_objects_are_found_once_with_their_masks(seed):
    image, expected = scene(seed)
    run, jitted = predictor(bright_objects)
    found = tiles.tiled(run, on_canvas(placement.keep(96)), checked(96, 64), 0.5)(image)
    assert jitted._cache_size() == 1
    assert sorted(found.labels.tolist()) == [0, 1, 2]
    order = np.argsort(found.labels)
    assert_array_equal(found.boxes[order], expected)
    canvas = tiles.whole(image)
    masks = list(paste.run_lengths(found.masks, order, canvas))
    for channel, mask in enumerate(masks):
        ours, truth = runs.decode(mask), image[..., channel] > 145
        assert np.count_nonzero(ours & truth) / np.count_nonzero(ours | truth) > 0.9


def test_objects_below_the_threshold_and_none_at_all():
    run, _ = predictor(bright_objects)
    for image in (np.zeros((150, 200, 3), np.uint8), scene(0)[0]):
        found = tiles.tiled(run, on_canvas(placement.keep(96)), checked(96), 0.95)(image)
        assert found.boxes.shape == (0, 4)
        assert (len(found.labels), len(found.masks)) == (0, 0)


def test_other_predictions_are_refused():
    run, _ = predictor(lambda batch: ClassScores(jnp.zeros((len(batch.image), 3))))
    with pytest.raises(
        ConfigError, match="type ClassScores can't be put together from tiles; those of type PixelScores"
    ):
        tiles.tiled(run, on_canvas(placement.keep(64)), checked(64))(np.zeros((80, 80, 3), np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_of_a_file_are_those_of_decoding(tmp_path, mode):
    from PIL import Image

    shape = (20, 30, 3) if mode == "RGB" else (20, 30)
    pixels = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=Image.Exif())
    data = (tmp_path / "a.png").read_bytes()
    assert_array_equal(pixels_of(data), pixels)
    assert_array_equal(pixels_of(pixels), pixels)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=image.getexif())
    assert_array_equal(pixels_of((tmp_path / "turned.png").read_bytes()), np.rot90(pixels, -1))


MEMORY = """
import resource, sys
import jax, numpy as np
from jaxvision.data import placement
from jaxvision.data.decode import decode
from jaxvision.run import tiles
from detectors import variables_of
from test_run_tiles import on_canvas, predictor
from jaxvision.tasks.unet import UNet, unet
from jaxvision.run import prediction
task = unet(UNet(2, width=8, depth=4))
spec = prediction.loading.as_batch(prediction.loading.empty_rows(1, (512, 512), 3)).replace(target=None)
variables = variables_of(task, jax.tree.map(lambda x: x, spec))
run, _ = predictor(lambda batch: task.predict(variables, batch), 1)
side = int(sys.argv[1])
image = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
found = tiles.tiled(run, on_canvas(placement.keep(512)), tiles.checked(512, 224))(image)
assert found.logits.shape == (side, side, 2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_hardly_grows_with_the_image(optimised):
    peaks = {}
    for side in (1000, 3000):
        command = [sys.executable, "-c", MEMORY, str(side)]
        done = subprocess.run(command, env=optimised, cwd=Path(__file__).parent, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        peaks[side] = int(done.stdout.split()[-1]) / 1000
    print(json.dumps(peaks))
    assert peaks[3000] - peaks[1000] < 300


@pytest.mark.slow
def test_the_papers_depth_at_3000_pixels():
    """Four scales, an overlap of 224 pixels, 2 x 92 being the margins of the network."""
    task = unet(UNet(2, width=4, depth=4))
    spec = prediction.loading.as_batch(prediction.loading.empty_rows(1, (64, 64), 3)).replace(target=None)
    variables = variables_of(task, spec)
    image = np.random.default_rng(1).integers(0, 255, (3000, 3000, 3), np.uint8)
    run, _ = predictor(lambda batch: task.predict(variables, batch), 1)
    found = tiles.tiled(run, on_canvas(placement.keep(768)), checked(768, 224))(image)
    ((_, expected),) = run([decode(image, placement.keep(3000)).canvas])
    assert_allclose(found.logits, expected.logits, atol=1e-5 * np.abs(expected.logits).max())


def test_boxes_of_tiles_do_not_overlap_each_other():
    """Whole scenes of many seeds: no two boxes of one class overlap by half."""
    run, _ = predictor(bright_objects)
    for seed in range(20, 26):
        found = tiles.tiled(run, on_canvas(placement.letterbox(64)), checked(96, 32), 0.5)(scene(seed)[0])
        for label in set(found.labels.tolist()):
            boxes = jnp.asarray(found.boxes[found.labels == label])
            overlaps = np.asarray(box_ops.pairwise(box_ops.iou, boxes, boxes))
            assert (overlaps - np.eye(len(boxes)) < 0.5).all()
