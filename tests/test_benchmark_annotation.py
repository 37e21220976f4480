"""The benchmarks of annotation: their tables and statistics against published libraries, and reviews in a store."""

import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from sklearn.metrics import roc_auc_score

from jaxvision.annotate import source
from jaxvision.annotate.simulated import Effort, spoilt
from jaxvision.annotate.store import Store
from jaxvision.formats.labelled import LabelledImage, LabelledObject
from jaxvision.run.config import configure

BENCHMARKS = Path(__file__).parent.parent / "experiments" / "benchmarks"


def script(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def loop():
    return script("annotate_loop")


@pytest.fixture(scope="module")
def found_wrong():
    return script("doubts")


def test_auroc_counts_ties_half(found_wrong):
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 200) / 5, rng.random(200) < 0.3
    assert found_wrong.auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))


def test_faulty_images_in_the_first_fifth_are_counted(found_wrong):
    scores, faulty = np.arange(20, 0, -1.0), np.zeros(20, bool)
    faulty[[0, 3, 4, 19]] = True
    assert found_wrong.among_first(scores, faulty) == 0.5


def test_rankings_put_spoilt_images_before_others_where_predictions_are_the_truth(found_wrong):
    rng = np.random.default_rng(0)
    images = []
    for number in range(60):
        low = rng.uniform(0, 60, (3, 2)) + [[0, 0], [100, 0], [0, 100]]
        boxes = np.concatenate([low, low + rng.uniform(20, 35, (3, 2))], 1)
        objects = [LabelledObject(found_wrong.SHAPES.CLASSES[n], tuple(box)) for n, box in enumerate(boxes.tolist())]
        images.append(LabelledImage(str(number), (200, 200), tuple(objects)))
    wrong = spoilt(images, found_wrong.SHAPES.CLASSES, 0.1, 0)
    sure = {image.name: tuple(each._replace(score=0.97) for each in image.objects) for image in images}
    table = found_wrong.table(wrong, sure).splitlines()
    assert table[0].startswith("| 60 images, ")
    values = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in table[2:]}
    assert values["ours"] == "1.000"
    assert float(values["plain rule"]) < 1  # a box that was moved a little still has an IoU of 0.5


def test_the_interval_is_that_of_a_paired_t_test(loop):
    differences = np.array([3.0, -1.5, 2.0, 4.5, 0.5])
    low, high = ttest_1samp(differences, 0).confidence_interval(0.95)
    mean, half = (low + high) / 2, (high - low) / 2
    assert loop.interval(differences) == f"{mean:+.1f} ± {half:.1f} (95 %, 5 seeds)"
    assert loop.interval(differences[:1]) == "+3.0 (one seed)"


def test_the_report_has_corrections_per_hundred_objects_of_each_round(loop):
    def efforts(*counts):
        return [Effort(Counter(add=count), 50) for count in counts]

    chosen = loop.Course(efforts(60, 40, 20), efforts(50, 40, 30, 10))
    random = loop.Course(efforts(60, 50, 30), efforts(50, 45, 40, 20))
    lines = loop.report({"chosen": [chosen], "random": [random]}).splitlines()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith(("| chosen", "| random"))
    ]
    assert rows[0] == ["chosen", "120.0", "80.0", "40.0", "0.33"]
    assert rows[3] == ["random", "100.0", "90.0", "80.0", "40.0", "0.40"]
    assert "chosen less random, mean after the first round: -20.0 (one seed)" in lines


def test_a_review_makes_of_a_store_what_the_next_model_learns_from(loop, tmp_path):
    config = configure(loop.SHAPES.get_config(), {"size": "64"})
    pool = loop.written(tmp_path / "images", 0, 6, config)
    names = sorted(pool.truth)
    with Store(tmp_path / "a.sqlite", create=True) as store:
        for name in names:
            store.put(loop.record(pool, name), who="listing")
        effort = loop.review(store, pool, names[:4])
        learned = source.source(store.records(), pool.folder, loop.SHAPES.CLASSES)
    truth = [pool.truth[name] for name in names[:4]]
    assert effort.actions == {"add": sum(len(each.objects) for each in truth)}
    assert [learned.name(number) for number in range(learned.length)] == names[:4]
    for each, found in zip(truth, learned.objects(), strict=True):
        expected = sorted((each.label, *each.box) for each in each.objects)
        assert expected == sorted(
            (loop.SHAPES.CLASSES[label], *box) for label, box in zip(found.labels, found.boxes.tolist(), strict=True)
        )
        assert set(found.weight) == {1}


def test_a_student_learns_sure_guesses_by_their_probability_and_ignores_the_others():
    module = script("self_training")
    told = [{"label": "circle", "score": score, "box": [0, 0, 9, 9]} for score in (0.9, 0.3)]
    sure, unsure = module.guesses({"objects": told})
    assert (sure.difficult, unsure.difficult) == (False, True)
    shapes = module.synthetic.shapes(3, seed=0, size=64, classes=module.SHAPES.CLASSES)
    images = module.labelled(shapes)
    images[1] = images[1]._replace(objects=(sure, unsure))
    mixed = module.relabelled(shapes, images)
    found = mixed.objects()
    np.testing.assert_allclose(found[1].weight, [0.9, 0.3])
    assert found[1].ignore.tolist() == [False, True]
    np.testing.assert_array_equal(found[0].boxes, shapes.objects()[0].boxes)
    assert set(found[0].weight) == {1}
    example = mixed.read(np.array([1]))[0]
    np.testing.assert_array_equal(example.image, shapes.read(np.array([1]))[0].image)
    np.testing.assert_allclose(example.objects.weight, [0.9, 0.3])
    assert mixed.fingerprint != shapes.fingerprint
    with pytest.raises(ValueError, match="2 images, the source has 3"):
        module.relabelled(shapes, images[:2])
    wrong = sure._replace(label="star")
    with pytest.raises(ValueError, match="star"):
        module.relabelled(shapes, [images[0]._replace(objects=(wrong,)), *images[1:]])


def test_the_table_of_students_pairs_the_seeds():
    module = script("self_training")
    lines = module.table([module.Pair(0.5, 0.55), module.Pair(0.4, 0.39)]).splitlines()
    assert lines[2:] == ["| 10 % alone | 45.0 | |", "| 10 % and guesses | 47.0 | +5.0, -1.0 |"]
