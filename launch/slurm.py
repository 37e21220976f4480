"""Runs as jobs of SLURM: one array for those that are neither done nor queued; the command ends when they are submitted.

Beside the workdirs it keeps `slurm/TOKEN.json`, the members of an array in their order, written before the array is
submitted under that token: which runs are queued is then asked of SLURM itself, whatever happened to the launcher.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxvision.errors import ConfigError, write_atomically
from launch import cancel
from launch.backends import Settings, Unreachable
from launch.command import Command, Resources
from launch.job import Job
from launch.state import State, state

PACKAGE = "submitit"
OPTIONS: Mapping[str, str] = {
    "partition": "where to queue",
    "account": "whom to charge",
    "qos": "quality of service",
    "constraint": "features that a node must have",
    "nodelist": "nodes to use",
    "exclude": "nodes not to use",
    "gres": "generic resources of a node, such as gpu:a100:2",
    "reservation": "a reservation to use",
    "notice": "seconds before the time limit at which a run begins to save (120)",
}
NEEDED = ()
USES = ("nodes", "gpus", "cores", "memory", "minutes")
FOLDER = "slurm"
"""The folder of scripts, pickles and logs of submitit, and of our records, beside the workdirs."""
MARK = "jaxvision:"
"""How the comments of our jobs begin; the token follows."""
LARGEST = 1_000
"""Members of an array; SLURM's own limit is 1,001 unless a site sets another."""
TIMEOUTS = 1_000
"""Time limits that a run may meet; each but the first begins where the last one saved."""
PATIENCE = 60.0
"""Seconds that a command of SLURM may take."""


class Queued(NamedTuple):
    """A member that SLURM has in its queue."""

    job: str
    """The number to cancel it by, as `12` or `12_3`."""
    state: str
    """PENDING, RUNNING, or another of SLURM's own words."""
    reason: str


def start(runs: Sequence[Command], folder: Path, told: Settings) -> int:
    """Submits what is neither done nor running nor queued, and returns at once.

    Args:
      runs: those of the plan.
      folder: of the plan.
      told: options, retries and limits.

    Raises:
      Unreachable: if SLURM does not answer; what was submitted before stays so.
      ConfigError: if it refuses the jobs.
    """
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    with locked(folder):
        waiting = queued(folder)
        (folder / cancel.FILE).unlink(missing_ok=True)
        wanted = [run for run in runs if to_submit(run, waiting, told)]
        for first in range(0, len(wanted), LARGEST):
            submit(wanted[first : first + LARGEST], folder, told)
    told.say(f"{len(wanted)} runs were submitted to SLURM; python -m launch.status {folder} shows where they stand")
    return 0


def to_submit(run: Command, waiting: Mapping[str, Queued], told: Settings) -> bool:
    """Whether a run is to be submitted; says why, or why not, where it is not done."""
    at = state(run.workdir)
    if at.kind == "done":
        return False
    if run.name in waiting:
        job = waiting[run.name]
        told.say(f"{run.name}: is job {job.job}, {job.state}{f' ({job.reason})' if job.state == 'PENDING' else ''}")
        return False
    if at.kind == "running":
        told.say(f"{run.name}: runs on {at.detail}")
        return False
    told.say(f"{run.name}: {_why(at)}")
    return True


def _why(at: State) -> str:
    ends = {"failed": f"failed: {at.detail}; ", "lost": f"was lost ({at.detail}); "}
    return ends.get(at.kind, "") + (f"goes on from step {at.step:,}" if at.step else "starts")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A block in which no other launcher of this host, or of one that shares its locks, submits runs of the plan."""
    with (folder / FOLDER / "lock").open("a") as lock:
        with contextlib.suppress(OSError):  # a file system without locks: a job looks into its workdir, too
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def submit(runs: Sequence[Command], folder: Path, told: Settings) -> str:
    """Submits runs as one array; returns its number.

    Raises:
      Unreachable: if SLURM does not answer.
      ConfigError: if it refuses them.
    """
    import submitit
    from submitit.core.utils import FailedJobError

    place, token = folder / FOLDER, uuid.uuid4().hex
    record = place / f"{token}.json"
    write_atomically(record, json.dumps([run.name for run in runs]) + "\n")
    since = record.stat().st_mtime
    executor = submitit.SlurmExecutor(place, max_num_timeout=TIMEOUTS)
    executor.update_parameters(**parameters(runs[0].resources, told, token))
    jobs = [job(run, folder, told, since) for run in runs]
    with contextlib.redirect_stderr(io.StringIO()):  # it prints what sbatch says, and raises it
        try:
            return executor.submit_array(jobs)[0].job_id.partition("_")[0]
        except FailedJobError as error:
            raise refused(str(error)) from error


def job(run: Command, folder: Path, told: Settings, since: float) -> Job:
    """The callable of a run; with several nodes, its processes find each other by SLURM's variables."""
    arguments = (*run.arguments, *(["--distributed"] if run.resources.nodes > 1 else []))
    return Job(
        run.name, arguments, folder.absolute(), dict(run.environment), told.retries, told.stop_after_failures, since
    )


def parameters(of: Resources, told: Settings, token: str) -> dict:
    """What submitit is told: on several nodes a process a GPU, on one node a process for all of them.

    Raises:
      ConfigError: for a notice that is no number below the time limit.
    """
    tasks = max(1, of.gpus) if of.nodes > 1 else 1
    cores = None if of.cores is None else max(1, of.cores // tasks)
    options = dict(told.options)
    more = {"requeue": True, "comment": MARK + token}
    if (reservation := options.pop("reservation", None)) is not None:
        more["reservation"] = reservation
    found = {
        **options,
        "job_name": "jaxvision",
        "time": of.minutes,
        "nodes": of.nodes,
        "ntasks_per_node": tasks,
        "cpus_per_task": cores,
        "srun_args": None if cores is None else [f"--cpus-per-task={cores}"],  # srun does not take it from the job
        "gpus_per_node": of.gpus or None,
        "mem": None if of.memory is None else f"{round(of.memory * 1024)}MB",
        "signal_delay_s": notice(options.pop("notice", None), of.minutes),
        "array_parallelism": told.workers or LARGEST,
        "setup": [f'export PYTHONPATH="{Path(__file__).parent.parent}${{PYTHONPATH:+:$PYTHONPATH}}"'],
        "additional_parameters": more,
    }
    found.pop("notice", None)
    return {name: value for name, value in found.items() if value is not None}


def notice(text: str | None, minutes: int) -> int:
    """Seconds before the time limit at which a run begins to save; at most half of the time.

    Raises:
      ConfigError: for one that is no number, or not below the time limit.
    """
    if text is None:
        return min(120, minutes * 30)
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) < 60 * minutes:
        raise ConfigError(
            f"--option notice={text}: with --minutes={minutes}, allowed are 1 to {60 * minutes - 1} seconds"
        )
    return int(text)


def queued(folder: Path) -> dict[str, Queued]:
    """The members of the plan that SLURM has in its queue, by name.

    Raises:
      Unreachable: if it does not answer.
    """
    found = {}
    listed = asked("squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i|%K|%T|%k|%r")
    for line in listed.splitlines():
        number, index, at, comment, reason = line.strip().split("|", 4)
        record = folder / FOLDER / f"{comment.removeprefix(MARK)}.json"
        if comment.startswith(MARK) and record.is_file():
            names = json.loads(record.read_text(encoding="utf-8"))
            place = int(index) if index.isdecimal() else 0
            found[names[place]] = Queued(number, at, reason)
    return found


def end(folder: Path) -> list[str]:
    """Takes the members of a plan out of the queue, and has those that run save and end; returns the names of these.

    Raises:
      Unreachable: if SLURM does not answer.
    """
    jobs = queued(folder)
    if waiting := [each.job for each in jobs.values() if each.state != "RUNNING"]:
        asked("scancel", "--state=PENDING", *waiting)
    running = {name: each.job for name, each in jobs.items() if each.state == "RUNNING"}
    if running:
        asked("scancel", "--signal=TERM", *running.values())
    return list(running)


def asked(*command: str) -> str:
    """What a command of SLURM prints.

    Raises:
      Unreachable: if SLURM does not answer.
      ConfigError: if the command is not installed, or refuses.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except FileNotFoundError:
        raise ConfigError(f"there is no {command[0]} here: --backend=slurm runs where SLURM's commands are") from None
    except subprocess.TimeoutExpired:
        raise unreachable(f"{command[0]} gave no answer in {PATIENCE:.0f} s") from None
    if done.returncode:
        raise refused(done.stderr)
    return done.stdout


UNREACHABLE = (
    "Unable to contact slurm controller",
    "timed out",
    "Connection refused",
    "authentication plugin",
    "munge",
)
"""What SLURM's commands say where its daemon does not answer, in any letter case."""


def refused(said: str) -> Unreachable | ConfigError:
    """The error that stands for what a command of SLURM says."""
    lines = [line.strip() for line in said.strip().splitlines() if line.strip()] or ["no reason given"]
    if any(sign.lower() in said.lower() for sign in UNREACHABLE):
        return unreachable(lines[-1])
    return ConfigError(f"SLURM refuses: {lines[-1]}")


def unreachable(why: str) -> Unreachable:
    """The error that says that SLURM does not answer."""
    return Unreachable(
        f"SLURM can't be reached ({why}): what is queued or runs there stays so; the same command goes on when it answers"
    )
