import numpy as np
import pytest

from jaxvision.data import arrays
from jaxvision.data.subset import held_out, subset


@pytest.fixture
def source():
    labels = np.repeat([0, 1, 2], [50, 10, 1])
    images = np.arange(61, dtype=np.uint8).reshape(61, 1, 1, 1)
    return arrays.source(images, labels, classes=("a", "b", "c"))


def pixels(source):
    return [int(np.asarray(example.image).ravel()[0]) for example in source.read(np.arange(source.length))]


def test_a_subset_renumbers_and_keeps_labels_and_names(source):
    part = subset(source, np.array([55, 3, 60]))
    assert pixels(part) == [55, 3, 60]
    np.testing.assert_array_equal(part.labels(), [1, 0, 2])
    assert part.name(0) == source.name(55)
    assert part.fingerprint != source.fingerprint
    with pytest.raises(ValueError, match="from 3 to 61; the source has 0 to 60"):
        subset(source, np.array([3, 61]))


def test_held_out_takes_its_share_of_every_class_and_nothing_twice(source):
    rest, out = held_out(source, 0.2, seed=3)
    assert sorted(pixels(rest) + pixels(out)) == list(range(61))
    np.testing.assert_array_equal(np.bincount(out.labels(), minlength=3), [10, 2, 0])
    assert pixels(held_out(source, 0.2, seed=3)[1]) == pixels(out)
    assert pixels(held_out(source, 0.2, seed=4)[1]) != pixels(out)
    with pytest.raises(ValueError, match=r"share is 1\.0"):
        held_out(source, 1.0, seed=0)
