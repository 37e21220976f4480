"""Data files that were made to do harm are refused in short lines that name them, in little memory and time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hostile_files
import pytest

ERRORS = ("DataError", "BadImage", "ValueError", "FileNotFoundError")
TOLD = (1, 2)
"""Status of the check where something is wrong."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    place = tmp_path_factory.mktemp("hostile")
    command = [sys.executable, hostile_files.__file__, str(place)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, cwd=place)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not list(place.rglob("pwned"))
    return place, {each["case"]: each for each in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", hostile_files.CASES)
def test_a_hostile_file_is_told_in_short_lines_that_name_it(outcomes, name):
    place, found = outcomes
    assert name in found, "its process was ended, by a signal or for its time"
    outcome, said = found[name]["outcome"], found[name]["said"]
    assert outcome in (*ERRORS, *TOLD), said
    assert "Traceback" not in said
    assert str(place / name) in said
    assert max(map(len, said.splitlines())) < 1200
    assert outcome in TOLD or said.count("\n") == 1
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert found[name]["memory"] < 300_000_000
    assert found[name]["seconds"] < 5


def test_no_file_outlives_its_process(outcomes):
    place, _ = outcomes
    assert {each.name for each in Path(place).iterdir()} == set(hostile_files.CASES)
