"""Trains, or resumes, one experiment.

python -m jaxvision.main --config=experiments/quickstart.py --workdir=runs/quickstart [--config.FIELD=VALUE ...]

The same command again goes on from the newest checkpoint. Parameters, optimizer, averages and `metrics.jsonl` then end bit
for bit as those of an uninterrupted run, on the same number of cores and devices. SIGTERM and SIGINT save first and end
with status 75. `--help` says what each flag does; `run/workdir.py` what is in the workdir.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaxvision import commands
from jaxvision.errors import ConfigError, amount, raised_as
from jaxvision.machine import folders
from jaxvision.machine.signals import INTERRUPTED

if TYPE_CHECKING:
    from jaxvision.run.training import Trained


class Flags(NamedTuple):
    """The command line."""

    config: Path
    workdir: Path
    overrides: dict[str, str]
    fork: bool
    preflight: bool
    wandb: str | None
    profile: str | None
    report: bool
    traceback: bool
    fsdp: int
    meeting: tuple[str | None, int | None, int | None, int] | None
    """Coordinator, number of processes, number of this one and seconds to wait, for a run of several processes."""
    command: list[str]


def parse(argv: list[str]) -> Flags:
    """The flags of a command line; ends the process where they don't fit. Imports nothing heavy: `--help` answers at once."""
    parser = commands.new_parser(
        "main",
        description="Train one experiment, or go on with it: the same command resumes exactly where the run stopped.",
        epilog="Any field of the experiment's config can be set: --config.FIELD=VALUE (--config.SECTION.FIELD=VALUE), such "
        "as --config.learning_rate=1e-2 or --config.channels='(32, 64)'. Exit status: 0 at the end, 75 after SIGTERM or "
        "Ctrl-C with a checkpoint saved, 2 for an error of one line, or problems that --preflight found.",
    )
    commands.add_config_flag(parser)
    parser.add_argument(
        "--workdir",
        required=True,
        type=commands.expanded,
        metavar="DIR",
        help="the folder of this run: metrics, checkpoints, report",
    )
    parser.add_argument(
        "--fork",
        action="store_true",
        help="go on from the newest checkpoint of another run in the workdir under these settings: to train longer, say; "
        "copies of its config and experiment file stay",
    )
    parser.add_argument(
        "--preflight",
        action="store_true",
        help="check settings, data, network, devices and memory; train nothing; report and pictures are in DIR/preflight",
    )
    parser.add_argument(
        "--wandb",
        metavar="PROJECT",
        help="show the run on Weights & Biases too (the extra wandb; WANDB_MODE=offline keeps it on disk)",
    )
    parser.add_argument(
        "--profile",
        metavar="FIRST:LAST",
        help="trace these steps, LAST not among them, for Perfetto and TensorBoard; some ten MB a step",
    )
    parser.add_argument("--no-report", action="store_true", help="draw no pictures at the end: a sweep, say")
    _add_device_flags(parser)
    if {"-h", "--help"} & set(argv) and (file := _config_of(argv)) is not None:
        try:
            parser.epilog = f"{parser.epilog} {fields_of(file)}"
        except (ConfigError, OSError) as error:
            parser.error(str(error))
    known, overrides = commands.parsed(parser, argv)
    command = ["python", "-m", "jaxvision.main", *argv]
    meeting = meeting_of(known, parser.error)
    if meeting and known.preflight:
        parser.error("--preflight checks what one process sees; leave out --distributed and --coordinator")
    return Flags(
        config=known.config,
        workdir=known.workdir,
        overrides=overrides,
        fork=known.fork,
        preflight=known.preflight,
        wandb=known.wandb,
        profile=known.profile,
        report=not known.no_report,
        traceback=known.traceback,
        fsdp=known.fsdp,
        meeting=meeting,
        command=command,
    )


def _add_device_flags(parser: argparse.ArgumentParser) -> None:
    """`--fsdp`, and the flags of a run of several processes, which `meeting_of` reads."""
    devices = parser.add_argument_group("devices")
    commands.add_devices_flag(devices)
    devices.add_argument(
        "--distributed", action="store_true", help="one of several processes, found by SLURM, Open MPI or Cloud TPU"
    )
    devices.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, where none of those is in use")
    devices.add_argument("--processes", type=int, metavar="N", help="how many there are")
    devices.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")
    devices.add_argument(
        "--patience",
        type=int,
        default=300,
        metavar="SECONDS",
        help="how long to wait for the others, then status 2 (300)",
    )


def _config_of(argv: list[str]) -> Path | None:
    """The experiment file that the command line names."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=commands.expanded)
    return finder.parse_known_args(argv)[0].config


def fields_of(file: Path) -> str:
    """The fields of the config of an experiment file and their values, as a sentence."""
    from jaxvision.run import config

    fields = config.fields(config.load(file).get_config())
    return f"Fields of {file}: {', '.join(f'{name}={value!r}' for name, value in fields.items())}."


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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(list(sys.argv[1:] if argv is None else argv))
    return commands.status_of(
        lambda: start(flags),
        flags.traceback,
        None if flags.meeting is None else leave,
        128 + 15 if flags.preflight else INTERRUPTED,
    )


def leave(status: int, why: str) -> None:
    """Ends this process of several; imports what that takes only then."""
    from jaxvision.run import processes

    processes.leave(status, why)


def start(flags: Flags) -> int:
    """Trains, or checks, what the command line asks for; returns the exit status."""
    folders.lend_temporary(flags.workdir / "tmp")
    from jaxvision.run import devices, processes, watch

    with raised_as(ConfigError):
        profile = None if flags.profile is None else watch.parse_steps(flags.profile)
    if flags.meeting is not None:
        with raised_as(ConfigError):
            processes.meet(processes.Meeting(*flags.meeting))
    devices.keep_compilations()
    return preflight(flags) if flags.preflight else train(flags, profile)


def train(flags: Flags, profile: range | None) -> int:
    """Trains the experiment to its end; returns the exit status."""
    from functools import partial

    from jaxvision import run
    from jaxvision.run import config, peers, processes
    from jaxvision.run.trackers import WeightsAndBiases

    with peers.naming_lost(), processes.together():
        experiment, recipe = config.build(flags.config, flags.overrides, flags.command)
    trackers = [] if flags.wandb is None else [partial(WeightsAndBiases, flags.wandb)]
    if processes.is_first():
        commands.under_way("reading the data, filling the network with weights")
    with config.naming_fields(recipe.config):
        trained = run.train(
            experiment,
            flags.workdir,
            recipe,
            fsdp=flags.fsdp,
            fork=flags.fork,
            trackers=trackers,
            profile=profile,
            report=flags.report,
        )
    return end(trained, speaks=processes.is_first())


def end(trained: Trained, speaks: bool) -> int:
    """Says where the run stands; returns the exit status."""
    if trained.interrupted is not None:
        saved = f"saved in {trained.workdir / 'checkpoints'}" if trained.step else "nothing is saved yet"
        print(
            f"stopped by {trained.interrupted} at step {trained.step:,} of {trained.steps:,}; {saved}. "
            "The same command goes on from there.",
            file=sys.stderr,
        )
        return INTERRUPTED
    if speaks:
        early = f", stopped early, of {trained.steps:,}" if trained.step < trained.steps else ""
        report = ", report/" if (trained.workdir / "report").is_dir() else ""
        print(f"done: {amount(trained.step, 'step')}{early}, in {trained.seconds}")
        print(f"{trained.workdir}: metrics.jsonl, checkpoints/ {list(trained.checkpoints)}{report}")
    return 0


def preflight(flags: Flags) -> int:
    """Checks the experiment without training it; returns the exit status."""
    from functools import partial

    from jaxvision.machine.output import result
    from jaxvision.run import config, devices
    from jaxvision.run.preflight.check import check
    from jaxvision.run.training import check_free
    from jaxvision.run.workdir import Workdir

    experiment, recipe = config.build(flags.config, flags.overrides, flags.command)
    with raised_as(ConfigError):
        mesh = devices.device_mesh(flags.fsdp)
    free = partial(check_free, Workdir(flags.workdir), experiment, recipe, flags.fork)
    say = partial(print, "preflight:", file=sys.stderr, flush=True)
    findings = check(experiment, mesh, flags.workdir / "preflight", free, say)
    result(findings.report, end="")
    return 2 if findings.problems else 0


if __name__ == "__main__":
    commands.enter(main)
