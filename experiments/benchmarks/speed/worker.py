"""Worker: the process of a side; reads questions as lines of JSON, and answers each with a line.

The first question names the function that makes the work, and its arguments; its answer comes after a warm-up of one unit.
Each further one asks for so many units. Imports nothing but the standard library before it knows the cores it may use.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from experiments.benchmarks.speed.contest import Work


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")  # whatever libraries print goes to stderr
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.readline())
    if asked["cores"] is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked["cores"]])
    module, _, function = asked["work"].partition(":")
    make = getattr(importlib.import_module(module), function)
    before = memory("VmRSS")
    work: Work = make(**asked["given"])
    outcome = [float(each) for each in work.outcome()]
    work.run(1)
    work.settle()
    print(json.dumps({"outcome": outcome}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(measured(work, json.loads(line)["units"], before)), file=answers, flush=True)


def measured(work: Work, units: int, before: float) -> dict[str, Any]:
    """Times for each unit, and the most memory that was added."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    processor, clock = time.process_time(), time.perf_counter()
    work.run(units)
    seconds = time.perf_counter() - clock
    used = time.process_time() - processor
    work.settle()
    added = work.device_bytes() if work.device_bytes else memory("VmHWM") - before
    return {"seconds": seconds / units, "processor_seconds": used / units, "bytes": added}


def memory(field: str) -> float:
    """A field of what Linux tells of this process, in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return 1024.0 * int(lines[field].split()[0])


if __name__ == "__main__":
    main()
