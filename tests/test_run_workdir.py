"""The folder of a run."""

import errno
import os
from pathlib import Path

import pytest

from jaxvision.errors import WorkdirError
from jaxvision.run.workdir import Recipe, Workdir


def source(tmp_path, text="def build(config):\n    return 1\n", name="e.py") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


DATA = {"train": "abc"}


def started(tmp_path, data, **changes):
    workdir = Workdir(tmp_path / "run")
    with workdir.held():
        workdir.open(Recipe(source(tmp_path), data, ["python", "a file"]), DATA, **changes)
    workdir.metrics.write_text('{"step": 1}\n')
    return workdir


def test_a_workdir_keeps_what_rebuilds_the_run(tmp_path):
    workdir = started(tmp_path, {"a": 1})
    names = {path.name for path in workdir.path.iterdir() if path.suffix != ".patch"}
    assert names == {
        "config.json",
        "experiment.py",
        "data.json",
        "versions.json",
        "provenance.json",
        "classes.json",
        "command.txt",
        "starts.jsonl",
        "metrics.jsonl",
        "lock",
    }
    workdir.open(Recipe(source(tmp_path), {"a": 1}, ["again"]), DATA)
    assert (workdir.path / "command.txt").read_text() == "python 'a file'\nagain\n"


def test_another_run_in_the_workdir_is_refused_with_the_fields_that_differ(tmp_path):
    workdir = started(tmp_path, {"a": 1, "b": {"c": 2}, "gone": 0})
    before = {path: path.read_bytes() for path in workdir.path.iterdir()}
    with pytest.raises(
        WorkdirError, match="config.b.c is 2 there and 3 here; config.gone is 0 there and absent here"
    ) as e:
        workdir.open(
            Recipe(source(tmp_path, "def build(config):\n    return 2\n"), {"a": 1, "b": {"c": 3}}, ["c"]),
            {"train": "abd"},
        )
    assert "the data of 'train' have changed" in str(e.value)
    assert "the code of" in str(e.value)
    assert "--fork" in str(e.value)
    assert {path: path.read_bytes() for path in workdir.path.iterdir()} == before


def test_comments_and_docstrings_make_no_other_experiment(tmp_path):
    workdir = started(tmp_path, {"a": 1})
    changed = '"""New words."""\n\n\ndef build(config):\n    """More."""\n    return 1  # why\n'
    workdir.open(Recipe(source(tmp_path, changed), {"a": 1}, ["c"]), DATA)


def test_a_fork_keeps_the_config_that_it_leaves(tmp_path):
    workdir = started(tmp_path, {"a": 1})
    workdir.open(Recipe(source(tmp_path), {"a": 2}, ["c"]), DATA, fork=True)
    assert '"a": 2' in workdir.config.read_text()
    assert '"a": 1' in (workdir.path / "config.1.json").read_text()
    assert (workdir.path / "experiment.1.py").exists()


def test_a_fork_by_the_experiment_file_in_the_workdir_itself(tmp_path):
    workdir = started(tmp_path, {"a": 1})
    workdir.open(Recipe(workdir.source, {"a": 2}, ["c"]), DATA, fork=True)
    assert workdir.source.read_text() == source(tmp_path).read_text()
    workdir.open(Recipe(workdir.source, {"a": 2}, ["c"]), DATA)


def test_a_run_that_has_lost_its_config_is_not_taken_for_any_other(tmp_path):
    workdir = started(tmp_path, {"a": 1})
    workdir.config.unlink()
    with pytest.raises(WorkdirError, match=r"holds a run, but its config.json can't be read"):
        workdir.open(Recipe(source(tmp_path), {"a": 2}, ["c"]), DATA)


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
            workdir.open(Recipe(source(tmp_path), {"a": value}, ["c"]), DATA)
    assert '"a": 2' in workdir.config.read_text()


def test_a_file_in_the_place_of_the_workdir_is_an_error_and_stays(tmp_path):
    (tmp_path / "run").write_text("mine")
    with (
        pytest.raises(WorkdirError, match="can't write the workdir .*run: File exists"),
        Workdir(tmp_path / "run").held(),
    ):
        pass
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize("number", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_told_and_used(tmp_path, monkeypatch, caplog, number):
    def flock(file, operation):
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    monkeypatch.setattr("fcntl.flock", flock)
    assert started(tmp_path, {"a": 1}).config.exists()
    assert "let no other process train there" in caplog.text


def test_a_lock_that_is_a_link_leaves_what_it_leads_to(tmp_path):
    (tmp_path / "mine").write_text("text")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/lock").symlink_to(tmp_path / "mine")
    with Workdir(tmp_path / "run").held():
        pass
    assert (tmp_path / "mine").read_text() == "text"


@pytest.mark.parametrize("made_anew", [False, True])
def test_a_workdir_that_is_moved_while_it_is_held_is_missed(tmp_path, made_anew):
    workdir = Workdir(tmp_path / "run")
    with workdir.held():
        workdir.check_there()
        workdir.path.rename(tmp_path / "elsewhere")
        if made_anew:
            workdir.path.mkdir()
            (workdir.path / "lock").touch()
        with pytest.raises(WorkdirError, match="run was moved or removed while the run was in it"):
            workdir.check_there()


@pytest.mark.parametrize("name", ["gs://bucket/run", "run\udcff"])
def test_a_workdir_of_another_machine_or_of_no_text_is_refused(name):
    with pytest.raises(WorkdirError, match="the workdir can't be used"):
        Workdir(name)


def test_a_refusal_names_up_to_20_differences_and_counts_the_others(tmp_path):
    workdir = started(tmp_path, {f"field{i:02}": i for i in range(30)})
    other = Recipe(source(tmp_path), {f"field{i:02}": -i - 1 for i in range(30)}, ["c"])
    with pytest.raises(WorkdirError) as refused:
        workdir.check(other, DATA)
    assert str(refused.value).count(" there and ") == 20
    assert "config.field19 is 19 there and -20 here; and 10 more. Choose another workdir" in str(refused.value)
