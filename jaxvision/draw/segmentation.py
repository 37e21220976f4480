"""Pictures of an evaluated semantic segmenter: ground truth, prediction and errors side by side, worst images, confusions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int, UInt8

from jaxvision.draw import key
from jaxvision.draw.classification import rows_of, spread
from jaxvision.draw.confusion import confusion, drawn_of
from jaxvision.draw.figure import save
from jaxvision.draw.masks import CLEAR, greyed, with_classes
from jaxvision.draw.palette import BLACK, class_colours, levels
from jaxvision.draw.side_by_side import Panel, Shown, enlarged, enlargement, side_by_side
from jaxvision.draw.style import CYAN, INK, RED, YELLOW
from jaxvision.metrics.segmentation import iou, picture_step, predicted_map, total_confusion
from jaxvision.types import Batch, Stream

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 12
"""Images on a sheet."""
RIGHT, VOID, CONFUSED, MISSED, INVENTED = range(5)
"""What a pixel is on the map of errors."""
KEY = {MISSED: ("missed", CYAN), INVENTED: ("invented", RED), CONFUSED: ("confused", YELLOW), VOID: ("void", INK)}
UNPAINTED = "#A0A0A0"
"""What the key shows for the class called background, which is left grey."""
PANELS = "from the left: image, ground truth, prediction, errors"


def report(folder: Path, name: str, rows: Mapping[str, np.ndarray], stream: Stream, of: str = "") -> None:
    """Writes `<name>_predictions.png`, `<name>_confusion.png` of pixels, and `<name>_worst.png` if any pixel is wrong and
    the sample is not of all images.

    The worst images have the smallest mean IoU of the classes in truth or prediction. On the map of errors a pixel is missed
    where a class was predicted as the one called background, invented where it is the other way, else confused; without
    such a class all are confused.

    Args:
      folder: an existing folder.
      name: the evaluation's.
      rows: those of `metrics.segmentation`, for every example.
      stream: that of the evaluation, for the images, the target and the names of the classes.
      of: what the predictions are by, such as "step 64, averaged weights".
    """
    classes = stream.about().classes
    total = total_confusion(rows)
    if drawn_of(name, classes) and total.any():
        right = f"pixel accuracy {np.trace(total) / total.sum():.2%}  ·  mIoU {_mean(iou(total)):.3f}"
        save(confusion(total, classes, summary=right, name=name, of=of), folder / f"{name}_confusion.png")
    each = np.array([_mean(values) for values in iou(np.asarray(rows["confusion"]))])
    worst = np.argsort(each, kind="stable")[:SHOWN]  # NaN, nothing valid, comes last
    sheets = {
        "predictions": (f"{name}: a sample", spread(len(each), SHOWN)),
        "worst": (f"{name}: the images with the smallest mean IoU", worst[(each[worst] < 1) & (len(each) > SHOWN)]),
    }
    for kind, (title, numbers) in sheets.items():
        if len(numbers):
            figure = sheet(rows, numbers, stream, title, of)
            save(figure, folder / f"{name}_{kind}.png")


def sheet(
    rows: Mapping[str, np.ndarray], numbers: Sequence[int] | np.ndarray, stream: Stream, title: str, of: str = ""
) -> Figure:
    """These rows' images, each by itself, with the classes of the ground truth, those of the prediction, and the errors."""
    about = stream.about()
    colours = class_colours(about.classes)
    place = {int(rows["index"][number]): int(number) for number in numbers}
    background = np.array([colour == BLACK for colour in colours])
    shown, present = {}, np.zeros(len(colours), bool)
    wrong: set[int] = set()
    for example, batch, row in rows_of(stream, place):
        number = place[example]
        found = predicted_map(rows["predicted"][number])
        image, truth, valid = _content(batch, row)
        present |= np.bincount(np.append(truth[valid], found.reshape(-1)), minlength=len(colours)) > 0
        truth = np.where(valid, truth, -1)
        kind = errors(truth, found, background)
        wrong |= set(np.unique(kind).tolist())
        note = _note(np.asarray(rows["confusion"][number]))
        shown[number] = Shown(_panels(image, truth, found, kind, colours), about.name(example), note)
    known = np.flatnonzero(present)
    legend = key.named([(about.classes[k], colours[k] if colours[k] != BLACK else UNPAINTED) for k in known])
    subtitle = "  ·  ".join(filter(None, (PANELS, of)))
    return side_by_side([shown[int(n)] for n in numbers], title, subtitle, [legend, error_key(wrong)])


def error_key(found: Collection[int]) -> list[key.Entry]:
    """The entries of the key for what the pixels of maps of errors are, without those that no pixel is."""
    entries = [entry for kind, entry in KEY.items() if kind in found]
    return [("errors:", ""), *entries] if entries else []


def errors(
    truth: Int[np.ndarray, "h w"], found: Int[np.ndarray, "h w"], background: Bool[np.ndarray, " k"]
) -> Int[np.ndarray, "h w"]:
    """What each pixel is: RIGHT, CONFUSED, MISSED, INVENTED or VOID, where the truth is -1."""
    kind = np.where(truth == found, RIGHT, CONFUSED)
    wrong = kind == CONFUSED
    kind[wrong & background[found]] = MISSED
    kind[wrong & background[truth]] = INVENTED
    kind[truth < 0] = VOID
    return kind


def _content(
    batch: Batch, row: int
) -> tuple[UInt8[np.ndarray, "h w 3"], Int[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Image, labels and valid pixels of the content, as few as the map that was kept has."""
    (height, width), step = np.asarray(batch.size[row]), picture_step((batch.image.shape[1], batch.image.shape[2]))
    image, label, valid = (
        np.asarray(of[row])[:height:step, :width:step] for of in (batch.image, batch.target.label, batch.target.valid)
    )
    image = np.clip(np.rint(image.astype(np.float32)), 0, 255).astype(np.uint8)
    return np.broadcast_to(image, (*image.shape[:2], 3)), label, valid


def _panels(
    image: UInt8[np.ndarray, "h w 3"],
    truth: Int[np.ndarray, "h w"],
    found: Int[np.ndarray, "h w"],
    kind: Int[np.ndarray, "h w"],
    colours: Sequence[str],
) -> list[Panel]:
    times = enlargement(image.shape)
    image, truth, found, kind = (enlarged(each, times) for each in (image, truth, found, kind))
    grey = greyed(image)
    maps = [Panel(with_classes(grey, labels, colours, CLEAR)) for labels in (truth, found)]
    return [Panel(image), *maps, Panel(with_errors(image, kind))]


def with_errors(image: UInt8[np.ndarray, "h w 3"], kind: Int[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """The image in light grey, with the colours of the errors over it."""
    table = np.zeros((len(KEY) + 1, 3), np.uint8)
    table[list(KEY)] = levels([colour for _, colour in KEY.values()])
    return np.where((kind == RIGHT)[..., None], greyed(image), table[kind])


def _note(counts: Int[np.ndarray, "k k"]) -> str:
    if not counts.any():
        return "nothing valid"
    return f"mIoU {_mean(iou(counts)):.2f}, pixel accuracy {np.trace(counts) / counts.sum():.1%}"


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
