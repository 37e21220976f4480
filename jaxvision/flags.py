"""The command line of `jaxvision.main`; imports nothing heavy, so that `--help` and a typo answer at once."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jaxvision.commands import expanded, split_overrides


class Flags(NamedTuple):
    """The command line."""

    config: Path
    workdir: Path
    overrides: dict[str, str]
    fork: bool
    preflight: bool
    wandb: str | None
    profile: str | None
    traceback: bool
    fsdp: int
    meeting: tuple[str | None, int | None, int | None, int] | None
    """For a run of several processes: coordinator, processes, number of this one, seconds to wait."""
    command: list[str]


def parse(argv: list[str]) -> Flags:
    """The flags of a command line; ends the process where they don't fit."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxvision.main",
        description="Train one experiment, or go on with it: the same command resumes exactly where the run stopped.",
        epilog="Any field of the experiment's config can be set: --config.FIELD=VALUE (--config.SECTION.FIELD=VALUE).",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, type=expanded, metavar="FILE", help="the experiment file")
    parser.add_argument("--workdir", required=True, type=expanded, metavar="DIR", help="the folder of this run")
    parser.add_argument("--fork", action="store_true", help="go on from another experiment's run in the workdir")
    parser.add_argument("--preflight", action="store_true", help="check everything, train nothing")
    parser.add_argument("--wandb", metavar="PROJECT", help="show the run on Weights & Biases too")
    parser.add_argument("--profile", metavar="FIRST:LAST", help="trace these steps, for Perfetto and TensorBoard")
    parser.add_argument("--traceback", action="store_true", help="show where an error arose, not only what it is")
    devices = parser.add_argument_group("devices")
    devices.add_argument("--fsdp", type=int, default=1, metavar="N", help="split parameters over N of the devices")
    devices.add_argument(
        "--distributed", action="store_true", help="one of several processes, as SLURM, Open MPI or Cloud TPU tell"
    )
    devices.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, where nobody tells")
    devices.add_argument("--processes", type=int, metavar="N", help="how many there are")
    devices.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")
    devices.add_argument("--patience", type=int, default=300, metavar="SECONDS", help="how long to wait for the others")
    fields, rest = split_overrides(argv, parser.error)
    known = parser.parse_args(rest)
    command = ["python", "-m", "jaxvision.main", *argv]
    meeting = meeting_of(known, parser.error)
    if meeting and known.preflight:
        parser.error("--preflight checks what one process sees; leave out --distributed and --coordinator")
    return Flags(
        config=known.config,
        workdir=known.workdir,
        overrides=fields,
        fork=known.fork,
        preflight=known.preflight,
        wandb=known.wandb,
        profile=known.profile,
        traceback=known.traceback,
        fsdp=known.fsdp,
        meeting=meeting,
        command=command,
    )


def meeting_of(
    known: argparse.Namespace, error: Callable[[str], object]
) -> tuple[str | None, int | None, int | None, int] | None:
    """How this process meets the others, if it is one of several."""
    given = (known.coordinator, known.processes, known.process)
    if all(part is None for part in given):
        return (None, None, None, known.patience) if known.distributed else None
    if any(part is None for part in given):
        error("--coordinator, --processes and --process belong together")
    if not 0 <= known.process < known.processes:
        error(f"--process={known.process}: with --processes={known.processes}, allowed are 0 to {known.processes - 1}")
    return (*given, known.patience)
