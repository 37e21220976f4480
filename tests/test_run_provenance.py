"""What a run was made with, taken of real git repositories."""

import json
import subprocess

import numpy as np
import pytest

from jaxvision.run import provenance
from jaxvision.run.workdir import Recipe, Workdir


def git(folder, *arguments):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with one commit, of an experiment file and a file that is no text."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    root = tmp_path / "project"
    (root / "experiments").mkdir(parents=True)
    (root / "experiments" / "e.py").write_text("def build(config):\n    return 1\n")
    (root / "weights.npy").write_bytes(np.arange(50, dtype=np.uint8).tobytes())
    (root / ".gitignore").write_text("ignored.py\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


def change(project):
    """Changes a text and a binary file, adds a module, data and an ignored file."""
    (project / "experiments" / "e.py").write_text("def build(config):\n    return 'caf\u00e9'\n")
    (project / "weights.npy").write_bytes(np.arange(60, dtype=np.uint8).tobytes())
    (project / "new module.py").write_text("x = 1\n")
    (project / "photos").mkdir()
    (project / "photos" / "a.jpg").write_bytes(b"1" * 1000)
    (project / "ignored.py").write_text("secret = 1\n")


def test_a_clean_repository_has_a_commit_and_no_patch(project):
    found = provenance.repository(project / "experiments")
    assert found is not None
    assert found.root.samefile(project)
    assert found.commit == git(project, "rev-parse", "HEAD").strip()
    assert (found.dirty, found.patch) == (False, "")


def test_the_commit_and_the_patch_give_the_files_back(project, tmp_path):
    change(project)
    index = (project / ".git" / "index").read_bytes()
    taken = provenance.take(project / "experiments" / "e.py")
    assert (project / ".git" / "index").read_bytes() == index
    first = taken.repositories[0]
    assert first.dirty
    assert "?? photos/" in first.changes
    only = provenance.Provenance({}, {}, (first,))
    (tmp_path / "git.patch").write_text(only.patch())
    git(tmp_path, "clone", "-q", str(project), "again")
    git(tmp_path / "again", "apply", str(tmp_path / "git.patch"))
    for name in ("experiments/e.py", "weights.npy", "new module.py"):
        assert (tmp_path / "again" / name).read_bytes() == (project / name).read_bytes()
    assert not (tmp_path / "again" / "photos").exists()
    assert "ignored" not in only.patch()


def test_the_repository_of_jaxvision_is_another_one(project, monkeypatch, tmp_path):
    source = project / "experiments" / "e.py"
    library = tmp_path / "library"
    library.mkdir()
    git(library, "init", "-q")
    (library / "passport.py").write_text("x = 1\n")
    monkeypatch.setattr(provenance, "__file__", str(library / "passport.py"))
    taken = provenance.take(source)
    assert [each["commit"] is None for each in taken.commits()] == [False, True]
    assert "# ?? passport.py" in taken.patch()
    monkeypatch.setattr(provenance, "__file__", str(project / "passport.py"))
    assert len(provenance.take(source).repositories) == 1


def test_a_long_patch_is_cut_with_a_note(project, monkeypatch):
    monkeypatch.setattr(provenance, "LONGEST_PATCH", 5000)
    (project / "experiments" / "e.py").write_text("x = 1  # \u00e9\n" * 2000)
    found = provenance.repository(project)
    assert found is not None
    assert 5000 - 100 < len(found.patch.encode()) < 5000 + 100
    assert found.patch.splitlines()[-1].startswith("# cut: the whole has 2")


def test_no_repository_no_git_and_a_git_that_hangs_are_nothing(project, tmp_path, monkeypatch):
    assert provenance.repository(tmp_path) is None
    assert provenance.repository(tmp_path / "missing") is None
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(slow.parent), prepend=":")
        patched.setattr(provenance, "SECONDS_FOR_GIT", 0.1)
        assert provenance.repository(project) is None
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert provenance.repository(project) is None


def test_the_environment_of_a_git_hook_does_not_mislead(project, tmp_path, monkeypatch):
    git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    found = provenance.repository(project)
    assert found is not None
    assert found.root.samefile(project)


def test_the_machine_and_the_packages(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS_OF_A_TEST", "yes")
    monkeypatch.setenv("A_PASSWORD", "secret")
    machine = provenance.machine()
    assert machine["environment"]["XLA_FLAGS_OF_A_TEST"] == "yes"
    assert "A_PASSWORD" not in machine["environment"]
    assert machine["devices"]["count"] >= 1
    assert machine["cores"] >= 1
    assert machine["memory"] > 1e8
    assert machine["processor"]
    versions = provenance.versions()
    for name in ("jax", "jaxlib", "flax", "optax", "numpy", "ml_collections"):
        assert versions[name] == __import__("importlib.metadata").metadata.version(name)


def rows(workdir):
    return [json.loads(line) for line in (workdir.path / "starts.jsonl").read_text().splitlines()]


def test_a_workdir_keeps_a_row_a_start_and_every_patch(project, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(project / "passport.py"))
    source = project / "experiments" / "e.py"
    workdir = Workdir(tmp_path / "run")
    workdir.path.mkdir()

    def start(config, **options):
        workdir.open(Recipe(source, config, ["python", "a b"]), {"train": "abc"}, **options)

    start({"a": 1})
    assert not list(workdir.path.glob("*.patch"))
    workdir.metrics.write_text('{"step": 1}\n')
    (project / "other.py").write_text("x = 1\n")
    start({"a": 1})
    first = (workdir.path / "git.patch").read_text()
    assert "+x = 1" in first
    start({"a": 1})
    (project / "other.py").write_text("x = 2\n")
    monkeypatch.setattr(provenance, "versions", lambda: {"python": "0", "new": "1"})
    start({"a": 2}, fork=True)
    assert (workdir.path / "git.patch").read_text() == first
    assert "+x = 2" in (workdir.path / "git.1.patch").read_text()
    assert json.loads((workdir.path / "versions.json").read_text()) == {"python": "0", "new": "1"}
    assert json.loads((workdir.path / "versions.1.json").read_text())["python"] != "0"
    assert (workdir.path / "provenance.1.json").exists()
    monkeypatch.setattr(provenance, "versions", lambda: {"python": "1", "new": "1"})
    start({"a": 2})

    assert [row["patch"] for row in rows(workdir)] == [None, "git.patch", "git.patch", "git.1.patch", "git.1.patch"]
    assert [row["git"][0]["dirty"] for row in rows(workdir)] == [False, True, True, True, True]
    assert {row["git"][0]["commit"] for row in rows(workdir)} == {git(project, "rev-parse", "HEAD").strip()}
    assert [row["versions_changed"] for row in rows(workdir)] == [{}, {}, {}, {}, {"python": ["0", "1"]}]
    assert {row["command"] for row in rows(workdir)} == {"python 'a b'"}
    assert all(row["time"].endswith("+00:00") and row["host"] and row["devices"]["count"] for row in rows(workdir))
