"""Metrics by group: against fairlearn's golden numbers (tests/golden/make_fairness.py: fairlearn 0.15.0) and pycocotools."""

import math
from functools import cache
from pathlib import Path

import instance_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detection_cases import pycoco, random_rows
from scipy import stats

from jaxvision.data import placement, synthetic, target
from jaxvision.data.streams import evaluation
from jaxvision.errors import DataError
from jaxvision.metrics.classification import classification
from jaxvision.metrics.detection import detection
from jaxvision.metrics.instances import instances
from jaxvision.trust import group_table, intervals
from jaxvision.trust import groups as grouping
from jaxvision.trust.by_group import by_group, figures_by_group, observing
from jaxvision.trust.object_groups import OUTSIDE
from jaxvision.trust.parity import parity
from jaxvision.trust.rates import decisions
from jaxvision.types import Detections, MapMasks, Metric

SIZES = (2, 3, 2)
FIGURES = ("accuracy", "selection_rate/yes", "true_positive_rate/yes", "false_positive_rate/yes")
YES = ("no", "yes")


@cache
def golden():
    with np.load(Path(__file__).parent / "golden" / "fairness.npz") as file:
        return dict(file)


def classified(label, predicted):
    rank = (label != predicted).astype(int)
    return {"index": np.arange(len(label)), "label": label, "predicted": predicted, "rank": rank}


ACCURACY = Metric(lambda prediction, batch: {}, lambda rows: {"accuracy": float((rows["rank"] < 1).mean())})


@pytest.mark.parametrize("seed", range(40))
def test_figures_and_parity_equal_fairlearn(seed):
    label, predicted, *attributes = golden()[f"{seed}/examples"].astype(int).T
    made = [
        grouping.listed(name, [f"{i}" for i in range(k)], of)
        for name, k, of in zip("abc", SIZES, attributes, strict=True)
    ]
    rows = classified(label, predicted)
    found = figures_by_group(ACCURACY, grouping.cross(*made), rows, rates=decisions(YES), least=1)
    expected, count = golden()[f"{seed}/by_group"], golden()[f"{seed}/count"]
    np.testing.assert_array_equal(found.n, np.nan_to_num(count))
    for number, figure in enumerate(FIGURES):
        ours = np.array([each.value for each in found.figures[figure]])
        # Fairlearn has a rate of 0 where no example could be counted; it is unknown here.
        nothing = np.isnan(ours) & (count > 0)
        assert not expected[nothing, number].any()
        np.testing.assert_allclose(ours[~nothing], expected[~nothing, number], rtol=1e-12)
        if not nothing.any() and sum(count > 0) > 1:
            gap = found.gap(figure)
            np.testing.assert_allclose([gap.gap, gap.ratio], golden()[f"{seed}/between"][number], atol=1e-12)
    if sum(count > 0) > 1 and not np.isnan([each.value for f in FIGURES for each in found.figures[f] if each.n]).any():
        told = parity(found)["yes"]
        rates = ("true_positive_rate/yes", "false_positive_rate/yes")
        if all(
            not math.isnan(each.value) for f in rates for each, n in zip(found.figures[f], found.n, strict=True) if n
        ):
            np.testing.assert_allclose(told[:6], golden()[f"{seed}/parity"], atol=1e-12)


def test_the_cases_have_what_makes_a_difference():
    counts = [golden()[f"{seed}/count"] for seed in range(40)]
    assert any(np.isnan(count).any() for count in counts)
    assert any((count == 1).any() for count in counts)
    assert golden()["made_with"].item().startswith('{"fairlearn": "0.15')


def binary(n, rates, seed=0):
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(rates)), n)
    label = random.integers(0, 2, len(group))
    right = random.random(len(group)) < np.repeat(rates, n)
    return classified(label, np.where(right, label, 1 - label)), group


def test_small_groups_are_told_not_ranked_and_a_gap_within_its_interval_is_undecided():
    rows, group = binary(200, (0.95, 0.6, 0.93))
    group[-171:] = -1
    group[400:429] = 2
    made = grouping.listed("colour", ("red", "green", "blue"), group)
    found = figures_by_group(ACCURACY, made, rows)
    assert (found.n, found.without) == ((200, 200, 29), 171)
    assert found.ranked() == [0, 1]
    gap = found.gap("accuracy")
    assert (gap.worst, gap.best, gap.verdict) == ("green", "red", "decided")
    a, b = (each.value for each in found.figures["accuracy"][:2])
    assert (gap.gap, gap.ratio) == pytest.approx((a - b, b / a))
    ranked = figures_by_group(ACCURACY, made, rows, least=29).gap("accuracy")
    assert ranked.high - ranked.low > gap.high - gap.low  # three pairs are looked at
    same, group = binary(60, (0.8, 0.8))
    assert figures_by_group(ACCURACY, grouping.listed("x", "ab", group), same).gap("accuracy").verdict == "undecided"
    alone = figures_by_group(ACCURACY, grouping.listed("x", "ab", np.zeros(120, int)), same)
    assert (alone.gap("accuracy"), alone.n) == (None, (120, 0))
    assert math.isnan(alone.figures["accuracy"][1].value)
    with pytest.raises(DataError, match="groups by x: none has examples, of 120 examples in the data"):
        figures_by_group(ACCURACY, grouping.listed("x", "ab", np.full(120, -1)), same)


def test_the_metric_keeps_its_rows_and_has_every_figure_for_each_group():
    rows, group = binary(50, (0.9, 0.5))
    rows |= {"log_probability": np.log(np.where(rows["rank"] == 0, 0.8, 0.2)), "confidence": np.full(100, 0.8)}
    metric = classification(YES)
    grouped = by_group(metric, grouping.listed("colour", ("red", "blue"), group), draws=30)
    plain, found = metric.compute(rows), grouped.compute(rows)
    assert {name: found[name] for name in plain} == plain
    for number, name in enumerate(("red", "blue")):
        part = {key: column[group == number] for key, column in rows.items()}
        for figure, value in metric.compute(part).items():
            assert found[f"{figure}/colour={name}"] == pytest.approx(value)
            assert found[f"{figure}/colour={name}:low"] <= value <= found[f"{figure}/colour={name}:high"]
    assert found["n/colour=red"] == 50
    loss = found["log_loss/colour=blue"]
    assert found["log_loss/colour:worst"] == loss  # the larger is the worse
    assert found["accuracy/colour:worst"] == found["accuracy/colour=blue"]
    assert found == grouped.compute(rows)
    assert all(type(value) is float for value in found.values())


def test_the_table_tells_gaps_parity_and_what_is_not_ranked():
    rows, group = binary(200, (0.95, 0.6, 0.9))
    group[-171:], group[400:429] = -1, 2
    made = grouping.listed("colour", ("red", "green", "blue", "grey"), group)
    found = figures_by_group(ACCURACY, made, rows, rates=decisions(YES))
    text = group_table.text(found)
    gap = found.gap("accuracy")
    assert f"green   red  {gap.gap:.4g} [{gap.low:.3g}, {gap.high:.3g}]  {gap.ratio:.4g}  decided" in text
    assert f"{parity(found)['yes'].equalised_odds:.4g} decided\n\nfewer" in text
    assert text.endswith("fewer than 30 examples, not ranked: blue (29)\nno example: grey\nin no group: 171 examples")
    plain = group_table.plain(found)
    assert plain["figures"]["accuracy"]["grey"] == [None] * 3
    assert plain["gaps"]["accuracy"]["verdict"] == "decided"
    assert plain["ranked"] == ["red", "green"]
    assert f"accuracy,red,200,{found.figures['accuracy'][0].value}," in group_table.csv_text(found)


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 40), (13, 40), (40, 40)])
def test_wilsons_interval_equals_scipy(right, n):
    for confidence in (0.9, 0.95, 0.999):
        expected = stats.binomtest(right, n).proportion_ci(confidence, "wilson")
        np.testing.assert_allclose(
            intervals.wilson(right / n, n, confidence), [expected.low, expected.high], atol=1e-12
        )


def test_the_bootstrap_is_seeded_and_equals_numpy():
    values = np.random.default_rng(0).gamma(2, 1, 60)
    figures = lambda chosen: {"mean": float(values[chosen].mean())}
    drawn = intervals.bootstrap(figures, 60, draws=300, seed=5)["mean"]
    np.testing.assert_array_equal(drawn, intervals.bootstrap(figures, 60, draws=300, seed=5)["mean"])
    assert (drawn != intervals.bootstrap(figures, 60, draws=300, seed=6)["mean"]).any()
    estimate = intervals.Estimate(float(values.mean()), 60, False, drawn, 60)
    for confidence in (0.9, 0.95):
        low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], method="weibull")
        wider = stats.t.ppf((1 + confidence) / 2, 59) / stats.norm.ppf((1 + confidence) / 2) * np.sqrt(60 / 59)
        expected = values.mean() + wider * (np.array([low, high]) - values.mean())
        np.testing.assert_allclose(estimate.interval(confidence), expected, rtol=1e-4)
    wide = estimate.interval(0.99)
    assert wide.low < estimate.interval().low < estimate.interval().high < wide.high
    assert np.isnan(intervals.percentiles(1.0, np.array([1.0, np.nan]), 60)).all()
    assert drawn.std() == pytest.approx(values.std() / np.sqrt(60), rel=0.15)
    for call in (lambda: intervals.wilson(1.5, 3), lambda: intervals.bootstrap(figures, 0, draws=1, seed=0)):
        with pytest.raises(ValueError, match="allowed are"):
            call()


def covered(make, truth, sets=1000):
    return np.mean(
        [(lambda bounds: bounds.low <= truth <= bounds.high)(make(np.random.default_rng(s))) for s in range(sets)]
    )


MONTE_CARLO = 3 * math.sqrt(0.95 * 0.05 / 1000)


def test_the_interval_of_a_rate_covers_in_95_of_100():
    def interval(random):
        label = np.ones(120, int)
        rows = classified(label, (random.random(120) < 0.7).astype(int))
        made = grouping.listed("x", "ab", np.repeat([0, 1], [80, 40]))
        return figures_by_group(ACCURACY, made, rows).figures["accuracy"][0].interval()

    assert covered(interval, 0.7) == pytest.approx(0.95, abs=MONTE_CARLO)


def test_the_interval_of_a_gap_covers_in_95_of_100():
    def interval(random):
        a, b = (intervals.Estimate(random.binomial(n, p) / n, n, True) for n, p in ((90, 0.8), (60, 0.6)))
        return intervals.difference(a, b)

    assert covered(interval, 0.2) == pytest.approx(0.95, abs=MONTE_CARLO)


@pytest.mark.slow
def test_the_interval_of_the_bootstrap_covers_in_95_of_100():
    metric = Metric(lambda prediction, batch: {}, lambda rows: {"spread": float(rows["x"].mean())})

    def interval(random):
        rows = {"index": np.arange(100), "x": random.normal(2, 1, 100)}
        made = grouping.listed("x", ("a",), np.zeros(100, int))
        return (
            figures_by_group(metric, made, rows, draws=200, seed=int(random.integers(1 << 30)))
            .figures["spread"][0]
            .interval()
        )

    assert covered(interval, 2.0) == pytest.approx(0.95, abs=MONTE_CARLO)


COCO = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR1",
    "AR10",
    "AR100",
    "AR_small",
    "AR_medium",
    "AR_large",
)


def colours(seed, rows):
    return np.random.default_rng(seed).integers(-1, 2, rows["area"].shape)


def of_colours(number):
    return grouping.listed("colour", ("red", "blue"), number.ravel())._replace(number=lambda rows: number, objects=True)


@pytest.mark.parametrize("seed", range(16))
def test_ap_and_recall_of_a_group_of_objects_equal_pycocotools_with_the_others_ignored(seed):
    rows = random_rows(seed, ties=seed % 2 == 0, grid=seed % 3 == 0)
    number = colours(seed, rows)
    found = figures_by_group(detection(4, errors=False), of_colours(number), rows, draws=0)
    for group in range(2):
        members = number == group
        counted = members & rows["annotated"] & ~rows["ignore"]
        assert found.n[group] == counted.sum()
        if not counted.any():
            continue
        evaluation = pycoco({**rows, "area": np.where(members, rows["area"], OUTSIDE)}, 4)
        expected = np.where(evaluation.stats == -1, np.nan, evaluation.stats)
        ours = [found.figures[name][group].value for name in COCO]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)
        some = dict(rows)
        some["detected"] = rows["detected"] & (np.arange(rows["detected"].shape[1]) < 100)
        evaluation = pycoco({**some, "area": np.where(members, rows["area"], OUTSIDE)}, 4)
        right = 0
        for cell in evaluation.evalImgs:
            if cell is not None and cell["aRng"] == [0, 1e10]:
                counts = (np.asarray(cell["dtScores"]) >= 0.5) & ~cell["dtIgnore"][0] & (cell["dtMatches"][0] > 0)
                right += counts.sum()
        recall = figures_by_group(detection(4, errors=False), of_colours(number), some, draws=0).figures["recall"][
            group
        ]
        assert recall.value == pytest.approx(right / counted.sum())


@pytest.mark.parametrize("attribute", ["size", "colour"])
def test_mask_ap_of_a_group_equals_pycocotools_with_the_others_ignored(attribute):
    rows, masks, true = instance_cases.random_case(6)
    number = np.full((len(true), 9), -1)
    for image, table in enumerate(true):
        number[image, : len(table)] = np.random.default_rng(image).integers(-1, 2, len(table))
    groups, of = {
        "size": (grouping.size(), lambda image, table: np.digitize(table[:, 6], grouping.LEAST_AREAS)),
        "colour": (grouping.of_objects("colour", ("red", "blue")), lambda image, table: number[image, : len(table)]),
    }[attribute]
    metric = instances(instance_cases.CLASSES, errors=False)
    found = figures_by_group(metric, groups, {**rows, "measured:colour": number}, draws=0)
    for group in range(2):
        tables = [table.copy() for table in true]
        for image, table in enumerate(tables):
            table[of(image, true[image]) != group, 6] = OUTSIDE
        stats = instance_cases.pycoco(rows, masks, tables).stats
        ours = [found.figures[f"mask_{name}"][group].value for name in COCO]
        np.testing.assert_allclose(ours, np.where(stats == -1, np.nan, stats), rtol=0, atol=1e-9)


def test_what_groups_are_told_from_is_condensed_as_objects_are():
    condensed = Metric(lambda prediction, batch: {}, lambda rows: {}, None, lambda rows: {"index": rows["index"]})
    groups = [grouping.of_objects("colour", ("red", "blue")), grouping.brightness()]
    condense = observing(condensed, groups).condense
    rows = {"index": np.arange(2), "measured:brightness": np.array([3.0, 200.0])}
    rows["measured:colour"] = np.array([[1, 0, -1, 1], [1, 1, 0, 0]])
    annotated = np.array([[False, True, True, False], [True, False, False, True]])
    found = condense({**rows, "annotated": annotated})
    assert found["measured:colour"].tolist() == [[0, -1, -1, -1], [1, 0, -1, -1]]
    assert found["measured:brightness"].tolist() == [3.0, 200.0]
    with pytest.raises(DataError, match="by colour: the metric takes its objects from the source"):
        condense(rows)


def test_the_masks_of_shapes_are_grouped_by_colour():
    """A detector that finds each object but the red ones, as it is annotated."""
    source = synthetic.shapes(12, seed=3, size=64, max_objects=3)
    rows = target.objects(5, masks="bits", attributes=("colour",))
    stream = evaluation(lambda: source, target=rows, placer=placement.keep(64), batch_size=4)
    colour = grouping.of_objects("colour", synthetic.COLOURS)
    metric = observing(instances(3, errors=False), [colour])
    columns = []
    for batch in stream.batches(0):
        truth, red = batch.target, batch.target.attributes["colour"] == synthetic.COLOURS.index("red")
        masks = MapMasks(20.0 * jnp.unpackbits(truth.masks.bits, axis=-1, count=64).astype(jnp.float32) - 10, (64, 64))
        scores = np.full(truth.labels.shape, 0.9, np.float32)
        found = Detections(truth.boxes, truth.labels, scores, truth.valid & ~red, masks)
        columns.append(metric.condense(jax.device_get({**metric.observe(found, batch), "index": batch.index})))
    rows = {name: np.concatenate([each[name] for each in columns]) for name in columns[0]}
    found = figures_by_group(metric, colour, rows, draws=0)
    numbers = np.concatenate([each.attributes["colour"] for each in source.objects()])
    assert found.n == tuple(np.bincount(numbers, minlength=len(synthetic.COLOURS)))
    for name, n, recall, ap in zip(
        synthetic.COLOURS, found.n, found.figures["recall"], found.figures["mask_AP"], strict=True
    ):
        assert n > 0
        assert recall.value == (name != "red")
        assert ap.value == pytest.approx(float(name != "red"))


def test_groups_of_objects_are_drawn_by_image_and_need_rows_of_objects():
    rows = random_rows(4)
    number = colours(4, rows)
    found = figures_by_group(detection(4, errors=False), of_colours(number), rows, draws=20)
    for group in range(2):
        for name in ("AP", "recall"):
            each = found.figures[name][group]
            bounds = each.interval()
            assert bounds.low <= each.value <= bounds.high
            assert len(each.resampled) == 20
    assert not {"precision", "f1"} & found.figures.keys()
    sized = figures_by_group(detection(4, errors=False), grouping.size(), rows, draws=0)
    assert found.without == (rows["annotated"] & ~rows["ignore"] & (number < 0)).sum()
    assert sized.names == ("small", "medium", "large")
    with pytest.raises(TypeError, match="need the rows of metrics.detection"):
        figures_by_group(ACCURACY, of_colours(number), binary(10, (0.5,))[0])
    with pytest.raises(TypeError, match="allowed is one number for each object"):
        figures_by_group(detection(4), of_colours(number[:, :3]), rows)
    with pytest.raises(ValueError, match="allowed are -1, for none, to 1"):
        figures_by_group(detection(4), of_colours(number)._replace(number=lambda rows: number + 3), rows)
