"""Notes and metrics of a checkpoint: a checksum goes with them, and without a fitting one they are not believed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxvision.errors import CheckpointError, WorkdirError
from jaxvision.run.damage import json_object, of_machine
from jaxvision.run.digest import checksum


class Notes(NamedTuple):
    """What was saved with a checkpoint beside its arrays."""

    notes: dict[str, Any]
    metrics: dict[str, float] | None
    """None in a checkpoint of an older version, whose metrics Orbax keeps."""


class Scored(NamedTuple):
    """A checkpoint, and the metrics that say whether it is the best."""

    step: int
    metrics: Mapping[str, float] | None
    known: bool = True
    """Whether the metrics could be read; None where there are none, too."""


def sealed(step: int, notes: Mapping[str, Any], metrics: Mapping[str, float]) -> dict[str, Any]:
    """Notes, metrics and step as JSON data, with their checksum."""
    content = {"step": step, "notes": dict(notes), "metrics": dict(metrics)}
    return {**content, "checksum": checksum(content)}


def unsealed(step: int, content: Mapping[str, Any]) -> Notes:
    """What `sealed` made; an older version wrote the notes alone, without a checksum.

    Raises:
      ValueError: if it is not what was saved, or is of another step.
    """
    if "checksum" not in content:
        if set(content) != {"notes"}:
            raise ValueError("it has no notes of a run")
        return Notes(content["notes"], None)
    if content["checksum"] != checksum({name: value for name, value in content.items() if name != "checksum"}):
        raise ValueError("its notes or metrics are not the ones that were saved")
    if content["step"] != step:
        raise ValueError(f"it is the one of step {content['step']}, copied or renamed")
    return Notes(content["notes"], content["metrics"])


def unreadable_metrics(folder: Path) -> list[Path]:
    """Metrics that Orbax keeps beside checkpoints of an older version, and would fail on when it opens the folder.

    Raises:
      CheckpointError: for one that could not be read for the machine's reason, which is no damage.
    """
    kept = [path / "metrics" for path in sorted(folder.iterdir())] if folder.is_dir() else []
    return [path for path in kept if path.exists() and not _readable(path)]


def _readable(path: Path) -> bool:
    if not path.is_dir():
        return not path.exists()  # deleted meanwhile
    try:
        json_object(path / "metrics")
    except WorkdirError as error:
        if of_machine(error):
            raise CheckpointError(str(error)) from error
        return not (path / "metrics").exists()
    return True
