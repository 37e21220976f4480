from pathlib import Path

import pytest
from ml_collections import ConfigDict

from jaxvision import experiment
from jaxvision.experiment import ConfigError, Workdir, WorkdirError


def config():
    return ConfigDict(
        {
            "steps": 10,
            "rate": 0.1,
            "name": "a",
            "flag": True,
            "sizes": (1, 2),
            "shares": [0.5],
            "anything": None,
            "model": {"depth": 3, "width": 64},
        }
    )


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("steps", "20", 20),
        ("rate", "2", 2.0),
        ("rate", "1e-3", 1e-3),
        ("name", "12", "12"),
        ("flag", "false", False),
        ("flag", "True", True),
        ("sizes", "(3, 4, 5)", (3, 4, 5)),
        ("sizes", "[3]", (3,)),
        ("rate", "inf", float("inf")),
        ("sizes", "1,2", (1, 2)),
        ("shares", "(1, 2)", [1, 2]),
        ("anything", "{[]: 1}", "{[]: 1}"),
        ("anything", "7", 7),
        ("anything", "text", "text"),
        ("model.depth", "5", 5),
    ],
)
def test_values_are_read_by_the_type_of_the_default(field, text, value):
    found = experiment.configure(config(), {field: text})
    for name in field.split("."):
        found = found[name]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("stepz", "1", r"config has no field 'stepz'; did you mean 'steps'\?"),
        ("model.dept", "1", r"config has no field 'model.dept'; did you mean 'model.depth'\?"),
        ("modle.depth", "1", r"config has no field 'modle.depth'; did you mean 'model.depth'\?"),
        ("zzzzzz", "1", "config has no field 'zzzzzz'; there are: anything, flag, model.depth"),
        ("steps", "ten", r"config.steps is of type int \(default 10\), not 'ten'"),
        ("steps", "1.5", "config.steps is of type int"),
        ("steps", "true", "config.steps is of type int"),
        ("rate", "fast", "config.rate is of type float"),
        ("flag", "1", "config.flag is of type bool"),
        ("sizes", "3", "config.sizes is of type tuple"),
        ("model", "3", "config.model is a section; its fields: depth, width"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(field, text, message):
    with pytest.raises(ConfigError, match=message):
        experiment.configure(config(), {field: text})


def test_the_config_is_locked_and_the_original_untouched():
    original = config()
    found = experiment.configure(original, {"steps": "3"})
    assert original.steps == 10
    with pytest.raises(AttributeError):
        found.other = 1


def test_loading_names_a_missing_file_and_its_neighbour(tmp_path):
    (tmp_path / "quickstart.py").write_text("")
    with pytest.raises(ConfigError, match=r"no experiment file .*quickstar\.py; did you mean 'quickstart\.py'"):
        experiment.load(tmp_path / "quickstar.py")
    (tmp_path / "notes.md").write_text("")
    with pytest.raises(ConfigError, match=r"notes.md is no Python file"):
        experiment.load(tmp_path / "notes.md")
    with pytest.raises(ConfigError, match=r"has no function get_config\(\)"):
        experiment.load(tmp_path / "quickstart.py")


def test_a_config_that_is_not_data_is_refused():
    with pytest.raises(ConfigError, match="not data"):
        experiment.as_json(ConfigDict({"f": lambda: 1}))


def source(tmp_path, text="def build(config):\n    return 1\n", name="e.py") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


DATA = {"train": "abc"}


def started(tmp_path, data, **changes):
    workdir = Workdir(tmp_path / "run")
    with workdir.held():
        workdir.open(data, source(tmp_path), DATA, ["python", "a file"], **changes)
    workdir.metrics.write_text('{"step": 1}\n')
    return workdir


def test_a_workdir_keeps_what_rebuilds_the_run(tmp_path):
    workdir = started(tmp_path, {"a": 1})
    names = {path.name for path in workdir.path.iterdir()}
    assert names == {
        "config.json",
        "experiment.py",
        "data.json",
        "versions.json",
        "command.txt",
        "metrics.jsonl",
        "lock",
    }
    workdir.open({"a": 1}, source(tmp_path), DATA, ["again"])
    assert (workdir.path / "command.txt").read_text() == "python 'a file'\nagain\n"


def test_another_run_in_the_workdir_is_refused_with_the_fields_that_differ(tmp_path):
    workdir = started(tmp_path, {"a": 1, "b": {"c": 2}, "gone": 0})
    before = {path: path.read_bytes() for path in workdir.path.iterdir()}
    with pytest.raises(
        WorkdirError, match="config.b.c is 2 there and 3 here; config.gone is 0 there and absent here"
    ) as e:
        workdir.open(
            {"a": 1, "b": {"c": 3}}, source(tmp_path, "def build(config):\n    return 2\n"), {"train": "abd"}, ["c"]
        )
    assert "the data of 'train' have changed" in str(e.value)
    assert "the code of" in str(e.value)
    assert "--fork" in str(e.value)
    assert {path: path.read_bytes() for path in workdir.path.iterdir()} == before


def test_comments_and_docstrings_make_no_other_experiment(tmp_path):
    workdir = started(tmp_path, {"a": 1})
    changed = '"""New words."""\n\n\ndef build(config):\n    """More."""\n    return 1  # why\n'
    workdir.open({"a": 1}, source(tmp_path, changed), DATA, ["c"])


def test_a_fork_keeps_the_config_that_it_leaves(tmp_path):
    workdir = started(tmp_path, {"a": 1})
    workdir.open({"a": 2}, source(tmp_path), DATA, ["c"], fork=True)
    assert '"a": 2' in workdir.config.read_text()
    assert '"a": 1' in (workdir.path / "config.1.json").read_text()
    assert (workdir.path / "experiment.1.py").exists()


def test_a_fork_by_the_experiment_file_in_the_workdir_itself(tmp_path):
    workdir = started(tmp_path, {"a": 1})
    workdir.open({"a": 2}, workdir.source, DATA, ["c"], fork=True)
    assert workdir.source.read_text() == source(tmp_path).read_text()
    workdir.open({"a": 2}, workdir.source, DATA, ["c"])


def test_a_run_that_has_lost_its_config_is_not_taken_for_any_other(tmp_path):
    workdir = started(tmp_path, {"a": 1})
    workdir.config.unlink()
    with pytest.raises(WorkdirError, match=r"holds a run, but its config.json can't be read"):
        workdir.open({"a": 2}, source(tmp_path), DATA, ["c"])


def test_two_processes_can_not_hold_one_workdir(tmp_path):
    first, second = Workdir(tmp_path / "run"), Workdir(tmp_path / "run")
    with first.held(), pytest.raises(WorkdirError, match="in use by another process"), second.held():
        pass
    with Workdir(tmp_path / "run").held():
        pass


def test_a_workdir_without_any_result_may_be_taken_over(tmp_path):
    workdir = Workdir(tmp_path / "run")
    for value in (1, 2):
        with workdir.held():
            workdir.open({"a": value}, source(tmp_path), DATA, ["c"])
    assert '"a": 2' in workdir.config.read_text()


def test_a_file_in_the_place_of_the_workdir_is_an_error_and_stays(tmp_path):
    (tmp_path / "run").write_text("mine")
    with (
        pytest.raises(WorkdirError, match="can't write the workdir .*run: File exists"),
        Workdir(tmp_path / "run").held(),
    ):
        pass
    assert (tmp_path / "run").read_text() == "mine"
