"""Killed at calls to the system that were counted: bit for bit the uninterrupted run, with the same checkpoints kept.

A small run, a classifier's and a detector's, is stopped at many of the calls by which it changes files, and its workdir
copied: what a `kill -9` at that call leaves. Each copy is trained on, and so is a run that was killed in earnest, several
times, by the same command again.
"""

import json
import platform
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import system_calls

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="counts the calls of Linux on x86-64"
    ),
]
HERE = Path(__file__).parent
RUNS = {
    "tiny_experiment": {"source": "arrays", "network.channels": "(4, 4)", "classes": "10"},
    "mosaic_experiment": {},
}
POINTS = {"start": 3, "first save": 6, "later save": 12, "deletion": 13, "log": 4, "tensorboard": 1, "report": 1}
"""Of the 40 calls, how many are of each part of a run."""
EVERY = {"start": 2, "first save": 3, "later save": 7, "deletion": 1, "log": 2, "tensorboard": 5, "report": 3}
"""Copies are made at every so manieth call of a part; which of them are taken is drawn."""


class Parts:
    """Tells which part of a run a call belongs to."""

    def __init__(self):
        self.saved = False

    def __call__(self, call):
        name, path = call
        if re.match(r"checkpoints/\d+(\.deleted)?(/|$)", path):
            return "deletion"
        if path.startswith("checkpoints"):
            part = "later save" if self.saved else "first save"
            self.saved |= name == "rename" and path.count("/") == 1
            return part
        if path.startswith(("metrics.jsonl", "timing.jsonl")):
            return "log"
        return next((part for part in ("tensorboard", "report") if path.startswith(part + "/")), "start")


def command(experiment, workdir, *flags):
    fields = [f"--config.{name}={value}" for name, value in RUNS[experiment].items()]
    file = f"--config={HERE / experiment}.py"
    return [
        sys.executable,
        "-m",
        "jaxvision.main",
        file,
        f"--workdir={workdir}",
        "--config.report=True",
        *fields,
        *flags,
    ]


def watched(experiment, workdir, at, *flags, status=0):
    """Runs the command; `at` is asked about each of its calls."""
    output = workdir.with_suffix(".txt")
    ended = system_calls.run(command(experiment, workdir, *flags), workdir, output, at)
    assert ended == status, output.read_text()
    return output.read_text()


def trained_on(experiment, workdirs):
    """The fingerprint of each at its end; the value is whether its report is drawn."""
    fields = {**RUNS[experiment], "report": "True"}
    task = json.dumps([f"{HERE / experiment}.py", fields, {str(place): report for place, report in workdirs.items()}])
    ended = subprocess.run([sys.executable, HERE / "resumed_runs.py", task], stdout=subprocess.PIPE, timeout=900)
    return [json.loads(line) for line in ended.stdout.splitlines()]


def names(workdir, report):
    """The files of a run, without those that every start, or every kill, may add one to."""
    files = [str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()]
    kept = [name for name in files if "tfevents" not in name and not name.endswith(".partial")]
    return sorted(re.sub("[0-9a-f]{32}", "*", name) for name in kept if report or not name.startswith("report"))


def uninterrupted(experiment, folder):
    """A run to its end, and copies of its workdir: what part it was in, the call it was at, and where the copy is."""
    whole, copies, part_of, seen = folder / "whole", [], Parts(), Counter()

    def copy(call, process):
        part = part_of(call)
        seen[part] += 1
        if seen[part] % EVERY[part] or not whole.is_dir():
            return False
        process.stop()
        copies.append((part, call, folder / str(len(copies))))
        shutil.copytree(whole, copies[-1][-1])
        process.go_on()
        return True

    watched(experiment, whole, copy)
    print(dict(seen))
    return whole, copies


def killed_in_earnest(experiment, killed):
    """The same command four times, killed in its first save, in a deletion, at a row of the log, then to the end."""
    kills = (
        (9, lambda call: call.name == "fsync" and "/state." in call.path),
        (3, lambda call: call.name == "unlink" and re.match(r"checkpoints/\d+(\.deleted)?/", call.path)),
        (1, lambda call: call.name == "write" and call.path == "metrics.jsonl"),
    )
    for count, wanted in kills:
        calls = Counter()

        def kill(call, process, count=count, wanted=wanted, calls=calls):
            calls["wanted"] += bool(wanted(call))
            if calls["wanted"] == count:
                process.kill()
            return False

        watched(experiment, killed, kill, "--no-report", status=-9)
    assert "going on from step" in watched(experiment, killed, lambda call, process: False, "--no-report")
    return killed


@pytest.mark.parametrize("experiment", RUNS)
def test_a_run_killed_at_any_call_ends_as_the_uninterrupted_one(tmp_path, experiment):
    seed = time.time_ns()
    print(f"{seed=}")
    chance = random.Random(seed)
    whole, copies = uninterrupted(experiment, tmp_path)
    points = []
    for part, count in POINTS.items():
        points += chance.sample([each for each in copies if each[0] == part], count)
    assert len(points) == 40
    killed = killed_in_earnest(experiment, tmp_path / "killed")

    drawn = {place: part == "report" for part, _, place in points}
    expected, *found = trained_on(experiment, {whole: False, killed: False, **drawn})
    assert [step for step, *_ in expected][-1] == 20
    points.insert(0, ("in earnest", None, killed))
    wrong = [
        (part, call, result if result != expected else names(place, True))
        for (part, call, place), result in zip(points, found, strict=True)
        if result != expected
        or (place / "metrics.jsonl").read_bytes() != (whole / "metrics.jsonl").read_bytes()
        or names(place, part == "report") != names(whole, part == "report")
    ]
    assert not wrong
