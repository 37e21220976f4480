"""What a run says of itself: what it trains on what, where it stands, what an evaluation measured, how fast it is."""

import math

import pytest
from finished_run import TINY

from jaxvision.experiment import Keep
from jaxvision.machine import freed
from jaxvision.run import config, lines, training
from jaxvision.run.log import Clock, Terminal
from jaxvision.run.watch import FirstCall

KEEP = Keep(by="test/accuracy")


def test_the_overview_has_device_parameters_examples_classes_batch_and_steps():
    plan = training.prepare(config.build(TINY).experiment)
    text = lines.overview(plan.experiment, plan.data, plan.mesh, plan.like)
    kernels = 4 * 9 + 4 * 8 * 9  # both convolutions
    count = int(text.partition(" parameters")[0].rpartition(" ")[2].replace(",", ""))
    assert text.startswith("CPU (")
    assert kernels < count < 10_000
    wanted = (
        "155 examples of 10 classes, evaluation test: 70 examples of 10 classes, batches of 16, 20 steps (2.06 epochs)"
    )
    assert text.endswith(wanted)


def test_a_run_with_nothing_left_to_train_says_why_and_what_trains_on():
    text = lines.standing(20, 20, "runs/a")
    assert text.startswith("nothing is left to train: all 20 steps are done (runs/a)")
    assert "--fork" in text
    assert "going on from step 5 of 20 (runs/a)" in lines.standing(5, 20, "runs/a")
    assert lines.standing(0, 20, "runs/a").startswith("compiling the training step: seconds to minutes")


def test_an_evaluation_says_whether_it_is_the_best_so_far():
    history = [{"step": 10, "test/accuracy": 0.5}, {"step": 20, "test/accuracy": 0.7}]
    (better,) = lines.evaluation_lines({"test/loss": 1.0, "test/accuracy": 0.75}, KEEP, history)
    assert better == "test/accuracy 0.75 (best so far)  test/loss 1"
    (worse,) = lines.evaluation_lines({"test/accuracy": 0.6}, KEEP, history)
    assert worse == "test/accuracy 0.6 (best 0.7 at step 20)"
    (lower,) = lines.evaluation_lines({"test/accuracy": 0.4}, KEEP._replace(mode="min"), history)
    assert lower == "test/accuracy 0.4 (best so far)"
    assert lines.evaluation_lines({"test/accuracy": 0.6}, KEEP, []) == ["test/accuracy 0.6"]
    assert lines.evaluation_lines({"test/accuracy": 0.6}, Keep(), history) == ["test/accuracy 0.6"]


@pytest.mark.parametrize(
    ("value", "mode", "best"),
    [(0.8, "max", True), (0.7, "max", False), (0.6, "max", False), (0.4, "min", True), (math.nan, "max", False)],
)
def test_the_best_is_the_first_of_equal_ones_and_never_not_a_number(value, mode, best):
    history = [{"step": 10, "test/accuracy": 0.5}, {"step": 20, "test/accuracy": 0.7}]
    keep = KEEP._replace(mode=mode)
    assert lines.is_best({"test/accuracy": value}, keep, history) is best
    assert not lines.is_best({"test/accuracy": value}, Keep(), history)


def test_a_line_of_an_evaluation_has_five_finite_metrics_and_none_of_single_classes():
    metrics = {"test/AP_large": math.nan, "test/AP/cat": 0.1, **{f"test/m{i}": float(i) for i in range(7)}}
    (line,) = lines.evaluation_lines(metrics, Keep(), [])
    assert line == "test/m0 0  test/m1 1  test/m2 2  test/m3 3  test/m4 4  and 2 more"


def test_images_a_second_are_those_of_training_alone(monkeypatch):
    said, clock = [], Clock()
    terminal = Terminal(100, 0, 8, clock, seconds_between_lines=-1.0)
    monkeypatch.setattr(terminal, "say", said.append)
    for step in range(1, 13):
        clock.seconds["step"] = 100.0 + 0.4 * step  # 100 s of compilation
        clock.seconds["data"] = 0.1 * step
        clock.seconds["evaluation"] = 50.0 * step
        terminal.step(step, {"loss": 1.0})
    terminal.close()
    assert [line.split("  ")[0] for line in said] == [f"step {step}/100" for step in (9, 10, 11, 12)]
    assert all("  16 images/s  " in line for line in said)


def test_the_first_call_of_a_step_says_how_long_it_took_and_gives_memory_back(monkeypatch):
    said, given_back = [], []
    monkeypatch.setattr(freed, "give_back", lambda: given_back.append(len(said)))
    step = FirstCall(lambda state, batch: state + batch, said.append)
    assert [step(1, 2), step(3, 4)] == [3, 7]
    assert given_back == [0]
    (line,) = said
    assert line.startswith("compiled in ")
    assert line.endswith(" s")
