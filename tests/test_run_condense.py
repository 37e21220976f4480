"""Rows that a metric condenses on the host: as each batch arrives, in a whole run, by two processes."""

import json
from pathlib import Path

import numpy as np
import pytest
from condensed_metric import condensed
from test_run_processes import ended, meeting, port, start  # noqa: F401

from jaxvision import run
from jaxvision.experiment import Evaluation
from jaxvision.run import config, evaluation, rows
from jaxvision.types import Batch, ClassScores, Labels, Metric

HERE = Path(__file__).parent
LINEAR, TINY = HERE / "linear_experiment.py", HERE / "tiny_experiment.py"


def batches(count=11, each=4):
    for first in range(0, count, each):
        index = np.arange(first, first + each)
        size = np.ones((each, 2), np.int32)
        yield Batch(np.zeros((each, 1, 1, 1)), size, size, count - 1 - index, index < count, Labels(index % 3))


def plain(scores, batch):
    return {"label": batch.target.label}


def test_condensed_rows_are_of_all_valid_examples_in_the_order_of_their_index():
    seen = []

    def condense(rows):
        seen.append(len(rows["index"]))
        text = np.empty(len(rows["index"]), object)
        text[:] = [str(i).encode() for i in rows["index"]]
        return {"index": rows["index"], "label": rows["label"], "text": text}

    metric = Metric(plain, lambda rows: {"sum": rows["label"].sum()}, condense=condense)
    observe = evaluation.make_observe(lambda variables, batch: ClassScores(batch.image), metric)
    result = evaluation.measure(observe, {}, batches(), metric)
    assert seen == [4, 4, 3]
    assert result.metrics == {"sum": sum(i % 3 for i in range(11))}
    assert result.rows["text"].tolist() == [str(i).encode() for i in range(11)]
    np.testing.assert_array_equal(result.rows["label"], (10 - np.arange(11)) % 3)
    uncondensed = evaluation.measure(observe, {}, batches(), metric._replace(condense=None))
    assert uncondensed.metrics == result.metrics


def test_rows_are_condensed_while_later_batches_are_under_way():
    drawn, metric = [], Metric(plain, lambda rows: {})
    observe = evaluation.make_observe(lambda variables, batch: None, metric)

    def counted():
        for batch in batches(40):
            drawn.append(len(drawn))
            yield batch

    for number, part in enumerate(evaluation.observed(observe, {}, counted())):
        assert len(drawn) == min(number + evaluation.BATCHES_UNDER_WAY, 10)
        assert len(part["index"]) == 4
    assert number == 9


@pytest.mark.parametrize(
    ("condense", "message"),
    [
        (lambda rows: {"index": rows["index"], "a": rows["label"][1:]}, "condense gave 3 rows of 'a' for 4 examples"),
        (lambda rows: {"label": rows["label"]}, "condense gave 0 rows of 'index' for 4 examples"),
    ],
)
def test_condensed_rows_that_are_not_a_row_an_example_are_refused(condense, message):
    metric = Metric(plain, lambda rows: {}, condense=condense)
    observe = evaluation.make_observe(lambda variables, batch: None, metric)
    with pytest.raises(ValueError, match=message):
        evaluation.measure(observe, {}, batches(), metric)


def test_a_run_with_condensed_rows_evaluates_resumes_and_keeps_them(tmp_path):
    built = config.build(LINEAR, {})[0]
    test = built.evaluations["test"]
    experiment = built._replace(evaluations={"test": Evaluation(test.stream, condensed(test.metric))})
    run.train(experiment._replace(steps=4), tmp_path / "run", report=False)
    resumed = run.train(experiment, tmp_path / "run", report=False)
    assert resumed.metrics["test/right_texts"] == 1
    table = rows.read(resumed.workdir, "test")
    assert table.step == resumed.step == 6
    assert [len(text) for text in table.columns["text"]] == [i + 2 for i in range(8)]
    found = run.evaluate(resumed.workdir, "latest", experiment=experiment).evaluations["test"]
    assert {f"test/{name}": value for name, value in found.metrics.items()} == resumed.metrics
    assert experiment.evaluations["test"].metric.compute(table.columns) == found.metrics


@pytest.mark.slow
def test_both_processes_condense_the_rows_of_all(tmp_path, port):  # noqa: F811
    path, module = tmp_path / TINY.name, HERE / "condensed_metric.py"
    (tmp_path / module.name).write_text(module.read_text())
    text = TINY.read_text().replace("metrics(config.classes)", "condensed(metrics(config.classes))")
    path.write_text(text.replace("import functools\n", "import functools\n\nfrom condensed_metric import condensed\n"))
    fields = ["--config.steps=4", "--config.log=2", "--config.checkpoint=2", "--config.evaluate=2"]
    both = [start(tmp_path / "run", *fields, *meeting(i, port), config=path) for i in range(2)]
    assert [code for code, _ in map(ended, both)] == [0, 0]
    table = rows.read(tmp_path / "run", "test")
    assert [len(text) for text in table.columns["text"]] == [i + 2 for i in table.columns["index"]]
    assert table.columns["index"].tolist() == list(range(70))
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["test/right_texts"] for row in metrics if "test/accuracy" in row] == [1, 1]
