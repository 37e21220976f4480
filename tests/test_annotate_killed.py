"""Labelling that is killed, or whose disk is full, and then goes on: the exports are those of a run without a break."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from killed_labelling import IMAGES

from jaxvision.annotate.exchange import dataset
from jaxvision.annotate.store import Store
from jaxvision.formats import converting
from jaxvision.formats.converting import Format

HERE = Path(__file__).parent


def exported(place, output):
    """All bytes of the exports of a store, in every format."""
    with Store(place / output / "annotations.sqlite", readonly=True) as store:
        found = dataset(store.records(), json.loads(store.settings["classes"]))
    exports = place / f"{output}-exports"
    exports.mkdir()
    for format in Format:
        name = {Format.COCO: "coco.json", Format.CVAT: "cvat.xml"}.get(format, format)
        converting.write(found, exports / name, format, images=place / "images")
    files = sorted(each for each in exports.rglob("*") if each.is_file())
    return {str(each.relative_to(exports)): each.read_bytes() for each in files}


@pytest.mark.slow
def test_a_run_that_is_killed_exports_what_one_without_a_break_does(tmp_path, capfd):
    command = [sys.executable, "-W", "ignore", str(HERE / "killed_labelling.py"), str(tmp_path), "20"]
    place = {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), *sys.path])}
    done = subprocess.run(command, env={**os.environ, **place}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    first, told = done.stdout.splitlines()
    stored = list(map(int, first.split()))
    with capfd.disabled():
        print(f"\nimages stored after each kill: {first}")
    assert stored == sorted(stored)
    assert len(stored) == 20
    assert len(set(stored)) > 8, "the kills met no run at work"
    assert "full" in told
    expected = exported(tmp_path, "whole")
    assert len(expected) >= 3 * IMAGES
    for output in ("killed", "full"):
        assert exported(tmp_path, output) == expected
        assert (tmp_path / output / "summary.json").read_bytes() == (tmp_path / "whole" / "summary.json").read_bytes()
