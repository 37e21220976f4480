"""Which experiments this user has run before: a workdir from elsewhere brings code of its own, which is said once.

Their fingerprints are kept in `~/.cache/jaxvision/experiments/known` (or below `$JAXVISION_CACHE`).
"""

import contextlib
import os
from pathlib import Path

from jaxvision.data.source import digest
from jaxvision.machine import folders
from jaxvision.run.own_modules import own_modules


def note(experiment: Path) -> bool:
    """Notes an experiment file with its own modules; returns whether it was not known before.

    Where nothing can be noted, it counts as new each time.
    """
    with contextlib.suppress(OSError, ValueError):
        mark = digest(*(file.read_bytes() for file in (experiment, *own_modules(experiment).values())))
        known = folders.cache("experiments") / "known"
        if known.is_file() and mark in known.read_text(encoding="ascii", errors="replace").split():
            return False
        known.parent.mkdir(parents=True, exist_ok=True)
        number = os.open(known, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(number, "a", encoding="ascii") as file:
            file.write(f"{mark}\n")
    return True
