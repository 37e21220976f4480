"""Stability of predictions over the frames of a video.

How often a classifier's answer changes from one frame to the next; how many detections have no match there.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxvision.data import media
from jaxvision.errors import ConfigError, DataError, amount, raised_as
from jaxvision.experiment import Record, Selection
from jaxvision.run.prediction import Model, readable

LEAST_IOU = 0.5
"""Least IoU of two boxes of one class that are taken for the same object."""


class Change(NamedTuple):
    """What changes from one frame to the next."""

    frame: int
    next: int
    unstable: int
    """Answers that change: 0 or 1; of a detector, detections of both frames without a match."""
    of: int
    """Answers or detections that could: 1; of a detector, those of both frames."""
    iou: float = 0.0
    """Sum of the IoU of all matches of a detector, each counted in both frames."""


class Stability(NamedTuple):
    """Stability of a model on a video."""

    kind: str
    """`"classes"` or `"objects"`."""
    changes: tuple[Change, ...]

    def summary(self) -> dict[str, float]:
        """The frames, the flip rate of all pairs of neighbouring frames, and the mean IoU of a detector's matches.

        The flip rate is the fraction of the answers that change, or of the detections that have no match; NaN without any.
        """
        unstable, of = (sum(getattr(each, name) for each in self.changes) for name in ("unstable", "of"))
        found = {"frames": float(len(self.changes) + 1), "flip_rate": unstable / of if of else float("nan")}
        if self.kind == "objects":
            matched = of - unstable
            found["match_iou"] = sum(each.iou for each in self.changes) / matched if matched else float("nan")
        return found


def stability(model: Model, file: Path, score: float) -> Stability:
    """The stability of a model's predictions over all frames of a video.

    Args:
      model: a classifier or a detector.
      file: the video.
      score: least of the detections that count.

    Raises:
      DataError: if the video can't be read, or has fewer than two frames.
      ConfigError: for a model of another kind.
    """
    if not media.is_video(file):
        raise DataError(f"{file} is no video by its name (known are {', '.join(media.VIDEOS)})")
    with raised_as(DataError):
        media.check_reader()
    selection = Selection(model.classes, 1, score)
    pictures = media.decoded(media.pictures([file]), model.decoder(None))
    shown = model.stream(readable(pictures, _refuse), selection)
    return compared(file, ((each.where[1] or 0, each.record) for each in shown))


def _refuse(file: str, error: str) -> None:
    raise DataError(f"{file}: {error}")


def compared(file: Path, records: Iterator[tuple[int, Record]]) -> Stability:
    """The changes between neighbouring records; arguments and errors are those of `stability`."""
    before, changes, kind = None, [], ""
    for frame, record in records:
        kind = kind or _kind(record)
        if before is not None:
            changes.append(_change(kind, before, (frame, record)))
        before = frame, record
    if not changes:
        raise DataError(f"{file} has fewer than two frames: nothing changes between them")
    return Stability(kind, tuple(changes))


def _kind(record: Record) -> str:
    found = next((kind for kind in ("classes", "objects") if kind in record), None)
    if found is None:
        raise ConfigError("--video is for a classifier or a detector; the model predicts neither classes nor objects")
    return found


def _change(kind: str, before: tuple[int, Record], after: tuple[int, Record]) -> Change:
    (frame, old), (next_frame, new) = before, after
    if kind == "classes":
        changed = old["classes"][0]["name"] != new["classes"][0]["name"]
        return Change(frame, next_frame, int(changed), 1)
    ious = matches(old["objects"], new["objects"])
    of = len(old["objects"]) + len(new["objects"])
    return Change(frame, next_frame, of - 2 * len(ious), of, 2 * float(sum(ious)))


def matches(old: Sequence[Record], new: Sequence[Record]) -> list[float]:
    """The IoU of each match: the pairs of one class with an IoU of 0.5 or more, the largest first, each object in one."""
    if not old or not new:
        return []
    iou = _iou(*(np.asarray([each["box"] for each in objects], np.float64) for objects in (old, new)))
    same = np.asarray([each["label"] for each in old])[:, None] == np.asarray([each["label"] for each in new])
    iou = np.where(same, iou, 0)
    found = []
    while iou.max() >= LEAST_IOU:
        row, column = np.unravel_index(np.argmax(iou), iou.shape)
        found.append(float(iou[row, column]))
        iou[row], iou[:, column] = 0, 0
    return found


def _iou(a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    areas = [(each[:, 2:] - each[:, :2]).prod(-1) for each in (a, b)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


def as_json(found: Stability, file: Path) -> str:
    """The summary and all changes, JSON; what is not finite is null."""
    summary = {name: value if np.isfinite(value) else None for name, value in found.summary().items()}
    changes = [
        {"frame": each.frame, "next": each.next, "unstable": each.unstable, "of": each.of} for each in found.changes
    ]
    return json.dumps({"video": file.name, "kind": found.kind, "summary": summary, "changes": changes}, indent=1) + "\n"


def told(found: Stability, file: Path) -> str:
    """The summary for a person, in two lines at most."""
    summary = found.summary()
    what = {"classes": "answers that change", "objects": "detections without a match"}[found.kind]
    lines = [
        f"{file.name}: {amount(summary['frames'], 'frame')}, {what} from one to the next: {summary['flip_rate']:.4f}"
    ]
    if "match_iou" in summary:
        lines.append(f"mean IoU of the matches: {summary['match_iou']:.4f}")
    return "\n".join(lines)
