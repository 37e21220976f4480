"""The pictures of an evaluated classifier: its confusion matrix, a sample of its predictions, its worst mistakes."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from jaxvision.draw.confusion import confusion, drawn_of, percent
from jaxvision.draw.figure import save
from jaxvision.draw.sheet import sheet
from jaxvision.errors import amount
from jaxvision.metrics.classification import confusion_matrix
from jaxvision.types import Batch, Stream

SHOWN = 40


def report(folder: Path, name: str, rows: Mapping[str, np.ndarray], stream: Stream, of: str = "") -> None:
    """Writes `<name>_predictions.png`, `<name>_confusion.png` of up to 4,000 classes, `<name>_mistakes.png` if there are any.

    Args:
      folder: an existing folder.
      name: the evaluation's.
      rows: those of `metrics.classification`: label, predicted, confidence and index of every example.
      stream: that of the evaluation, for the images and the names of the classes.
      of: what the predictions are by, such as "step 64, averaged weights".
    """
    classes = stream.about().classes
    if drawn_of(name, classes):
        matrix = confusion(confusion_matrix(rows, len(classes)), classes, name=name, of=of)
        save(matrix, folder / f"{name}_confusion.png")
    sample = spread(len(rows["index"]), SHOWN)
    all_of_them = f"{amount(len(rows['index']), 'example')}, accuracy {percent(rows['label'] == rows['predicted'])}"
    subtitle = "  ·  ".join(filter(None, (all_of_them, of)))
    title = f"{name}: a sample of the predictions"
    _draw(folder / f"{name}_predictions.png", title, subtitle, sample, rows, stream)
    worst = most_confident_mistakes(rows, SHOWN)
    if len(worst):
        title = f"{name}: the most confident mistakes"
        _draw(folder / f"{name}_mistakes.png", title, subtitle, worst, rows, stream)


def spread(count: int, wanted: int) -> np.ndarray:
    """Up to `wanted` of `count` row numbers, evenly spread, without repetition."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64))


def most_confident_mistakes(rows: Mapping[str, np.ndarray], wanted: int) -> np.ndarray:
    """The numbers of up to `wanted` rows that are wrong, the most confident first."""
    wrong = np.flatnonzero(rows["label"] != rows["predicted"])
    return wrong[np.argsort(-rows["confidence"][wrong], kind="stable")][:wanted]


def images_of(stream: Stream, index: Iterable[int]) -> dict[int, np.ndarray]:
    """The images of these examples as they are on the canvas, without padding; reads only the batches that they are in.

    Args:
      stream: that of an evaluation, which yields the examples in the order of their index.
      index: which examples.
    """
    found = {}
    for example, batch, row in rows_of(stream, index):
        top, left, bottom, right = _shown(batch, row)
        found[example] = np.asarray(batch.image[row])[top:bottom, left:right]
    return found


def rows_of(stream: Stream, index: Iterable[int]) -> Iterator[tuple[int, Batch, int]]:
    """Each of these examples, its batch and its row there; reads only the batches that they are in."""
    size = stream.spec.image.shape[0]
    wanted = set(map(int, index))
    for step in sorted({i // size for i in wanted}):
        batch = next(stream.batches(step))
        for row, i in enumerate(np.asarray(batch.index)):
            if int(i) in wanted:
                yield int(i), batch, row


def _shown(batch: Batch, row: int) -> list[int]:
    """Top, left, bottom and right of the image on the canvas."""
    size, file = np.asarray(batch.size[row]), np.asarray(batch.original_size[row])
    if batch.window is None:
        return [0, 0, *size.tolist()]
    low, high = (np.asarray(batch.window[row])[k : k + 2][::-1] for k in (0, 2))
    scale = size / (high - low)
    corners = (-low * scale, (file - low) * scale)
    return np.concatenate([np.clip(np.rint(each), 0, size) for each in corners]).astype(int).tolist()


def _draw(
    path: Path, title: str, subtitle: str, numbers: np.ndarray, rows: Mapping[str, np.ndarray], stream: Stream
) -> None:
    classes = stream.about().classes
    images = images_of(stream, rows["index"][numbers])
    captions = [_caption(rows, number, classes) for number in numbers]
    correct = [bool(rows["label"][number] == rows["predicted"][number]) for number in numbers]
    shown = [images[int(i)] for i in rows["index"][numbers]]
    save(sheet(shown, captions, correct, title=title, subtitle=subtitle), path)


def _caption(rows: Mapping[str, np.ndarray], number: int, classes: tuple[str, ...]) -> str:
    label, predicted = classes[rows["label"][number]], classes[rows["predicted"][number]]
    confidence = f"{predicted} {rows['confidence'][number]:.0%}"
    return confidence if label == predicted else f"{confidence}\ntrue: {label}"
