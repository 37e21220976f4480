import numpy as np
import pytest

from jaxvision.data import arrays, synthetic
from jaxvision.data.subset import held_out, imbalanced, long_tailed, stepped, subset, train_and_test


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


def test_held_out_takes_its_fraction_of_every_class_and_nothing_twice(source):
    rest, out = held_out(source, 0.2, seed=3)
    assert sorted(pixels(rest) + pixels(out)) == list(range(61))
    np.testing.assert_array_equal(np.bincount(out.labels(), minlength=3), [10, 2, 0])
    assert pixels(held_out(source, 0.2, seed=3)[1]) == pixels(out)
    assert pixels(held_out(source, 0.2, seed=4)[1]) != pixels(out)
    with pytest.raises(ValueError, match=r"fraction is 1\.0"):
        held_out(source, 1.0, seed=0)


def test_a_pair_is_two_sources_or_one_in_two_parts(source):
    train, test = train_and_test(lambda: source, None, 0.2, 3, source.classes)
    assert (pixels(train()), pixels(test())) == tuple(map(pixels, held_out(source, 0.2, seed=3)))
    other = subset(source, np.array([4, 52]))
    train, test = train_and_test(lambda: source, lambda: other, 0.2, 3, source.classes)
    assert (pixels(train()), pixels(test())) == (list(range(61)), [4, 52])
    _, test = train_and_test(lambda: source, lambda: other, 0.2, 3, ("a", "b"))
    with pytest.raises(ValueError, match="the classes of the test data are a, b, c, not a, b"):
        test()


@pytest.mark.parametrize(("length", "fraction", "out"), [(10, 0.25, 2), (10, 0.01, 1), (10, 0.99, 9), (1, 0.5, 0)])
def test_held_out_takes_its_fraction_of_the_images_of_objects(length, fraction, out):
    source = synthetic.shapes(length, seed=0, size=64)
    rest, held = held_out(source, fraction, seed=3)
    names = lambda part: [part.name(index) for index in range(part.length)]
    assert held.length == out
    assert sorted(names(rest) + names(held)) == sorted(names(source))
    assert names(held_out(source, fraction, seed=3)[1]) == names(held)
    assert len({tuple(names(held_out(source, 0.25, seed)[1])) for seed in range(5)}) > 1 or length == 1
    assert [each.labels.tolist() for each in held.objects()] == [
        each.objects.labels.tolist() for each in held.read(np.arange(out))
    ]


def test_imbalanced_refuses_a_source_of_objects():
    source = synthetic.shapes(4, seed=0, size=64)
    with pytest.raises(
        ValueError, match="imbalanced: the source has objects, and no class for each image; allowed is one"
    ):
        imbalanced(source, [1] * len(source.classes), seed=0)


def test_imbalanced_keeps_so_many_of_each_class_in_the_order_of_the_source(source):
    part = imbalanced(source, [20, 10, 0], seed=1)
    np.testing.assert_array_equal(np.bincount(part.labels(), minlength=3), [20, 10, 0])
    assert pixels(part) == sorted(set(pixels(part)))
    assert part.classes == source.classes
    assert pixels(imbalanced(source, [20, 10, 0], seed=1)) == pixels(part)
    assert pixels(imbalanced(source, [20, 10, 0], seed=2)) != pixels(part)
    assert set(pixels(imbalanced(source, [12, 3, 0], seed=1))) < set(pixels(part))
    assert set(pixels(part)[:20]) != set(range(20))


@pytest.mark.parametrize("seed", range(3))
def test_imbalanced_chooses_by_the_smallest_philox_words(source, seed):
    words = np.random.Philox(key=seed).random_raw(61)
    expected = sorted(sorted(range(50), key=words.__getitem__)[:5]) + sorted(range(50, 60), key=words.__getitem__)[:1]
    assert pixels(imbalanced(source, [5, 1, 0], seed)) == expected


@pytest.mark.parametrize(
    ("counts", "match"),
    [
        ([1, 2], "2 counts for 3 classes"),
        ([51, 1, 1], "51 examples of class 'a'; it has 50, allowed are 0 to 50"),
        ([1, -1, 1], "-1 examples of class 'b'; it has 10"),
    ],
)
def test_imbalanced_refuses_what_the_source_does_not_have(source, counts, match):
    with pytest.raises(ValueError, match=match):
        imbalanced(source, counts, seed=0)


@pytest.mark.parametrize(
    ("ratio", "published"),
    [
        (10, [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500]),
        (100, [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]),
    ],
)
def test_long_tailed_counts_are_those_of_cifar10_lt(ratio, published):
    assert long_tailed(5000, ratio, 10) == published


def test_the_ends_of_the_tail_are_exact():
    for classes in range(2, 40):
        for ratio in (1, 10, 50, 100, 1000):
            counts = long_tailed(3000, ratio, classes)
            assert (counts[0], counts[-1]) == (3000, 3000 // ratio)
            assert counts == sorted(counts, reverse=True)
            assert stepped(3000, ratio, classes)[-1] == 3000 // ratio


def test_whole_counts_are_not_lost_to_rounding():
    assert long_tailed(32, 32, 6) == [32, 16, 8, 4, 2, 1]  # 32 * 32 ** -0.4 is 7.999999999999999


def test_stepped_counts_have_two_sizes():
    assert stepped(5000, 100, 10) == [5000] * 5 + [50] * 5
    assert stepped(70, 10, 5) == [70, 70, 7, 7, 7]


@pytest.mark.parametrize("counts", [long_tailed, stepped])
@pytest.mark.parametrize("wrong", [(100, 0.5, 10), (100, 101, 10), (100, 10, 1)])
def test_impossible_imbalance_is_refused(counts, wrong):
    with pytest.raises(ValueError, match=f"{counts.__name__}.largest=100.*allowed are two classes or more"):
        counts(*wrong)
