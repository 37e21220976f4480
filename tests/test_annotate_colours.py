"""Colours by name: by a survey of what people call colours, and by what the drawn shapes are."""

import numpy as np
import pytest
from scipy.spatial import distance

from jaxvision.annotate import colours
from jaxvision.annotate.attributes import finders
from jaxvision.annotate.records import Annotation
from jaxvision.annotate.regions import region
from jaxvision.data import synthetic
from jaxvision.errors import ConfigError
from jaxvision.masks import runs


def found(pixels, *objects):
    (finder,) = finders(["colour"])
    return finder.find(np.asarray(pixels, np.uint8), objects)


def test_oklab_is_that_of_its_author():
    # the table of bottosson.github.io/posts/oklab, of XYZ; these are sRGB's white, and primaries as CSS Color 4 has them
    expected = {
        (1, 1, 1): (1, 0, 0),
        (1, 0, 0): (0.62796, 0.22486, 0.12585),
        (0, 1, 0): (0.86644, -0.23389, 0.17950),
        (0, 0, 1): (0.45201, -0.03246, -0.31153),
    }
    for rgb, lab in expected.items():
        np.testing.assert_allclose(colours.oklab(np.asarray(rgb, float)), lab, atol=2e-5)


def test_each_colour_of_the_survey_left_out_is_named_by_the_others():
    survey, terms = colours.survey()
    assert len(terms) == 558
    named = [
        colours.nearest_terms(survey[i : i + 1], np.delete(survey, i, 0), np.delete(terms, i))[0]
        for i in range(len(terms))
    ]
    assert np.mean(named == terms) >= 0.88


def test_the_vote_is_that_of_a_plain_loop():
    survey, terms = colours.survey()
    strong = colours.oklab(np.random.default_rng(0).random((200, 3)))
    strong = strong[(np.hypot(strong[:, 1], strong[:, 2]) > 0.05) & (strong[:, 0] > 0.25)]
    for colour, term in zip(strong, colours.nearest_terms(strong, survey, terms), strict=True):
        apart = distance.cdist(colour[None], survey)[0]
        votes = np.zeros(11)
        for each in np.argsort(apart)[:11]:
            votes[terms[each]] += 1 / apart[each] ** 2
        assert votes[term] >= votes.max() * (1 - 1e-6)


def test_the_table_is_the_rule():
    pixels = np.random.default_rng(1).integers(0, 256, (20_000, 3)).astype(np.uint8)
    exact = colours.nearest_terms(colours.oklab(pixels / 255), *colours.survey())
    assert np.mean(colours.named(pixels) == exact) >= 0.975


def test_black_white_and_grey_are_exact():
    greys = np.arange(256)
    named = [colours.TERMS[term] for term in colours.named(np.tile(greys[:, None], 3).astype(np.uint8))]
    assert set(named[:25]) == {"black"}
    assert set(named[70:200]) == {"grey"}
    assert set(named[235:]) == {"white"}
    rng = np.random.default_rng(2)
    for level, name in ((0, "black"), (12, "black"), (128, "grey"), (180, "grey"), (245, "white"), (255, "white")):
        noisy = np.clip(level + rng.uniform(-12, 12, (60, 60, 3)), 0, 255)
        assert found(noisy, Annotation(1, "a", (0, 0, 60, 60)))[0]["colour"] == name


ALLOWED = {name: {name} for name in ("red", "green", "blue", "yellow")}
ALLOWED |= {"magenta": {"purple", "pink"}, "cyan": {"blue", "green"}}


def test_the_colours_of_shapes():
    right = {name: [] for name in ALLOWED}
    for example in synthetic.shapes(60, seed=3, classes=synthetic.SHAPES).read(np.arange(60)):
        boxes, masks = example.objects.boxes.tolist(), map(runs.encode, example.objects.masks)
        objects = [Annotation(1, "a", tuple(box), mask) for box, mask in zip(boxes, masks, strict=True)]
        names = [synthetic.COLOURS[number] for number in example.objects.attributes["colour"]]
        for name, told in zip(names, found(example.image, *objects), strict=True):
            right[name].append(told["colour"] in ALLOWED[name])
    assert min(map(len, right.values())) >= 20
    for name, each in right.items():
        assert np.mean(each) >= 0.98, name


def test_fractions_are_of_the_mask_and_listed_from_a_twentieth_on():
    pixels = np.full((20, 20, 3), 255, np.uint8)
    pixels[:10, :10] = 0
    pixels[:10, 10:] = 220, 40, 40
    pixels[0, 0] = 40, 80, 230
    mask = np.zeros((20, 20), bool)
    mask[:10], mask[10, :10] = True, True
    whole, inside = found(
        pixels, Annotation(1, "a", (0, 0, 20, 20)), Annotation(2, "a", (0, 0, 20, 20), runs.encode(mask))
    )
    assert whole == {"colour": "white", "colours": ("white 0.50", "red 0.25", "black 0.25")}
    assert inside == {"colour": "red", "colours": ("red 0.48", "black 0.47")}
    assert colours.fractions(pixels)["blue"] == 1 / 400


def test_large_regions_are_looked_at_in_steps():
    pixels = np.zeros((1100, 1500, 3), np.uint8)
    pixels[:550] = 255
    assert colours.fractions(pixels) == {"white": pytest.approx(0.5, abs=2e-3), "black": pytest.approx(0.5, abs=2e-3)}
    mask = np.zeros((1100, 1500), bool)
    mask[1, 1] = True  # no pixel of it is among those looked at
    assert colours.fractions(pixels, mask) == {"white": 1}


def test_regions_are_those_of_polygons_run_lengths_and_boxes():
    pixels = np.zeros((8, 10, 3), np.uint8)
    square = Annotation(1, "a", (0, 0, 10, 8), ((2.0, 1.0, 6.0, 1.0, 6.0, 5.0, 2.0, 5.0),))
    place = region(square, (8, 10))
    assert (place.rows, place.columns) == (slice(1, 5), slice(2, 6))
    assert place.mask.all()
    assert region(Annotation(1, "a", (1.4, 0.6, 3.6, 2.4)), (8, 10)) == (slice(1, 2), slice(1, 4), None)
    assert region(Annotation(1, "a", (-5, -5, 50, 50)), (8, 10)) == (slice(0, 8), slice(0, 10), None)
    outside = (
        Annotation(1, "a", (20, 20, 30, 30)),
        Annotation(2, "a", (0, 0, 9, 9), runs.encode(np.zeros((8, 10), bool))),
    )
    assert found(pixels, *outside) == [{}, {}]
    with pytest.raises(ValueError, match="a mask is of 3x4 pixels, its image of 8x10"):
        region(Annotation(1, "a", (0, 0, 4, 3), runs.encode(np.ones((3, 4), bool))), (8, 10))


def test_other_names_are_refused():
    with pytest.raises(ConfigError, match=r"there are no attributes 'color'; did you mean 'colour'\?"):
        finders(["color"])
