"""What a calibration did, on the examples that it was not fitted on: a table, and a reliability diagram."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxvision.draw.figure import save
from jaxvision.draw.reliability import Reliability, reliability
from jaxvision.errors import amount, write_atomically
from jaxvision.metrics import calibration
from jaxvision.metrics.calibration_error import DETECTION_BINS, judged
from jaxvision.metrics.tables import tables
from jaxvision.trust.calibrated_run import Calibrated
from jaxvision.trust.conformal import judge, sets


def table(made: Calibrated) -> str:
    """The metrics before and after, a line each."""
    if not len(made.before["index"]):
        return "All of the data were fitted on: evaluate the new run on others (jaxvision.evaluate --eval=NAME)."
    before, after = (made.metric.compute(rows) for rows in (made.before, made.after))
    wide = max(map(len, before))
    lines = [f"{name:<{wide}}  {before[name]:>10.4f}  {after[name]:>10.4f}" for name in before]
    title = f"on {amount(len(made.before['index']), 'other example')}"
    return "\n".join([title, f"{'':<{wide}}  {'before':>10}  {'after':>10}", *lines])


def coverage(made: Calibrated, path: Path) -> str:
    """Conformal sets: writes the threshold as JSON; a line of what the sets hold of the examples that it is not of."""
    found = made.conformal
    assert found is not None
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(found._asdict()) + "\n")
    line = f"conformal sets for a coverage of {found.coverage:.1%}: threshold {found.threshold:.4f}"
    if not len(made.before["index"]):
        return line
    told = judge(made.before, sets(made.before, found))
    return f"{line}, cover {told['coverage']:.1%} of the others, mean set size {told['set_size']:.2f}"


def draw(made: Calibrated, path: Path) -> Path | None:
    """Writes the reliability diagram; None where all examples were fitted on, or nothing was found."""
    curves = [
        curve
        for name, rows in (("as it was", made.before), ("calibrated", made.after))
        for curve in _curves(name, rows)
    ]
    if not curves:
        return None
    path.parent.mkdir(exist_ok=True)
    save(reliability(curves, ()), path)
    return path


def _curves(name: str, rows: Mapping[str, np.ndarray]) -> list[Reliability]:
    if not len(rows["index"]):
        return []
    score, right, bins = guesses(rows)
    if not len(score):
        return []
    return [Reliability(name, *calibration.bins(score, right, bins), calibration.error(score, right, bins))]


def guesses(rows: Mapping[str, np.ndarray]) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"], int]:
    """The scores of the classes predicted, or of the detections, whether each is right, and the number of bins."""
    if "scores" in rows:
        labels = [rows[name].max(initial=0) for name in ("labels", "true_labels")]
        found = judged(tables(rows, int(max(labels)) + 1), 0.5)
        return found.score, found.right.astype(float), DETECTION_BINS
    p = np.exp(np.asarray(rows["log_probabilities"], np.float64))
    return p.max(1), (p.argmax(1) == rows["label"]).astype(float), calibration.BINS
