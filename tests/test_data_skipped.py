"""`on_bad_image="skip"`: what can't be read is counted, whatever the reason; a run of nothing else ends with an error."""

import itertools
import os

import numpy as np
import pytest
from finished_run import noise, save

from jaxvision.data import folder, order, placement, streams
from jaxvision.data.loading import FEWEST
from jaxvision.errors import DataError
from jaxvision.run.skipped import SkippedImages


@pytest.fixture
def images(tmp_path):
    for number in range(8):
        save(tmp_path / "images" / "ab"[number % 2] / f"{number}.png", noise(number))
    return tmp_path / "images"


def training(images, policy="skip"):
    options = {"placer": placement.stretch(8), "batch_size": 8, "on_bad_image": policy}
    return streams.training(lambda: folder.source(images), order=order.shuffled(0), **options)


def valid(stream, steps):
    return [int(batch.valid.sum()) for batch in itertools.islice(stream.batches(0), steps)]


def vanish(file):
    file.unlink()


def become_a_pipe(file):
    file.unlink()
    os.mkfifo(file)


def become_a_folder(file):
    file.unlink()
    file.mkdir()


def lead_nowhere(file):
    file.unlink()
    file.symlink_to(file.with_name("nothing"))


def lose_its_permission(file):
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("this user may read everything")


CHANGES = (vanish, become_a_pipe, become_a_folder, lead_nowhere, lose_its_permission)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_file_that_changes_while_the_run_goes_on_is_skipped(images, change, caplog):
    stream = training(images)
    stream.about()
    change(images / "a" / "0.png")
    assert valid(stream, 2) == [7, 7]
    (text,) = [record.getMessage() for record in caplog.records]
    assert text.startswith("skipped an unusable image (1 so far): ")
    assert text.count(str(images / "a" / "0.png")) == 1
    without, rows = stream.skipped()
    assert without == rows // 8 >= 2


@pytest.mark.parametrize("change", CHANGES[:3], ids=lambda change: change.__name__)
def test_or_ends_the_run_and_is_named(images, change):
    stream = training(images, "raise")
    stream.about()
    change(images / "a" / "0.png")
    with pytest.raises(DataError, match=r"a/0\.png"):
        valid(stream, 1)
    assert stream.skipped is None


def test_a_run_without_a_single_image_ends_early(images):
    for file in images.rglob("*.png"):
        file.write_bytes(b"junk")
    with pytest.raises(
        DataError, match=r"none of the first 100 images could be used, the last: .*\w/\d\.png: not an image"
    ):
        valid(training(images), 1000)


def test_so_does_one_that_loses_all_of_them(images):
    batches = training(images).batches(0)
    next(batches)
    for file in images.rglob("*.png"):
        file.unlink()
    with pytest.raises(DataError, match=r"none of the last 100 images could be used, the last: .*there is no file"):
        list(itertools.islice(batches, 1000))


def test_an_evaluation_goes_on_past_a_class_of_broken_images(tmp_path):
    for number in range(FEWEST + 5):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / f"{number}.png").write_bytes(b"junk")
    save(tmp_path / "b" / "0.png", noise(0))
    options = {"placer": placement.stretch(8), "batch_size": 32, "on_bad_image": "skip"}
    stream = streams.evaluation(lambda: folder.source(tmp_path), **options)
    assert sum(int(batch.valid.sum()) for batch in stream.batches(0)) == 1


def test_what_a_run_says_of_them(images):
    counts, said = [(0, 0)], []
    watched = SkippedImages(training(images)._replace(skipped=lambda: counts[-1]), said.append)
    for now in ((1, 100), (12, 200), (22, 300)):
        counts.append(now)
        watched.interval()
    assert said == ["warning: 11 of the last 100 rows of training batches (11%) had no image"]
    watched.total()
    assert said[1:] == ["22 of 300 rows of training batches (7.3%) had no image"]
    counts.append((300, 300))
    with pytest.raises(DataError, match="none of the 300 rows of training batches had an image"):
        watched.total()


def test_a_stream_that_skips_nothing_says_nothing(images):
    said = []
    watched = SkippedImages(training(images, "raise"), said.append)
    watched.interval()
    watched.total()
    assert not said
    assert np.all(valid(training(images), 2) == [8, 8])
