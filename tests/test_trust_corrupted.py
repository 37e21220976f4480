"""Corrupted streams: pure, the same on any number of processes; and the figures, against plain loops."""

import math

import jax
import numpy as np
import pytest

from jaxvision.data import arrays, placement, streams
from jaxvision.errors import ConfigError, DataError
from jaxvision.trust import corruption_error
from jaxvision.trust.corrupted import corrupted, example
from jaxvision.trust.corruption_error import ALEXNET
from jaxvision.trust.corruptions import COMMON, NAMES, choose, corrupt, generator
from jaxvision.types import WHOLE, Shard

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 20, 40, 3), np.uint8)


def stream(batch_size=4, canvas=40, images=IMAGES, place=placement.letterbox):
    """Ten images of 20x40 pixels on a larger canvas; the last batch is padded."""
    source = arrays.source(images, np.arange(len(images)) % 3, ("a", "b", "c"))
    return streams.evaluation(lambda: source, placer=place(canvas), batch_size=batch_size)


def read(of, shard=WHOLE):
    return list(of.batches(0, shard))


def rows(batches):
    """Images by index."""
    pairs = (
        (int(i), image) for b in batches for i, v, image in zip(b.index, b.valid, np.asarray(b.image), strict=True) if v
    )
    return dict(pairs)


@pytest.mark.parametrize(
    "name", ["gaussian_noise", "shot_noise", "glass_blur", "motion_blur", "fog", "elastic_transform"]
)
def test_an_image_depends_on_seed_index_name_and_severity_alone(name):
    found = rows(read(corrupted(stream(4), name, 3, seed=5)))
    assert len(found) == 10
    again = rows(read(corrupted(stream(10), name, 3, seed=5)))
    shards = [rows(read(corrupted(stream(4), name, 3, seed=5), Shard(i, 2))) for i in (0, 1)]
    assert not set(shards[0]) & set(shards[1])
    for other in (again, shards[0] | shards[1]):
        assert found.keys() == other.keys()
        assert all((found[index] == other[index]).all() for index in found)
    chosen = choose(name, 3, "cifar")
    for index, image in found.items():
        content = corrupt(IMAGES[index], chosen, generator(5, index, name, 3))
        assert (image[:20] == content).all()


def test_other_seeds_examples_names_and_severities_have_other_random_numbers():
    keys = [
        (seed, index, name, severity)
        for seed in (0, 1)
        for index in (0, 1)
        for name in NAMES[:2]
        for severity in (1, 2)
    ]
    first = {generator(seed, index, name, severity).random() for seed, index, name, severity in keys}
    assert len(first) == len(keys)


def test_only_the_content_of_valid_rows_changes():
    clean = read(stream())
    for before, after in zip(clean, read(corrupted(stream(), "contrast", 5)), strict=True):
        assert (after.image[:, 20:] == before.image[:, 20:]).all()
        changed = (np.asarray(after.image) != before.image).any((1, 2, 3))
        assert (changed == before.valid).all()
        assert jax.tree.all(
            jax.tree.map(lambda a, b: (np.asarray(a) == b).all(), after.replace(image=0), before.replace(image=0))
        )


def test_a_corrupted_stream_says_what_the_stream_says_but_takes_no_other_images():
    clean = stream()
    shown = corrupted(clean, "fog", 1)
    assert shown.spec == clean.spec
    assert shown.about().fingerprint == clean.about().fingerprint
    assert shown.decode is None


def test_constants_go_by_the_canvas_unless_asked_for():
    large = np.repeat(np.repeat(IMAGES[:2], 4, 1), 4, 2)
    for canvas, family in ((63, "cifar"), (64, "imagenet")):
        chosen = choose("contrast", 2, family)
        (found,) = read(corrupted(stream(2, canvas, large), "contrast", 2))
        (before,) = read(stream(2, canvas, large))
        height, width = before.size[0]
        wanted = corrupt(before.image[0, :height, :width], chosen, generator(0, 0, "contrast", 2))
        assert (found.image[0, :height, :width] == wanted).all()


def test_an_image_that_is_too_small_is_named():
    with pytest.raises(DataError, match=r"^arrays\[0\]: fog can't corrupt an image of 14x28 pixels: .* at least 16$"):
        read(corrupted(stream(canvas=28), "fog", 1))
    with pytest.raises(
        DataError, match=r"fog can't corrupt an image of 20x40 pixels: .* at least 32 \(16 with those of CIFAR"
    ):
        read(corrupted(stream(), "fog", 1, family="imagenet"))


def test_wrong_arguments_are_refused_before_any_data_is_read():
    closed = stream()._replace(batches=None, about=None)
    for arguments, message in (
        (("fogg", 1), "did you mean 'fog'"),
        (("fog", 0), "severity is 0"),
        (("frost", 1), "photographs"),
    ):
        with pytest.raises(ConfigError, match=message):
            corrupted(closed, *arguments)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        corrupted(closed, "fog", 1, -1)
    spec = closed.spec.replace(image=jax.ShapeDtypeStruct((4, 40, 40, 3), np.float32))
    with pytest.raises(ValueError, match="images must be uint8, 0 to 255; they are float32"):
        corrupted(closed._replace(spec=spec), "fog", 1)


def test_the_example_of_a_sheet_is_the_first_valid_one():
    (batch, *_) = read(stream())
    invalid = batch.replace(valid=np.array([False, False, True, True]))
    one = example(stream()._replace(batches=lambda step: iter([batch.replace(valid=np.zeros(4, bool)), invalid])))
    assert one.index == 2
    assert one.image.shape == (1, 40, 40, 3)
    with pytest.raises(DataError, match="none of 4 examples is valid"):
        example(stream()._replace(batches=lambda step: iter([batch.replace(valid=np.zeros(4, bool))])))


ERRORS = {name: np.random.default_rng(NAMES.index(name)).uniform(0.1, 0.9, 5).tolist() for name in NAMES}
CLEAN = 0.07


def test_mean_corruption_error_is_that_of_a_loop():
    total = relative = 0.0
    for name in COMMON:
        of_network, of_alexnet, more, more_of_alexnet = 0.0, 0.0, 0.0, 0.0
        for severity in range(5):
            of_network += ERRORS[name][severity]
            of_alexnet += ALEXNET[name]
            more += ERRORS[name][severity] - CLEAN
            more_of_alexnet += ALEXNET[name] - 0.435
        total += of_network / of_alexnet
        relative += more / more_of_alexnet
    assert math.isclose(corruption_error.mean_corruption_error(ERRORS), total / 15, rel_tol=1e-12)
    assert math.isclose(corruption_error.relative_mean_corruption_error(ERRORS, CLEAN), relative / 15, rel_tol=1e-12)
    assert math.isnan(corruption_error.mean_corruption_error({"saturate": [0.1] * 5}))


def test_alexnet_itself_has_an_error_of_1():
    table = {name: [error] * 5 for name, error in ALEXNET.items()}
    assert set(table) == set(COMMON)
    assert math.isclose(corruption_error.mean_corruption_error(table), 1)
    assert math.isclose(corruption_error.relative_mean_corruption_error(table, corruption_error.ALEXNET_CLEAN), 1)


def test_performance_under_corruption_is_that_of_a_loop():
    total = 0.0
    for name in NAMES:
        of_name = 0.0
        for value in ERRORS[name]:
            of_name += value
        total += of_name / 5
    assert math.isclose(corruption_error.mean_performance(ERRORS), total / 19, rel_tol=1e-12)
    assert math.isclose(corruption_error.relative_performance(ERRORS, 0.8), total / 19 / 0.8, rel_tol=1e-12)
    assert math.isnan(corruption_error.relative_performance(ERRORS, 0.0))


def test_flips_are_counted_between_neighbours():
    predictions = np.random.default_rng(1).integers(0, 3, (6, 50))
    flips = sum(predictions[s][i] != predictions[s + 1][i] for s in range(5) for i in range(50))
    assert math.isclose(corruption_error.flip_rate(list(predictions)), flips / 250)
    for wrong in ([predictions[0]], [predictions[0], predictions[1][:40]]):
        with pytest.raises(ValueError, match="flip_rate needs two or more predictions of one shape"):
            corruption_error.flip_rate(wrong)
