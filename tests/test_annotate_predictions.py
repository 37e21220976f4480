"""What models of every task predict, as objects; and masks cut out of boxes, by a network that is known."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boxes_experiment import scene as boxes_scene
from labelled_scenes import detector
from masks_experiment import CLASSES, predict_classes, predict_objects, scene
from PIL import Image

from jaxvision.annotate import cutting
from jaxvision.annotate.labeller import View, labellers, together
from jaxvision.annotate.predictions import Guess, guesses, mirrored
from jaxvision.annotate.records import Annotation, Source
from jaxvision.errors import ConfigError
from jaxvision.masks import runs
from jaxvision.run import map_records, records
from jaxvision.run.tiles import checked
from jaxvision.types import ClassScores, PixelScores

SIZE = (90, 120)


def model(predict, classes, output, side=64):
    """A model that predicts by a function of a batch."""
    like, jitted = detector(rows=2, side=side), jax.jit(predict)
    task = like.task._replace(predict=predict)
    return like._replace(task=task, classes=tuple(classes), output=output, apply=lambda batch: jitted({}, batch))


def found_in(image, model, **options):
    (labeller,), _ = labellers({"model": model}, **options)
    ((*views,),) = labeller.find([labeller.canvases(image)])
    return together(views)


def check_masks(found, masks, names, scores=None):
    """Masks of 64 px are those of the scene but for pixels at their edges."""
    assert sorted(each.label for each in found) == sorted(names)
    for name, mask in zip(names, masks, strict=True):
        (each,) = (one for one in found if one.label == name)
        seen = runs.decode(each.segmentation)
        assert np.count_nonzero(seen & mask) > 0.8 * np.count_nonzero(seen | mask)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        np.testing.assert_allclose(each.box, [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], atol=4)
        assert scores is None or each.score == pytest.approx(scores[name])


@pytest.mark.parametrize(
    ("kind", "options"),
    [("instances", {"tta": True}), ("semantic", {}), ("semantic", {"tiling": checked(64)})],
    ids=["objects, mirrored", "classes", "classes, tiles"],
)
def test_segmenters_find_the_masks_of_objects(kind, options):
    image, masks = scene(3)
    if kind == "instances":
        of = model(predict_objects(kind), CLASSES[kind], records.OBJECTS)
    else:
        of = model(predict_classes, CLASSES[kind], map_records.PIXELS)
    check_masks(found_in(image, of, score=0.1, **options), masks, ("red", "green", "blue")[: len(masks)])


def test_each_part_of_a_class_is_an_object():
    logits = np.zeros((20, 30, 3), np.float32)
    logits[2:8, 3:9, 1] = logits[12:18, 3:9, 1] = logits[2:8, 20:26, 2] = 2
    logits[10, 20, 2] = 5  # one pixel is no object
    of = model(
        lambda variables, batch: PixelScores(jnp.asarray(logits)[None].repeat(2, 0)), ("background", "a", "b"), None
    )
    found = found_in(np.zeros((20, 30, 3), np.uint8), of)
    assert sorted((each.label, each.box) for each in found) == [
        ("a", (3, 2, 9, 8)),
        ("a", (3, 12, 9, 18)),
        ("b", (20, 2, 26, 8)),
    ]
    expected = np.exp(2) / (np.exp(2) + 2)
    assert [each.score for each in found] == pytest.approx([expected] * 3)
    assert found_in(np.zeros((20, 30, 3), np.uint8), of, score=0.9) == []


def test_segments_of_a_panoptic_map_are_objects():
    image, masks = scene(1)
    of = model(predict_objects("panoptic"), CLASSES["panoptic"], map_records.panoptic((True, True, True, False)))
    found = found_in(image, of, classes=["red", "green"])
    check_masks(found, masks[:2], ("red", "green"))


def test_a_classifier_names_the_whole_image():
    logits = jnp.log(jnp.asarray([[0.3, 0.4, 0.25, 0.05]] * 2))
    of = model(lambda variables, batch: ClassScores(logits), ("tabby", "beagle", "siamese", "wall"), records.CLASSES)
    image = np.zeros((*SIZE, 3), np.uint8)
    (one,) = found_in(image, of)
    assert (one.label, one.box, one.segmentation) == ("beagle", (0, 0, 120, 90), None)
    (one,) = found_in(image, of, renamed={"tabby": "cat", "siamese": "cat", "beagle": "dog", "wall": ""}, tta=True)
    assert (one.label, one.score) == ("cat", pytest.approx(0.55))
    assert found_in(image, of, score=0.5) == []
    with pytest.raises(ConfigError, match="is a classifier"):
        found_in(image, of, tiling=checked(64))


def test_a_record_of_another_form_is_told():
    with pytest.raises(ConfigError, match="a record of depth holds no objects"):
        guesses({"depth": 1}, SIZE, {}, 0.3)


def test_a_mirrored_guess_is_where_it_was():
    rng = np.random.default_rng(0)
    mask = rng.random(SIZE) < 0.3
    found = mirrored(Guess("a", (10, 20, 30, 50), 0.5, runs.encode(mask[:, ::-1])), SIZE)
    assert found.box == (90, 20, 110, 50)
    np.testing.assert_array_equal(runs.decode(found.mask), mask)
    assert mirrored(mirrored(found, SIZE), SIZE) == found


def test_a_fused_object_names_its_models_and_has_the_best_mask():
    one, two, three = (Source(name, "12") for name in "abc")
    names = frozenset(["cat"])
    mask = runs.encode(np.ones(SIZE, bool))
    best = View(one, names, [Guess("cat", (0, 0, 10, 10), 0.9)])
    views = [best, View(two, names, [Guess("cat", (0, 0, 10, 11), 0.6, mask)]), View(three, names, [])]
    (found,) = together(views)
    assert found.sources == (one, two)
    assert found.segmentation == mask
    assert found.score == pytest.approx(0.5)
    (found,) = together([*views[:2], View(three, frozenset(["dog"]), [])])
    assert found.score == pytest.approx(0.75), "who finds no cats has no say"


def test_settings_are_told(capsys):
    (labeller,), _ = labellers({"bright": detector()}, score=0.2, tta=True, tiling=checked(64))
    assert json.loads(labeller.source.settings) == {"score": 0.2, "tta": True, "tiles": [64, 16]}
    with pytest.raises(ConfigError, match="each model once"):
        labellers(["a", "a"])
    with pytest.raises(ConfigError, match="one model or more"):
        labellers([])


def salient(variables, batch):
    """What is bright in red is an object."""
    bright = (batch.image[..., 0].astype(jnp.float32) - 145) / 20
    return PixelScores(jnp.stack([jnp.zeros_like(bright), bright], -1))


def test_masks_are_cut_to_their_boxes():
    cutter = cutting.of_model(model(salient, cutting.CLASSES, None, side=32), "red")
    image = np.zeros((80, 100, 3), np.uint8)
    image[20:44, 30:62, 0] = 255
    given = [
        Annotation(0, "whole", (30, 20, 62, 44)),
        Annotation(0, "left", (26.5, 16, 46, 50)),
        Annotation(0, "none", (70, 60, 90, 70)),
        Annotation(0, "has one", (0, 0, 9, 9), runs.encode(np.ones((80, 100), bool))),
        Annotation(0, "thin", (99.5, 79.5, 100, 80)),
    ]
    grey = image[..., 0]
    (found, of_grey) = cutter.cut([(image, given), (grey, given[:1])])
    assert [each.label for each in found] == [each.label for each in given]
    red = image[..., 0] > 0
    for each, (x0, y0, x1, y1) in zip(found[:2], ((30, 20, 62, 44), (26, 16, 46, 50)), strict=True):
        expected = np.zeros_like(red)
        expected[y0:y1, x0:x1] = red[y0:y1, x0:x1]
        seen = runs.decode(each.segmentation)
        assert np.count_nonzero(seen != expected) < 0.12 * expected.sum()
        assert not (seen & ~np.pad(np.ones((y1 - y0, x1 - x0), bool), ((y0, 80 - y1), (x0, 100 - x1)))).any()
    assert (found[2].segmentation, found[4].segmentation) == (None, None)
    assert found[3] == given[3]
    assert of_grey[0].segmentation is not None


def test_a_quarter_of_the_sides_is_seen_around_a_box():
    assert cutting.around((20, 10, 60, 30), (100, 100)) == (10, 5, 70, 35)
    assert cutting.around((0, 0, 100, 100), (100, 100)) == (0, 0, 100, 100)
    assert cutting.window_of((99.9, 99.9, 100, 100), (100, 100)) == (99, 99, 100, 100)
    assert cutting.window_of((-20.2, -3.0, 30.5, 40), (100, 100)) == (0, 0, 31, 40)
    assert cutting.around((-20.2, 4, 32, 44), (100, 100)) == (0, 0, 40, 54)
    assert cutting.window_of((-9, -9, -5, -5), (100, 100)) == (0, 0, 1, 1)
    for x0 in (-5.2, -20.2):
        mask = cutting._in_box(np.ones((54, 40), bool), (x0, 4, 32, 44), (100, 100))
        assert runs.box(mask).tolist() == [0, 4, 32, 44]
    image, boxes = boxes_scene(0)
    for box in boxes:
        assert cutting.seen_around(image, tuple(box)).size > 0


def test_only_a_network_that_cuts_out_cuts_out(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="such as u2netp"):
        cutting.of_model(detector(), "bright")
