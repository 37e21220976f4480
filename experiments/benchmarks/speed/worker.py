"""Worker: the process of a side; reads questions as lines of JSON, and answers each with a line.

The first question names the function that makes the work, and its arguments; its answer comes after a warm-up of one unit,
and after what was freed by then, by compiling say, went back to the system.
Each further one asks for so many units, after others that are not measured. Imports nothing but the standard library before
it knows the cores it may use.
"""

import contextlib
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from experiments.benchmarks.speed.contest import Work
from jaxvision.machine import eigen, freed


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")  # whatever libraries print goes to stderr
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.readline())
    if asked["cores"] is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked["cores"]])
    module, _, function = asked["work"].partition(":")
    if module.endswith("_ours"):
        eigen.ask()  # as each command of the project does
    make = getattr(importlib.import_module(module), function)
    before = memory("VmRSS")
    work: Work = make(**asked["given"])
    outcome = [float(each) for each in work.outcome()]
    work.run(1)
    work.settle()
    freed.give_back()
    print(json.dumps({"outcome": outcome}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if asked.get("lead"):
            work.run(asked["lead"])
            work.settle()
        print(json.dumps(measured(work, asked["units"], before)), file=answers, flush=True)


def measured(work: Work, units: int, before: float) -> dict[str, Any]:
    """Times for each unit, and the most memory that was added."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    processor, clock = processor_seconds(), time.perf_counter()
    work.run(units)
    seconds = time.perf_counter() - clock
    used = processor_seconds() - processor
    work.settle()
    added = work.device_bytes() if work.device_bytes else memory("VmHWM") - before
    return {"seconds": seconds / units, "processor_seconds": used / units, "bytes": added}


def processor_seconds() -> float:
    """Processor time of this process and of all that it started, those that ended included."""
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system + sum(_used(each) for each in _started())


def _started() -> list[list[str]]:
    """What Linux tells of each living process that this one started, or one of those, from its state on."""
    told = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            told[path.parent.name] = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    found, parents = [], {str(os.getpid())}
    while parents:
        children = {number: fields for number, fields in told.items() if fields[1] in parents}
        found, parents = [*found, *children.values()], set(children)
    return found


def _used(fields: list[str]) -> float:
    """Seconds of the process itself, and of those that it started and that ended."""
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def memory(field: str) -> float:
    """A field of what Linux tells of this process, in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return 1024.0 * int(lines[field].split()[0])


if __name__ == "__main__":
    main()
