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


def test_the_report_is_of_the_best_checkpoint_also_after_a_resume(reported, tmp_path):
    experiment, drawn = reported
    run.train(experiment, tmp_path / "run")
    assert drawn == [("step 6, averaged weights", means(tmp_path / "run")[6])]
    run.train(experiment, tmp_path / "run")  # all is done: evaluates the best checkpoint anew
    assert drawn[1][0] == "step 6, averaged weights"
    assert drawn[1][1] == pytest.approx(drawn[0][1], rel=1e-6)


def test_an_interrupted_run_leaves_its_curves(reported, tmp_path, monkeypatch):
    experiment, drawn = reported

    class Interruption(training.Interruption):
        def requested(self, done):
            self.name = "SIGTERM" if done == 5 else None
            return self.name is not None

    monkeypatch.setattr(training, "Interruption", Interruption)
    trained = run.train(experiment, tmp_path / "run")
    assert (trained.step, trained.interrupted) == (5, "SIGTERM")
    assert [path.name for path in (tmp_path / "run" / "report").iterdir()] == ["curves.png"]
    assert drawn == []
    run.train(experiment, tmp_path / "other", report=False)
    assert not (tmp_path / "other" / "report").exists()


def test_timing_has_the_speed_of_training(reported, tmp_path):
    run.train(reported[0], tmp_path / "run", report=False)
    rows = [json.loads(line) for line in (tmp_path / "run" / "timing.jsonl").read_text().splitlines()]
    assert rows[-1]["images_per_second"] == pytest.approx(16 / rows[-1]["seconds_per_step"])
