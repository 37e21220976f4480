"""Ends the runs of a plan: each saves a checkpoint first, none is started any more; the command that started them goes on.

python -m launch.cancel sweeps/quickstart
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from jaxvision import commands

FILE = "cancelled"
"""A file in the folder of a plan: launchers that see it start nothing more. The next launcher removes it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = commands.new_parser("cancel", "End the runs of a plan, saved.", package="launch")
    parser.add_argument("folder", type=commands.expanded, metavar="DIR", help="the folder of the plan and its runs")
    flags = commands.flags_of(parser, argv)
    return commands.status_of(lambda: start(flags.folder), flags.traceback)


def start(folder: Path) -> int:
    """Tells launchers and runs to end; returns the exit status: 1 if a run is on another host, where it goes on."""
    import socket

    from launch import kubernetes, plan, slurm, state

    planned = plan.read(folder)
    (folder / FILE).touch()
    jobs = slurm.end(folder) if (folder / slurm.FOLDER).is_dir() else []
    running = [name for name, at in state.states(planned, folder).items() if at.kind == "running"]
    processes = {name: _process(folder / name, socket.gethostname()) for name in running if name not in jobs}
    told = {each for each in processes.values() if each is not None and _told(each)}  # a process may hold several runs
    elsewhere = [name for name, process in processes.items() if process not in told]
    print(f"{len(running) - len(elsewhere)} runs were told to save and end; none is started any more")
    if elsewhere:
        print(f"on other hosts, whose launchers end them: {', '.join(elsewhere)}")
    if (folder / kubernetes.FILE).exists():
        print(f"what Kubernetes was given is ended by: kubectl delete -f {folder / kubernetes.FILE}")
    return 1 if elsewhere else 0


def _process(workdir: Path, host: str) -> int | None:
    """The process of a run, if it is on this host."""
    from jaxvision.run import lease

    held = lease.read(workdir)
    return held.process if held is not None and held.host == host and lease.alive(workdir, held) else None


def _told(process: int) -> bool:
    """Sends SIGTERM; whether that was allowed."""
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:
        return True  # it has just ended
    except PermissionError:
        return False
    return True


if __name__ == "__main__":
    commands.enter(main)
