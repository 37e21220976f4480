"""Runs on a slice of Cloud TPUs, as a script: each run is the same command on all workers of the slice, one after another."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxvision.errors import write_atomically
from launch.backends import Settings
from launch.command import Command
from launch.state import state

PACKAGE = None
OPTIONS: Mapping[str, str] = {
    "name": "of the TPU VM",
    "zone": "that it is in",
    "project": "that it is of",
    "python": "the interpreter on the workers (python3)",
    "directory": "the folder to run in on the workers",
}
NEEDED = ("name", "zone")
USES = ("nodes",)
FILE = "tpu.sh"


def start(runs: Sequence[Command], folder: Path, told: Settings) -> int:
    """Writes the script of what is neither done nor running; its folder must be one that all workers share, at this path."""
    wanted = [run for run in runs if state(run.workdir).to_start]
    write_atomically(folder / FILE, script(wanted, told))
    told.say(f"{folder / FILE} has {len(wanted)} runs, one after another: sh {shlex.quote(str(folder / FILE))}")
    return 0


def script(runs: Sequence[Command], told: Settings) -> str:
    """The script of these runs; each is tried as often as it may fail, and too many that failed end it."""
    lines = [
        "# Starts each run on all workers of a TPU slice; written by launch.sweep, which leaves out what is done.",
        "failed=0",
        "run() {",
        f"  for attempt in {' '.join(map(str, range(told.retries + 1)))}; do",
        '    "$@" && return',
        "  done",
        "  failed=$((failed + 1))",
        f'  if [ "$failed" -ge {told.stop_after_failures} ]; then exit 1; fi',
        "}",
        *(f"run {shlex.join(command(run, told))}" for run in runs),
        'exit "$((failed > 0))"',
    ]
    return "\n".join(lines) + "\n"


def command(run: Command, told: Settings) -> list[str]:
    """What starts a run on all workers; with several, each is one process of the run, and JAX finds the others."""
    given = [told.options.get("python", "python3"), *run.arguments[1:]]
    distributed = ["--distributed"] if run.resources.nodes > 1 else []
    variables = [f"{key}={value}" for key, value in run.environment.items()]
    line = shlex.join([*(["env", *variables] if variables else []), *given, *distributed])
    if "directory" in told.options:
        line = f"cd {shlex.quote(told.options['directory'])} && {line}"
    project = [f"--project={told.options['project']}"] if "project" in told.options else []
    place = [told.options["name"], f"--zone={told.options['zone']}", *project]
    return ["gcloud", "compute", "tpus", "tpu-vm", "ssh", *place, "--worker=all", f"--command={line}"]
