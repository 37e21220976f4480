"""A full disk under the commands that judge a run: told in one line, and nothing that they write is ever half there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from finished_run import finished_run, images, one_line

from jaxvision import calibrate, explain, export, robustness

FACES = {"robustness": robustness, "calibrate": calibrate, "explain": explain, "export": export}
SMALL_FILES = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
import importlib
for name, flags in json.loads(sys.argv[1]).items():
    print(f"== {name}", file=sys.stderr, flush=True)
    status = importlib.import_module(f"jaxvision.{name}").main(flags)
    print(f"== ended with {status}", file=sys.stderr, flush=True)
"""
"""Runs commands where no file can have more than 300 bytes: to them, a full disk."""


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_that_is_half_written(tmp_path, tmp_path_factory):
    run = finished_run(tmp_path_factory.getbasetemp() / "finished_run")
    images(tmp_path / "other", count=4, seed=500)
    image = next((tmp_path / "other").rglob("*.png"))
    more = {
        "robustness": ["--kinds=contrast", "--severities=1", "--eval=test"],
        "calibrate": ["--data=test", "--method=temperature", f"--config.test_dir={tmp_path / 'other'}"],
        "explain": ["--method=saliency", str(image)],
        "export": ["--format=stablehlo"],
    }
    flags = {name: [f"--workdir={run}", f"--output={tmp_path / name}", *each] for name, each in more.items()}
    process = subprocess.run(
        [sys.executable, "-c", SMALL_FILES, json.dumps(flags)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_ENABLE_COMPILATION_CACHE": "false"},
    )
    assert process.returncode == 0, process.stderr
    said = {part.split()[0]: part for part in process.stderr.split("\n== ") if part.split()[0] in FACES} | {
        "robustness": process.stderr.split("\n== ")[0]
    }
    assert process.stderr.count("== ended with 2") == 4, process.stderr
    for text in said.values():
        assert "File too large" in one_line(text) or "could not be written" in one_line(text)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and tmp_path / "other" not in path.parents]
    assert left == []
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", FACES)
def test_an_output_that_can_not_be_made_is_refused_before_anything_is_read(name, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    needed = {"calibrate": ["--data=test", "--method=platt"], "explain": ["--method=saliency", "a.jpg"]}
    with pytest.raises(SystemExit) as told:
        FACES[name].main(["--workdir=x", f"--output={Path(tmp_path) / 'file' / 'new'}", *needed.get(name, [])])
    assert told.value.code == 2
    assert "is neither a folder nor one that can be made" in one_line(capsys.readouterr().err)
