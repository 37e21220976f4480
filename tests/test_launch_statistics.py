"""Statistics of ablations: equal to SciPy's, and honest in simulations."""

import math

import instance_cases
import numpy as np
import pytest
from detection_cases import pycoco, random_rows
from scipy import stats

from jaxvision.metrics.classification import classification
from jaxvision.metrics.detection import detection
from jaxvision.metrics.instances import instances
from jaxvision.run import rows
from launch import statistics

TRIALS = 2000


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_the_interval_and_p_are_scipys(n):
    values = np.random.default_rng(n).normal(0.3, 1, n)
    found = statistics.paired(values)
    test = stats.ttest_1samp(values, 0)
    low, high = test.confidence_interval(0.95)
    np.testing.assert_allclose([found.p, found.low, found.high], [test.pvalue, low, high], rtol=1e-12)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(1 - 0.05 / 4)
    np.testing.assert_allclose(statistics.paired(values, 4)[3:5], [low, high], rtol=1e-11)


def test_holm_is_the_definition():
    p = [0.01, 0.04, 0.03, 0.005]
    assert statistics.holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = statistics.holm([0.01, float("nan"), 0.02])
    assert adjusted[0] == pytest.approx(0.03)
    assert math.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.04)


def test_holm_holds_the_smallest_p_that_every_subset_rejects():
    """Closed testing: a hypothesis is rejected at a level if every intersection it is in is, by Bonferroni."""
    generator = np.random.default_rng(0)
    for _ in range(50):
        p = generator.uniform(0, 0.3, 4)
        subsets = [[i for i in range(4) if mask >> i & 1] for mask in range(1, 16)]
        closed = [max(min(1, len(s) * min(p[i] for i in s)) for s in subsets if j in s) for j in range(4)]
        np.testing.assert_allclose(statistics.holm(p), closed, rtol=1e-12)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_no_effect_is_named_in_more_than_a_twentieth_of_the_ablations(n):
    generator = np.random.default_rng(n)
    named = 0
    for _ in range(TRIALS):
        runs = generator.normal(size=(6, n))
        found = [statistics.paired(run - runs[0], 5) for run in runs[1:]]
        named += min(statistics.holm([each.p for each in found])) <= 0.05
    assert named / TRIALS <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / TRIALS)


def test_an_effect_of_three_deviations_is_named_with_five_seeds():
    generator = np.random.default_rng(1)
    single = among_five = 0
    for _ in range(TRIALS):
        runs = generator.normal(size=(6, 5))
        runs[1] += 3
        found = [statistics.paired(run - runs[0], 5) for run in runs[1:]]
        adjusted = statistics.holm([each.p for each in found])
        single += statistics.verdict(found[0], found[0].p, "higher") == "better"
        among_five += statistics.verdict(found[0], adjusted[0], "higher") == "better"
    assert single / TRIALS >= 0.9
    assert among_five / TRIALS >= 0.55


def test_what_seeds_can_show_is_shown_that_often():
    generator = np.random.default_rng(2)
    least = statistics.detectable(1.0, 5)
    shown = [statistics.paired(generator.normal(least, 1, 5)).p <= 0.05 for _ in range(TRIALS)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.03)
    needed = statistics.seeds_needed(1.0, 1.0)
    assert statistics.detectable(1.0, needed) <= 1.0 < statistics.detectable(1.0, needed - 1)


def test_one_seed_and_equal_differences_give_no_p():
    for values in ([0.2], [0.1, 0.1, 0.1]):
        found = statistics.paired(values)
        assert math.isnan(found.p)
        assert statistics.verdict(found, found.p, "higher") == "undecided"
    with pytest.raises(ValueError, match="finite"):
        statistics.paired([0.1, float("nan")])
    with pytest.raises(ValueError, match="comparisons=0"):
        statistics.paired([0.1, 0.2], 0)


def test_resampled_accuracy_is_that_of_a_loop():
    generator = np.random.default_rng(3)
    metric = classification(3, top=1)
    tables = []
    for _ in range(2):
        label = np.arange(40) % 3
        predicted = np.where(generator.uniform(size=40) < 0.7, label, (label + 1) % 3)
        rank = (predicted != label).astype(np.int32)
        confidence = np.full(40, 0.5)
        tables.append({"index": np.arange(40), "label": label, "predicted": predicted, "rank": rank})
        tables[-1] |= {"confidence": confidence, "log_probability": np.log(confidence)}
    found = statistics.resampled(metric.compute, tables, ["accuracy"], draws=20, seed=5)
    assert found.shape == (20, 2, 1)
    for draw in range(20):
        chosen = np.random.default_rng([5, draw]).integers(0, 40, 40)
        for run, table in enumerate(tables):
            right = sum(table["label"][i] == table["predicted"][i] for i in chosen)
            assert found[draw, run, 0] == pytest.approx(right / 40, abs=1e-12)


def test_rows_of_different_examples_are_refused():
    tables = [{"index": np.arange(3)}, {"index": np.arange(3) + 1}]
    with pytest.raises(ValueError, match="different examples"):
        statistics.resampled(lambda rows: {}, tables, [])


def test_both_sources_together_cover_what_they_should():
    """Seeds and images drawn anew: the interval of both holds the true difference in about 95 % of the studies."""
    generator = np.random.default_rng(4)
    covered = alone = 0
    trials, images, seeds = 400, 100, 5
    for _ in range(trials):
        of_images = generator.normal(0, 1, images)  # what an image changes, for all seeds
        runs = generator.normal(0, 0.1, seeds)[:, None] + of_images + generator.normal(0, 0.3, (seeds, images))
        paired = statistics.paired(runs.mean(1))
        draws = runs.mean(0)[generator.integers(0, images, (300, images))].mean(1)
        both = statistics.crossed(paired, statistics.percentile(draws, paired.mean))
        covered += both.low <= 0 <= both.high
        alone += paired.low <= 0 <= paired.high
    assert 0.92 <= covered / trials <= 0.99
    assert alone / trials < 0.85  # the seeds alone know nothing of other images


def test_resampled_average_precision_is_that_of_pycocotools_on_the_images_drawn():
    metric, count = detection(4, errors=False), len(random_rows(0)["boxes"])
    tables = [{**random_rows(seed), "index": np.arange(count)} for seed in (0, 1)]
    found = statistics.resampled(metric.compute, tables, ["AP", "AP50"], draws=3, seed=7)
    for draw in range(3):
        chosen = np.random.default_rng([7, draw]).integers(0, count, count)
        assert len(set(chosen)) < count
        for number, table in enumerate(tables):
            wanted = pycoco({name: column[chosen] for name, column in table.items()}, 4).stats[:2]
            np.testing.assert_allclose(found[draw, number], wanted, rtol=0, atol=1e-12)


def test_resampled_mask_ap_of_stored_rows_is_that_of_pycocotools_on_the_images_drawn(tmp_path):
    columns, masks, objects = instance_cases.random_case(7)
    rows.write(tmp_path, 1, {"test": columns})
    stored = rows.read(tmp_path, "test").columns
    compute = instances(instance_cases.CLASSES, errors=False).compute
    found = statistics.resampled(compute, [stored], ["mask_AP", "mask_AP50"], draws=3, seed=7)
    for draw in range(3):
        chosen = np.random.default_rng([7, draw]).integers(0, len(masks), len(masks))
        drawn = {name: column[chosen] for name, column in columns.items()}
        wanted = instance_cases.pycoco(drawn, [masks[i] for i in chosen], [objects[i] for i in chosen]).stats[:2]
        np.testing.assert_allclose(found[draw, 0], np.where(wanted == -1, np.nan, wanted), rtol=0, atol=1e-12)


def test_resampled_mean_iou_is_that_of_the_masks_drawn():
    generator = np.random.default_rng(8)
    truth = generator.integers(0, 3, (12, 6, 6))
    guess = np.where(generator.uniform(size=truth.shape) < 0.7, truth, (truth + 1) % 3)
    counts = np.zeros((12, 3, 3), int)
    np.add.at(counts, (np.arange(12)[:, None, None], truth, guess), 1)

    def compute(rows):
        total = rows["counts"].sum(0)
        return {"mean_iou": (np.diag(total) / (total.sum(0) + total.sum(1) - np.diag(total))).mean()}

    found = statistics.resampled(compute, [{"index": np.arange(12), "counts": counts}], ["mean_iou"], 20, seed=2)
    for draw in range(20):
        chosen = np.random.default_rng([2, draw]).integers(0, 12, 12)
        ious = []
        for label in range(3):
            intersection = sum(((truth[i] == label) & (guess[i] == label)).sum() for i in chosen)
            union = sum(((truth[i] == label) | (guess[i] == label)).sum() for i in chosen)
            ious.append(intersection / union)
        assert found[draw, 0, 0] == pytest.approx(np.mean(ious), abs=1e-12)


def test_differences_that_are_the_same_but_for_rounding_have_no_spread():
    """Three images of 70 more are right, for each seed: differences of 0.042857... that differ in the last bits."""
    right = np.array([12, 30, 55])
    figures, others = (right + 3) / 70, right / 70
    assert np.ptp(figures - others) > 0
    found = statistics.paired(figures - others, scale=float(figures.max()))
    assert (found.deviation, math.isnan(found.p), found.low) == (0, True, -np.inf)
    assert statistics.verdict(found, found.p, "higher") == "undecided"
    assert not math.isnan(statistics.paired([0.1, 0.1 + 1e-12], scale=1.0).p)
