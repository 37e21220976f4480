"""Cores and memory that this process may use: less than the machine has, where a container or a scheduler says so."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
"""Where Linux keeps `proc` and `sys`."""


def cores() -> int:
    """The number of cores that this process may use: by its affinity, and by the quotas of its control groups, rounded up."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = (_quota(folder) for folder in _control_groups("cpu"))
    return max(1, min(allowed, *(math.ceil(quota) for quota in quotas if quota is not None), allowed))


def memory() -> int | None:
    """The bytes of memory that this process may use: by the machine, its control groups and `ulimit -v`; None if unknown."""
    groups = list(_control_groups("memory"))
    limits = [_number(folder / name) for folder in groups for name in ("memory.max", "memory.limit_in_bytes")]
    known = [limit for limit in (_physical(), _address_space(), *limits) if limit is not None]
    return int(min(known)) if known else None


def _control_groups(controller: str) -> Iterator[Path]:
    """The folders of the control groups that this process is in, version 1 or 2, up to the outermost."""
    mount = ROOT / "sys/fs/cgroup"
    for line in _text(ROOT / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number != "0" and controller not in controllers.split(","):
            continue
        top = mount if number == "0" else mount / controller
        inner = top / path.lstrip("/")
        yield from (inner, *(folder for folder in inner.parents if folder.is_relative_to(top)))


def _quota(folder: Path) -> float | None:
    """The cores of a control group; None where they are not limited."""
    quota, period = (*_text(folder / "cpu.max").split(), "", "")[:2]
    if not quota:
        quota, period = (_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else None


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _address_space() -> int | None:
    try:
        import resource
    except ImportError:  # not a POSIX system
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit
