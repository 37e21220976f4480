"""Searches: the space, the journal and its trials, by one launcher and by two; and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxvision.errors import ConfigError, WorkdirError
from launch import description, journal, search, space, study
from launch.description import Search
from launch.plan import Deciding
from launch.study import Study
from launch.values import LogUniform, Uniform

pytest.importorskip("optuna")
LINEAR = Path(__file__).parent / "linear_experiment.py"
TINY = LINEAR.parent / "tiny_experiment.py"
RATES = {"learning_rate": "log_uniform(1e-4, 1e-1)", "steps": "uniform(1, 9)"}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(LINEAR.parent))
    description.require("cmaes")


def searching(sampler="tpe", texts=RATES, **more):
    return Search(LINEAR, "code", {}, space.make(LINEAR, texts, {}), Deciding("test/accuracy"), sampler, **more)


def figure(params):
    """A figure with one best place."""
    return -((np.log10(params["learning_rate"]) + 2.3) ** 2) - 0.1 * (params["steps"] - 4) ** 2


def suggested(of, folder, counts):
    """All suggestions, and their launcher ended after each of the counts, one time with a trial that is not finished."""
    folder.mkdir()
    for most in counts:
        with Study(of, folder) as opened:
            for trial in opened.unfinished():
                assert opened.name(trial.number, f"run{trial.number}") is None
                assert opened.claim(f"run{trial.number}")
                opened.tell(trial.number, "COMPLETE", figure(trial.params))
            while trial := opened.ask(most):
                if trial.number + 1 < most or most == max(counts):
                    opened.tell(trial.number, "COMPLETE", figure(trial.params))
    with Study(of, folder) as opened:
        assert opened.ask(max(counts)) is None
        assert not opened.unfinished()
        return [(trial.params, trial.value) for trial in opened.trials()]


@pytest.mark.parametrize(("sampler", "most"), [("tpe", 14), ("random", 5), ("cmaes", 12)])
def test_a_search_that_was_ended_suggests_what_it_would_have_suggested(sampler, most, tmp_path):
    whole = suggested(searching(sampler), tmp_path / "whole", [most])
    ended = suggested(searching(sampler), tmp_path / "ended", [2, 3, most - 2, most])
    assert ended == whole
    assert len({json.dumps(params) for params, _ in whole}) == most
    assert suggested(searching(sampler, seed=1), tmp_path / "other", [3])[0] != whole[0]


def test_suggestions_keep_to_their_space():
    texts = {
        "learning_rate": "log_uniform(1e-4, 2e-4)",
        "steps": "log_uniform(2, 4)",
        "seed": "3,5",
        "precision": "a,b",
    }
    of = searching("random", texts)
    assert of.space.fields["learning_rate"] == LogUniform(1e-4, 2e-4)
    known, drawn = [], []
    for _ in range(40):
        known.append(study.suggestion(of, known))
        drawn.append(space.change(known[-1].params))
    assert {each["steps"] for each in drawn} == {"2", "3", "4"}
    assert {(each["seed"], each["precision"]) for each in drawn} == {(s, p) for s in "35" for p in "ab"}
    assert all(1e-4 <= float(each["learning_rate"]) <= 2e-4 for each in drawn)
    assert max(len(each["learning_rate"]) for each in drawn) <= len("0.000123456")
    assert space.make(LINEAR, {"learning_rate": "uniform(0, 3)"}, {}).fields == {"learning_rate": Uniform(0, 3)}


def test_two_launchers_number_their_trials_together_and_run_none_twice(tmp_path):
    of = searching("random")
    with Study(of, tmp_path) as one:
        with Study(of, tmp_path) as other:
            numbers = [each.ask(4) for each in (one, other, other, one)]
            assert [trial.number for trial in numbers] == [0, 1, 2, 3]
            assert one.ask(4) is None
            for trial in numbers:
                one.name(trial.number, f"run{trial.number % 3}")  # 0 and 3 are the same run
            assert [one.claim(f"run{n}") for n in range(3)] == [True, False, False]
            assert [other.claim(f"run{n}") for n in range(3)] == [False, True, True]
            other.tell(1, "COMPLETE", 0.5)
            one.tell(1, "COMPLETE", 0.7)  # it is finished
        assert one.trials()[1].value == 0.5
        assert [trial.number for trial in one.unfinished()] == [0, 2, 3]
        assert one.claim("run2")
    assert not list((tmp_path / study.LAUNCHERS).iterdir())
    with Study(of, tmp_path) as third:
        assert third.claim("run0")


def test_a_repeated_suggestion_is_told_what_is_known(tmp_path):
    with Study(searching("random"), tmp_path) as opened:
        for number, (ended, value) in enumerate((("COMPLETE", 0.3), ("FAIL", None), ("PRUNED", None))):
            for _ in range(2):
                opened.ask(6)
            assert opened.name(2 * number, f"run{number}") is None
            opened.report(2 * number, 5, 0.25)
            opened.tell(2 * number, ended, value, "it broke" if ended == "FAIL" else "")
            opened.repeat(2 * number + 1, opened.name(2 * number + 1, f"run{number}"))
        found = [(t.state.name, t.value, t.intermediate_values, t.user_attrs.get("error")) for t in opened.trials()]
    assert found[::2] == found[1::2]
    assert [state for state, *_ in found[::2]] == ["COMPLETE", "FAIL", "PRUNED"]
    assert found[4][1:] == (0.25, {5: 0.25}, None)
    assert found[2][3] == "it broke"


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_trial_is_pruned_beyond_the_median_of_those_that_are_complete(better, tmp_path):
    of = searching("random", prune="median")._replace(deciding=Deciding("test/accuracy", better))
    earlier, sign = [0.1, 0.5, 0.3, 0.9, 0.4], 1 if better == "higher" else -1
    with Study(of, tmp_path) as opened:
        for value in earlier:
            trial = opened.ask(20)
            opened.report(trial.number, 2, value)
            assert not opened.prunes(trial.number, 2)
            opened.tell(trial.number, "COMPLETE", value)
        for value in (0.35, 0.45):
            trial = opened.ask(20)
            opened.report(trial.number, 2, value)
            assert opened.prunes(trial.number, 2) == (sign * value < sign * np.median(earlier))
            assert not opened.prunes(trial.number, 1)


def test_a_torn_line_is_cut_and_a_damaged_one_refused(tmp_path):
    of = searching("random")
    with Study(of, tmp_path) as opened:
        first = opened.ask(2)
    path = tmp_path / journal.FILE
    intact = path.read_bytes()
    path.write_bytes(intact + b'{"op_code": 4, "wor')
    with Study(of, tmp_path) as opened:
        assert opened.trials()[0].params == first.params
        opened.ask(2)
    with Study(of, tmp_path) as opened:
        assert len(opened.trials()) == 2
    lines = intact.split(b"\n")
    for damage in (b"\0" * 20, b"[1]", b"7", b'{"op_code": 4}'):
        path.write_bytes(b"\n".join([*lines[:1], damage, *lines[1:]]))
        with pytest.raises(WorkdirError, match=r"search\.journal: damaged in line 2"), Study(of, tmp_path):
            pass
    path.write_bytes(b"\n".join([lines[0], *lines[-2:]]).replace(b'"study_id":0', b'"study":0'))
    with pytest.raises(WorkdirError, match=r"search\.journal: damaged"), Study(of, tmp_path):
        pass


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"code": "x"}, "of other code"),
        ({"overrides": {"seed": "1"}}, "--config.seed is not set there, 1 here"),
        (
            {"space": {**RATES, "steps": "uniform(1, 8)"}},
            r"--search.steps is uniform\(1, 9\) there, uniform\(1, 8\) here",
        ),
        ({"space": {"steps": RATES["steps"]}}, "--search.learning_rate is log_uniform.*, not set here"),
        ({"deciding": Deciding("test/accuracy", "lower")}, "--decide is test/accuracy:higher there"),
        ({"sampler": "random"}, "--sampler is tpe there, random here"),
        ({"seed": 3}, "--seed is 0 there, 3 here"),
        ({"prune": "median"}, "--prune is none there, median here"),
    ],
)
def test_another_search_in_the_folder_is_refused_and_named(change, says, tmp_path):
    of = searching()
    description.write(of, tmp_path)
    description.write(of, tmp_path)
    if "space" in change:
        change = {"space": space.make(LINEAR, change["space"], {})}
    with pytest.raises(WorkdirError, match=says) as told:
        description.write(of._replace(**change), tmp_path)
    assert str(tmp_path / description.FILE) in str(told.value)


def test_a_description_that_was_changed_or_a_sweep_is_refused(tmp_path):
    description.write(searching(), tmp_path)
    path = tmp_path / description.FILE
    text = path.read_text()
    for damaged, says in ((text.replace('"seed": 0', '"seed": 1'), "changed by hand"), (text[:50], "can't be read")):
        path.write_text(damaged)
        with pytest.raises(WorkdirError, match=says):
            description.write(searching(), tmp_path)
    path.rename(tmp_path / "plan.json")
    with pytest.raises(WorkdirError, match="the plan of a sweep"):
        description.write(searching(), tmp_path)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--trials=0", "--search.steps=1,2"], "--trials: '0' is no whole number from 1 on"),
        (["--search.steps=1,2", "--seed=-1"], "'-1' is no whole number from 0 on"),
        ([], "the search has no field"),
        (["--search.learning_rat=1,2"], "config has no field 'learning_rat'; did you mean 'learning_rate'?"),
        (["--search.steps=1,2", "--config.steps=3"], "--search.steps and --config.steps are both given"),
        (["--search.steps=3"], "has one value; --config.steps=3"),
        (["--search.steps=3,3"], "a value twice"),
        (["--search.steps=3,x"], "config.steps is of type int"),
        (["--search.steps=uniform(1, 2.5)"], "steps is a whole number; the bounds of uniform(1, 2.5) must be"),
        (["--search.precision=uniform(0, 1)"], "config.precision is of type str, which has no bounds"),
        (["--search.learning_rate=log_uniform(0, 1)"], "above 0"),
        (["--search.steps=1,2", "--sampler=cmaes"], "steps has a list of values"),
        (["--search.steps=uniform(1, 9)", "--sampler=cmaes"], "needs two fields"),
        (["--search.steps=1,2", "--sampler=grid"], "invalid choice"),
        (["--search.steps=1,2", "--decide=tset/accuracy"], "no evaluation 'tset'; did you mean 'test'"),
        (["--search.steps=1,2", "--decide=test/accuracy:up"], "allowed: higher, lower"),
        (["--search.steps"], "needs values"),
        (["--search.steps=1,2", "--search.steps=3,4"], "--search.steps is given twice"),
        (["--search.steps=1,2", "--workers=0"], "--workers=0"),
    ],
)
def test_what_can_not_be_searched_is_named_and_nothing_is_written(flags, says, tmp_path, capsys):
    folder = tmp_path / "search"
    given = [f"--config={LINEAR}", f"--workdir={folder}", "--trials=2", "--decide=test/accuracy", *flags]
    try:
        status = search.main(given)
    except SystemExit as end:
        status = end.code
    error = capsys.readouterr().err
    assert status == 2
    assert says in error
    assert len(error.splitlines()) == 1
    assert not folder.exists()


def test_a_field_that_nothing_reads_is_refused(tmp_path, capsys):
    flags = [f"--config={TINY}", f"--workdir={tmp_path / 's'}", "--trials=2", "--decide=test/accuracy"]
    assert search.main([*flags, "--search.data_dir=/a,/b"]) == 2
    assert "nothing reads config.data_dir" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_what_is_not_installed_is_told_with_the_extra(monkeypatch):
    for package, sampler in (("cmaes", "cmaes"), ("optuna", "random")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ConfigError, match=rf"package {package}, .*pip install 'jaxvision\[search\]'"):
            description.require(sampler)


def test_importing_launch_imports_no_optuna():
    names = [f"launch.{path.stem}" for path in Path(search.__file__).parent.glob("*.py") if path.stem != "__init__"]
    assert "launch.search" in names
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
    code += "assert not {'optuna', 'cmaes'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
