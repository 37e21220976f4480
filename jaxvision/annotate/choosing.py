"""Choice of the images to review next: where the most errors are expected, spread over images that are unlike each other."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from jaxvision.annotate import descriptors
from jaxvision.annotate.descriptors import Descriptors
from jaxvision.annotate.records import Annotation, ImageRecord
from jaxvision.data.decode import pixels_of

GRID = 4
"""Cells along each side of an image in `descriptor`."""
LENGTH = 6 * GRID * GRID
"""Numbers of a descriptor."""
BLOCK = 1 << 22
"""Distances that are in memory at once."""
FLOOR = 1e-6
"""Errors expected of an image without findings: images that are alike in all else still have an order, by their distance."""


def expected_errors(objects: Iterable[Annotation]) -> float:
    """How many decisions about an image's findings are expected to be wrong.

    Of a finding that is right with probability p, keeping it errs with 1 - p and dropping it with p: the better choice errs
    with min(p, 1 - p). Without a calibrated probability the score stands for it; what a person has decided counts nothing,
    nor does what has neither.
    """
    found = (each for each in objects if each.verdict == "new")
    probabilities = (each.score if each.probability is None else each.probability for each in found)
    return float(sum(min(p, 1 - p) for p in probabilities if p is not None))


def descriptor(pixels: UInt8[np.ndarray, "h w *c"]) -> Float[np.ndarray, "96"]:
    """What an image, grey or of three colours, looks like from afar: colours and slopes of grey in 4 x 4 cells.

    Of each cell the mean colour and the mean absolute slopes across and down, then of all cells the standard deviations of
    grey; all are from 0 to 1.
    """
    side = 8 * GRID
    small = (
        np.asarray(Image.fromarray(pixels).convert("RGB").resize((side, side), Image.Resampling.BOX), np.float64) / 255
    )
    grey = small.mean(2)
    across, down = (np.abs(np.gradient(grey, axis=axis)) for axis in (1, 0))
    cells = np.concatenate([small, np.stack([across, down], 2)], 2).reshape(GRID, 8, GRID, 8, 5)
    deviation = grey.reshape(GRID, 8, GRID, 8).std((1, 3))
    return np.concatenate([cells.mean((1, 3)).reshape(-1), deviation.reshape(-1)])


def choose(
    errors: Float[np.ndarray, "n"],
    features: Float[np.ndarray, "n d"],
    count: int,
    reviewed: Float[np.ndarray, "m d"] | None = None,
) -> Int[np.ndarray, "k"]:
    """The numbers of `count` images, or of all where there are fewer, the first first.

    Each is the one with the largest product of the errors expected of it and its distance from the nearest image that was
    chosen before or is reviewed: k-center's greedy choice (Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5), weighted.
    Columns of the features are standardised over all images. Of equal ones the first.

    Args:
      errors: expected of each image, 0 or more.
      features: what each image looks like.
      count: 1 or more.
      reviewed: features of the images that were reviewed; None for none.

    Raises:
      ValueError: for a count below 1, or arrays that don't fit each other.
    """
    if count < 1 or len(errors) != len(features):
        raise ValueError(
            f"choose(count={count}), {len(errors)} errors, {len(features)} features: allowed are a count from 1 on, and"
            " one of each for an image"
        )
    before = np.zeros((0, features.shape[1])) if reviewed is None else reviewed
    points = _standardised(np.concatenate([before, features]))
    centres, points = points[: len(before)], points[len(before) :]
    far = _nearest(points, centres)
    chosen: list[int] = []
    weight = np.asarray(errors, np.float64) + FLOOR
    left = np.ones(len(points), bool)
    for _ in range(min(count, len(points))):
        gain = weight if np.isinf(far).all() else weight * far
        number = int(np.argmax(np.where(left, gain, -1)))
        chosen.append(number)
        left[number] = False
        far = np.minimum(far, _distances(points, number))
    return np.asarray(chosen, np.int64)


def _standardised(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Columns of mean 0 and variance 1; those that are all alike become 0."""
    if not len(features):
        return features
    centred, deviation = features - features.mean(0), features.std(0)
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 1e-9)


def _nearest(points: Float[np.ndarray, "n d"], centres: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n"]:
    """The distance of each point from the nearest centre; infinite where there is none."""
    found, lengths = np.full(len(points), np.inf), (centres**2).sum(1)
    rows = max(BLOCK // max(len(centres), 1), 1)
    for start in range(0, len(points) if len(centres) else 0, rows):
        block = points[start : start + rows]
        nearest = (lengths - 2 * block @ centres.T).argmin(1)
        found[start : start + rows] = np.linalg.norm(block - centres[nearest], axis=1)
    return found


def _distances(points: Float[np.ndarray, "n d"], number: int) -> Float[np.ndarray, "n"]:
    return np.linalg.norm(points - points[number], axis=1)


class Choice(NamedTuple):
    """An image that was chosen."""

    name: str
    errors: float
    """Errors expected among its findings."""


def next_images(
    records: Iterable[ImageRecord],
    folder: Path,
    count: int,
    complain: Callable[[str], object] = lambda text: None,
    kept: Path | None = None,
) -> list[Choice]:
    """The images whose review teaches most, the first first: `choose` of those that no person has looked at all of.

    Args:
      records: of a store.
      folder: of the images; one that can't be read is left out.
      count: 1 or more.
      complain: called with a line for each image that can't be read.
      kept: file of descriptors (`descriptors.beside`), read and brought up to date; None: all images are decoded.

    Raises:
      ValueError: for a count below 1.
    """
    found: dict[bool, list[tuple[Choice, np.ndarray]]] = {True: [], False: []}
    before = {} if kept is None else descriptors.read(kept, LENGTH)
    now: Descriptors = {}
    for record in records:
        if record.failure is not None:
            continue
        try:
            features = _described(folder / record.name, before, now)
        except (OSError, ValueError) as error:
            complain(f"left out {record.name}: {error}")
            continue
        choice = Choice(record.name, expected_errors(record.objects))
        found[record.state == "reviewed"].append((choice, features))
    if kept is not None and now.keys() != before.keys():
        descriptors.write(kept, now)
    choices = [choice for choice, _ in found[False]]
    reviewed, features = (
        np.asarray([each for _, each in found[known]], np.float64).reshape(-1, LENGTH) for known in (True, False)
    )
    errors = np.asarray([each.errors for each in choices], np.float64)
    return [choices[number] for number in choose(errors, features, count, reviewed)]


def _described(file: Path, before: Descriptors, now: Descriptors) -> Float[np.ndarray, "96"]:
    """The descriptor of an image file, that from before where its bytes are the same; it is added to those of now."""
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    for known in (now, before):
        if digest in known:
            return now.setdefault(digest, known[digest])
    return now.setdefault(digest, descriptor(pixels_of(data)).astype(np.float32))


def folder_of(settings: Mapping[str, str]) -> Path | None:
    """The folder of the images that a store's settings name; None where they name none."""
    told = json.loads(settings["images"]) if "images" in settings else None
    return Path(told) if isinstance(told, str) else None
