"""The pictures of a run: of the checkpoint that predict takes, with its step; of a run that was interrupted, its curves."""

import json

import pytest
from finished_run import TINY

from jaxvision import run
from jaxvision.experiment import Keep
from jaxvision.run import config, training
from jaxvision.types import Metric


@pytest.fixture
def reported():
    """The experiment, whose third evaluation is its best, and where it notes what is drawn of which rows."""
    experiment = config.build(TINY, {"steps": "8", "evaluate": "2", "checkpoint": "2", "log": "2"}).experiment
    scores, drawn = iter([0.1, 0.2, 0.9, 0.3, 0.4, 0.5]), []

    def compute(rows):
        return {"score": next(scores), "mean": float(rows["confidence"].mean())}

    def report(folder, name, rows, stream, of):
        drawn.append((of, float(rows["confidence"].mean())))

    test = experiment.evaluations["test"]
    test = test._replace(metric=Metric(test.metric.observe, compute), report=report)
    return experiment._replace(evaluations={"test": test}, keep=Keep(latest=1, best=1, by="test/score")), drawn


def means(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["test/mean"] for row in rows if "test/mean" in row}


def test_the_report_is_of_the_best_checkpoint_and_timing_has_the_speed(reported, tmp_path):
    experiment, drawn = reported
    run.train(experiment, tmp_path / "run")
    assert drawn == [("step 6, averaged weights", means(tmp_path / "run")[6])]
    rows = [json.loads(line) for line in (tmp_path / "run" / "timing.jsonl").read_text().splitlines()]
    assert rows[-1]["images_per_second"] == pytest.approx(16 / rows[-1]["seconds_per_step"])


@pytest.mark.slow
def test_a_run_that_is_done_evaluates_its_best_checkpoint_anew_for_the_report(reported, tmp_path):
    experiment, drawn = reported
    run.train(experiment, tmp_path / "run", report=False)
    run.train(experiment, tmp_path / "run")
    (shown,) = drawn
    assert shown == ("step 6, averaged weights", pytest.approx(means(tmp_path / "run")[6], rel=1e-6))


@pytest.mark.slow
def test_an_interrupted_run_leaves_its_curves(reported, tmp_path, monkeypatch):
    experiment, drawn = reported

    class Interruption(training.Interruption):
        def requested(self, step):
            self.name = "SIGTERM" if step == 5 else None
            return self.name is not None

    monkeypatch.setattr(training, "Interruption", Interruption)
    trained = run.train(experiment, tmp_path / "run")
    assert (trained.step, trained.interrupted) == (5, "SIGTERM")
    assert [path.name for path in (tmp_path / "run" / "report").iterdir()] == ["curves.png"]
    assert drawn == []
