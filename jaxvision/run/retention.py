"""Which checkpoints of a run stay, and how the others go: at one stroke, so that none is ever half there."""

import contextlib
import logging
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orbax.checkpoint import v1 as ocp

from jaxvision.experiment import Keep

logger = logging.getLogger(__name__)
policies = ocp.training.preservation_policies
DELETED = ".deleted"
"""What the name of a checkpoint's folder ends with once it is no checkpoint any more."""


def superfluous(checkpoints: Sequence[Any], keep: Keep) -> list[int]:
    """The steps of those checkpoints, ascending as Orbax lists them, that `keep` does not keep."""
    kept = _policy(keep).should_preserve(checkpoints, context=policies.PreservationContext())
    return [each.step for each, stays in zip(checkpoints, kept, strict=True) if not stays]


def _policy(keep: Keep) -> Any:
    latest = policies.LatestN(keep.latest)
    if not keep.by or not keep.best:
        return latest
    by, worst = keep.by, -math.inf if keep.mode == "max" else math.inf
    best = policies.BestN(
        get_metric_fn=lambda metrics: metrics.get(by, worst),
        reverse=keep.mode == "min",
        n=keep.best,
        keep_checkpoints_without_metrics=False,
    )
    return policies.AnyPreservationPolicy([latest, best])


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
