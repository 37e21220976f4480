"""Whole runs where the environment lacks what most have: plain names, a home, locks, somebody who reads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

TINY = Path(__file__).with_name("tiny_experiment.py")
ROOT = TINY.parent.parent
FIELDS = ["--config.log=2", "--config.evaluate=4", "--config.checkpoint=2", "--config.keep_latest=1"]
WITHOUT_LOCKS = """
import errno, fcntl, os, runpy, tempfile
def flock(file, operation): raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = flock
tempfile._candidate_tempdir_list = lambda: ['/proc/nowhere']
runpy.run_module('jaxvision.main', run_name='__main__', alter_sys=True)
"""
pytestmark = pytest.mark.slow


def command(workdir, steps, start=("-m", "jaxvision.main")):
    return [sys.executable, *start, f"--config={TINY}", f"--workdir={workdir}", f"--config.steps={steps}", *FIELDS]


def run(arguments, **options):
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def saved(workdir):
    return sorted(path.name for path in (workdir / "checkpoints").iterdir())


def test_a_workdir_of_any_letters_trains_resumes_evaluates_and_predicts(tmp_path):
    workdir = tmp_path / "a[1,2]\\ b#%?ä"
    run(command(workdir, 4))
    assert "going on from step 4 of 8" in run([*command(workdir, 8), "--fork"])
    assert saved(workdir)[-1] == "8"
    assert '{"step": ' in run([sys.executable, "-m", "jaxvision.evaluate", f"--workdir={workdir}"])
    output, image = workdir / "out [1].csv", workdir / "*.png"
    Image.new("L", (28, 28), 200).save(image)
    run([sys.executable, "-m", "jaxvision.predict", f"--workdir={workdir}", str(image), f"--output={output}"])
    assert output.read_text("utf-8").count("*.png") == 1


def test_without_home_locks_and_temporary_folder_it_trains_and_saves(tmp_path):
    hidden = {"HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["HOME"] = "/proc/nowhere"
    text = run(command(tmp_path / "run", 4, ("-c", WITHOUT_LOCKS)), env=environment)
    assert "let no other process train there" in text
    assert "compiled programs are not kept" in text
    assert saved(tmp_path / "run") == ["4"]
    assert (tmp_path / "run/tmp").is_dir()


def test_in_a_locale_of_few_letters_it_trains_on_names_of_any(tmp_path):
    for number, name in enumerate(("kätzchen", "дог")):
        (tmp_path / "bilder ä" / name).mkdir(parents=True)
        for value in range(8):
            Image.new("L", (9, 9), 100 * number + value).save(tmp_path / "bilder ä" / name / f"{value}.png")
    fields = {"source": "folder", "data_dir": tmp_path / "bilder ä", "classes": 2, "report": True, "size": 8}
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    arguments = [*command(tmp_path / "run", 4), *(f"--config.{name}={value}" for name, value in fields.items())]
    run(arguments, env=os.environ | ascii_only)
    assert saved(tmp_path / "run") == ["4"]
    assert (tmp_path / "run/report/test_confusion.png").exists()


@pytest.mark.parametrize("shell", ["2>&1 | head -n 1", "2>&-", "2>/dev/full", ">&- 2>&-", ">/dev/full 2>&1"])
def test_whoever_reads_what_it_prints_may_leave(tmp_path, shell):
    words = " ".join(f"'{word}'" for word in command(tmp_path / "run", 4))
    run(["bash", "-c", f"{words} {shell}; exit ${{PIPESTATUS[0]}}"])
    assert saved(tmp_path / "run") == ["4"]
