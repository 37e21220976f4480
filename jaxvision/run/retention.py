"""Which checkpoints of a run stay, and how the others go: at one stroke, so that none is ever half there."""

import contextlib
import logging
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from jaxvision.experiment import Keep
from jaxvision.run.notes import Scored

logger = logging.getLogger(__name__)
DELETED = ".deleted"
"""What the name of a checkpoint's folder ends with once it is no checkpoint any more."""


def superfluous(checkpoints: Sequence[Scored], keep: Keep) -> list[int]:
    """The steps of those checkpoints, ascending, that `keep` does not keep; one whose score is not known stays."""
    stay = {each.step for each in checkpoints[-keep.latest :]} | set(best(checkpoints, keep)[: keep.best])
    return [each.step for each in checkpoints if each.step not in stay and each.known]


def best(checkpoints: Sequence[Scored], keep: Keep) -> list[int]:
    """The steps of those checkpoints that have a finite `keep.by`, the best first; none where `keep` names no metric."""
    by = keep.by or ""
    scored = [each for each in checkpoints if each.metrics and math.isfinite(each.metrics.get(by, math.nan))]
    return [scored[place].step for place in ranked([(each.metrics or {})[by] for each in scored], keep.mode)]


def ranked(values: Sequence[float], mode: str) -> list[int]:
    """The places of finite values, that of the best ("max": the largest) first; of equal ones the earliest first."""
    return sorted(range(len(values)), key=values.__getitem__ if mode == "min" else lambda place: -values[place])


def delete(path: Path) -> None:
    """Deletes a checkpoint: a single rename makes it none, then its files go.

    Orbax would delete it file by file under its own name: one that was killed meanwhile, or read, would look damaged.

    Raises:
      OSError: if it can't be renamed.
    """
    gone = path.with_name(path.name + DELETED)
    _remove(gone)
    with contextlib.suppress(FileNotFoundError):  # by a person, say
        os.replace(path, gone)
    _remove(gone)


def sweep(folder: Path) -> None:
    """Removes what is left of checkpoints whose deletion was cut short."""
    for path in folder.glob("*" + DELETED):
        _remove(path)


def _remove(path: Path) -> None:
    """Removes a folder that is no checkpoint; what resists, such as a file in use on NFS, waits for the next start."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        logger.warning("%s could not be removed, and is tried again at the next start: %s", path, error)
