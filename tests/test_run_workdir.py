"""The folder of a run."""

import errno
import os
import time
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
        "checksums.json",
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


def sealed(workdir):
    """Whether the checksums fit the files of the folder."""
    return not workdir._faults() and workdir._readable_checksums() is not None


IDENTITY = ("config.json", "experiment.py", "data.json", "classes.json", "code/own.py")


@pytest.mark.parametrize("name", IDENTITY)
@pytest.mark.parametrize("content", [b"", b"\xff\x00{", None, "folder"])
def test_a_file_that_says_what_the_run_is_and_was_damaged_is_named_and_forked_from(tmp_path, caplog, name, content):
    (tmp_path / "own.py").write_text("X = 1\n")
    recipe = Recipe(source(tmp_path, "import own\n"), {"a": 1})
    workdir = Workdir(tmp_path / "run")
    workdir.open(recipe, DATA, classes={"train": ["b", "c"]})
    workdir.metrics.write_text('{"step": 1}\n')
    workdir.open(recipe, DATA)
    path = workdir.path / name
    good = path.read_bytes()
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    before = {each: each.read_bytes() for each in workdir.path.rglob("*") if each.is_file()}
    message = rf"{name} (is gone|was changed or damaged|can't be read).*Put it back, or fork \(--fork\)"
    with pytest.raises(WorkdirError, match=message):
        workdir.open(recipe, DATA)
    assert {each: each.read_bytes() for each in workdir.path.rglob("*") if each.is_file()} == before
    assert not caplog.records
    workdir.open(recipe, DATA, classes={"train": ["b", "c"]}, fork=True)
    assert path.read_bytes() == good
    assert f"{name} " in caplog.text
    assert sealed(workdir)
    if isinstance(content, bytes):
        assert content in [each.read_bytes() for each in workdir.path.rglob("*.1*") if each.is_file()] + [
            each.read_bytes() for each in workdir.path.glob("code.1/*")
        ]


def test_a_workdir_of_an_older_version_is_gone_on_with_and_said_to_be_unchecked(tmp_path, caplog):
    workdir = started(tmp_path, {"a": 1})
    (workdir.path / "checksums.json").unlink()
    workdir.config.write_text("[")
    with pytest.raises(WorkdirError, match="holds another run: .*config.json can't be read: "):
        workdir.check(Recipe(source(tmp_path), {"a": 1}), DATA)
    workdir.config.write_text('{"a": 1}')
    workdir.open(Recipe(source(tmp_path), {"a": 1}), DATA)
    assert "has no checksums.json: whether its files are as the run wrote them is not checked" in caplog.text
    assert sealed(workdir)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"files": {}, "saved": null, "checksum": "0"}', '{"files": {"a": "b"}}']
)
def test_checksums_that_are_damaged_themselves_are_kept_aside_and_written_anew(tmp_path, caplog, content):
    workdir = started(tmp_path, {"a": 1})
    (workdir.path / "checksums.json").write_text(content)
    workdir.open(Recipe(source(tmp_path), {"a": 1}), DATA)
    assert "checksums.json can't be " in caplog.text
    assert (workdir.path / "checksums.damaged.json").read_text() == content
    assert sealed(workdir)


INFORMATIVE = ("versions.json", "provenance.json", "timing.jsonl", "starts.jsonl", "command.txt")


@pytest.mark.parametrize("name", INFORMATIVE)
@pytest.mark.parametrize("content", [b"\xff\x00\n{", b"[1]\n\0\n", "folder"])
def test_junk_in_a_file_that_only_informs_is_kept_aside(tmp_path, caplog, name, content):
    workdir, path = started(tmp_path, {"a": 1}), tmp_path / "run" / name
    path.unlink(missing_ok=True)
    path.mkdir() if content == "folder" else path.write_bytes(content)
    workdir.open(Recipe(source(tmp_path), {"a": 1}, ["again"]), DATA)
    (said,) = [record.getMessage() for record in caplog.records]
    aside = path.with_name(f"{path.stem}.damaged{path.suffix}")
    assert f"{name} can't be read" in said
    assert aside.name in said
    assert aside.is_dir() if content == "folder" else aside.read_bytes() == content
    assert path.is_file() or name == "timing.jsonl"


@pytest.mark.parametrize("name", ["report", "tensorboard"])
def test_a_file_in_the_place_of_a_folder_is_kept_aside(tmp_path, caplog, name):
    workdir = started(tmp_path, {"a": 1})
    (workdir.path / name).write_text("mine")
    workdir.open(Recipe(source(tmp_path), {"a": 1}), DATA)
    assert f"{name} is no folder; kept as {name}.damaged" in caplog.text
    assert (workdir.path / f"{name}.damaged").read_text() == "mine"


def test_a_line_that_was_being_written_at_the_end_spoils_no_log(tmp_path, caplog):
    workdir = started(tmp_path, {"a": 1})
    for name in ("timing.jsonl", "starts.jsonl"):
        (workdir.path / name).write_text('{"step": 1}\n{"st')
    for _ in range(2):
        workdir.open(Recipe(source(tmp_path), {"a": 1}), DATA)
    assert not caplog.records
    assert len((workdir.path / "starts.jsonl").read_text().splitlines()) == 3
    assert (workdir.path / "timing.jsonl").read_text() == '{"step": 1}\n'


@pytest.mark.parametrize("fork", [False, True])
@pytest.mark.parametrize("emptied", [False, True])
def test_a_run_that_has_lost_its_checkpoints_is_not_begun_anew(tmp_path, fork, emptied):
    workdir, recipe = started(tmp_path, {"a": 1}), Recipe(source(tmp_path), {"a": 1})
    (workdir.path / "checkpoints").mkdir()
    workdir.open(recipe, DATA)  # killed before its first checkpoint
    workdir.note_saved(5)
    (workdir.path / "checkpoints/5").mkdir()
    (workdir.path / "checkpoints/5").rename(workdir.path / "checkpoints.replaced")
    if not emptied:
        (workdir.path / "checkpoints").rmdir()
    with pytest.raises(
        WorkdirError, match="checkpoints has no checkpoint, but this run has saved some, the first at step 5"
    ):
        Workdir(workdir.path).open(recipe, DATA, fork=fork)
    (workdir.path / "checkpoints.replaced/5").mkdir()  # by a process that died while it wrote it anew
    Workdir(workdir.path).open(recipe, DATA, fork=fork)


def test_a_run_that_has_lost_its_config_is_not_taken_for_any_other(tmp_path):
    workdir = started(tmp_path, {"a": 1})
    workdir.config.unlink()
    with pytest.raises(WorkdirError, match=r"config.json is gone. Put it back, or fork"):
        workdir.open(Recipe(source(tmp_path), {"a": 2}, ["c"]), DATA)


def test_what_a_kill_left_half_written_is_swept_when_it_is_a_day_old(tmp_path):
    run = tmp_path / "run"
    (run / "report").mkdir(parents=True)
    hidden = [place / f".{digit * 32}.partial" for digit in "ab" for place in (run, run / "report")]
    others = [run / ".partial", run / f".{'a' * 32}.partial.csv", run / "a.partial"]
    for path in hidden + others:
        path.write_text("half")
    for path in hidden[:2] + others:
        os.utime(path, (0, time.time() - 25 * 60 * 60))
    with Workdir(run).held():
        left = {path for path in run.rglob("*") if path.is_file() and path.name != "lock"}
    assert left == {*hidden[2:], *others}


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
