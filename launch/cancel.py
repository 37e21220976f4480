"""Ends the runs of a plan: each saves a checkpoint first, none is started any more; the command that started them goes on.

python -m launch.cancel sweeps/quickstart
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxvision import commands

FILE = "cancelled"
"""A file in the folder of a plan: launchers that see it start nothing more. The next launcher removes it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m launch.cancel", description="End the runs of a plan, saved.")
    parser.add_argument("folder", type=commands.expanded, metavar="DIR", help="the folder of the plan and its runs")
    parser.add_argument("--traceback", action="store_true", help="show where an error arose, not only what it is")
    flags, _ = commands.parsed(parser, list(sys.argv[1:] if argv is None else argv))
    return commands.status_of(lambda: start(flags.folder), flags.traceback)


def start(folder: Path) -> int:
    """Tells launchers and runs to end; returns the exit status: 1 if a run is on another host, where it goes on."""
    import socket

    from launch import plan, state

    planned = plan.read(folder)
    (folder / FILE).touch()
    running = [name for name, at in state.states(planned, folder).items() if at.kind == "running"]
    processes = {name: _process(folder / name, socket.gethostname()) for name in running}
    for process in {each for each in processes.values() if each is not None}:  # which may hold several runs
        os.kill(process, signal.SIGTERM)
    elsewhere = [name for name, process in processes.items() if process is None]
    print(f"{len(running) - len(elsewhere)} runs were told to save and end; none is started any more")
    if elsewhere:
        print(f"on other hosts, whose launchers end them: {', '.join(elsewhere)}")
    return 1 if elsewhere else 0


def _process(workdir: Path, host: str) -> int | None:
    """The process of a run, if it is on this host."""
    from jaxvision.run import lease

    held = lease.read(workdir)
    return held.process if held is not None and held.host == host and lease.alive(workdir, held) else None


if __name__ == "__main__":
    commands.enter(main)
