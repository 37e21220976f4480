"""Pictures of an evaluated detector: predictions beside the ground truth, worst images, precision and recall, confusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxvision.draw.boxes import Label, draw_box
from jaxvision.draw.classification import images_of, spread
from jaxvision.draw.confusion import confusion, drawn_of
from jaxvision.draw.figure import save
from jaxvision.draw.palette import COLOURS
from jaxvision.draw.style import GREEN, INK, MUTED, ORANGE, RULE, VERMILLION, shorten, text_width
from jaxvision.errors import amount
from jaxvision.metrics import coco_ap
from jaxvision.metrics.matching import Pairs, best_score, confusion_matrix, image_costs, matches, pairs, verdict
from jaxvision.metrics.tables import Tables, tables
from jaxvision.types import Stream

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN, COLUMNS = 12, 2
"""Images on a sheet, and how many of them in a row, each of them twice."""
CELL, GAP, MARGIN, CAPTION, HEAD = 2.9, 0.08, 0.25, 0.42, 0.62
"""Lengths in inches."""
KEY = (("true positive", GREEN), ("missed", ORANGE), ("false positive", VERMILLION), ("ignored", MUTED))
FEW_CURVES = len(COLOURS)
"""Most classes for which each has a curve with a name."""


def report(folder: Path, name: str, rows: Mapping[str, np.ndarray], stream: Stream, of: str = "") -> None:
    """Writes `<name>_predictions.png`, `<name>_worst.png`, `<name>_precision_recall.png` and `<name>_confusion.png`.

    Sheets and confusion matrices show the detections above the score at which F1 over all images is largest. The worst images
    have the largest sum of: 1 less the score of its finder for every object (1 for one that is missed), and the score of
    every false positive (all at IoU 0.5, whatever the score). Pictures with nothing to draw are left out, and
    the worst images where the sample is of all.

    Args:
      folder: an existing folder.
      name: the evaluation's.
      rows: those of `metrics.detection`, for every example.
      stream: that of the evaluation, for the images and the names of the classes.
      of: what the detections are by, such as "step 64, averaged weights".
    """
    classes = stream.about().classes
    found = tables(rows, len(classes))
    near = pairs(found)
    score = best_score(found, near)
    if drawn_of(name, classes) and (counts := confusion_matrix(rows, len(classes), score=score)).any():
        summary = f"score {score:.2f} or more, IoU 0.5"
        matrix = confusion(counts, [*classes, "background"], summary=summary, name=name, of=of)
        save(matrix, folder / f"{name}_confusion.png")
    curves = coco_ap.curves(found)
    if (curves.recall >= 0).any():
        heading = "  ·  ".join(filter(None, (f"{name}: precision and recall", of)))
        save(precision_recall(curves, classes, heading), folder / f"{name}_precision_recall.png")
    cost = image_costs(found, near)
    worst = np.argsort(-cost, kind="stable")[:SHOWN]
    sheets = {
        "predictions": (f"{name}: a sample", spread(found.images, SHOWN)),
        "worst": (
            f"{name}: the worst images, by scores at any threshold",
            worst[(cost[worst] > 0) & (len(cost) > SHOWN)],
        ),
    }
    seen = Seen(found, near, score, rows, stream, of)
    for kind, (title, numbers) in sheets.items():
        if len(numbers):
            save(pairs_sheet(seen, numbers, title), folder / f"{name}_{kind}.png")


class Seen(NamedTuple):
    """What a sheet is drawn from."""

    found: Tables
    near: Pairs
    score: float
    rows: Mapping[str, np.ndarray]
    stream: Stream
    of: str = ""


def pairs_sheet(seen: Seen, numbers: Sequence[int] | np.ndarray, title: str) -> Figure:
    """These rows' images, each twice: with the ground truth on the left, the detections on the right.

    Green: true positive; orange: missed; vermillion: false positive; grey and dashed: to ignore, or found in one to ignore.
    """
    from matplotlib.figure import Figure

    index = [int(seen.rows["index"][number]) for number in numbers]
    images = images_of(seen.stream, index)
    about = seen.stream.about()
    tall = max(image.shape[0] / max(image.shape[:2]) for image in images.values())
    pitch = 2 * CELL + GAP + 0.3, CELL * tall + CAPTION
    columns = min(COLUMNS, len(numbers))
    page = columns * pitch[0] - 0.3 + 2 * MARGIN, -(-len(numbers) // columns) * pitch[1] + HEAD + 2 * MARGIN
    figure = Figure(figsize=page, facecolor="white")
    _write_head(figure, title, seen)
    for place, (number, example) in enumerate(zip(numbers, index, strict=True)):
        left, top = MARGIN + place % columns * pitch[0], MARGIN + HEAD + place // columns * pitch[1]
        height, width = (CELL * side / max(images[example].shape[:2]) for side in images[example].shape[:2])
        both = [image_axes(figure, images[example], x, top, width, height) for x in (left, left + width + GAP)]
        found, missed, false = _draw_pair(both, seen, int(number), images[example].shape[:2], about.classes)
        counts = f"{found} found, {missed} missed, {amount(false, 'false positive')}"
        caption = (shorten(about.name(example), 2 * width, 8), counts)
        for line, (text, colour) in enumerate(zip(caption, (INK, MUTED), strict=True)):
            y = 1 - (top + height + 0.16 + 0.14 * line) / page[1]
            figure.text(left / page[0], y, text, fontsize=8, color=colour, parse_math=False)
    return figure


def _write_head(figure: Figure, title: str, seen: Seen) -> None:
    width, height = figure.get_size_inches()
    style: dict[str, Any] = {"x": MARGIN / width, "parse_math": False}
    figure.text(y=1 - (MARGIN + 0.12) / height, s=title, fontsize=12, weight="bold", color=INK, **style)
    text = f"left: ground truth, right: detections with a score of {seen.score:.2f} or more (the best F1)"
    text = "  ·  ".join(filter(None, (text, seen.of)))
    figure.text(y=1 - (MARGIN + 0.32) / height, s=text, fontsize=8.5, color=MUTED, **style)
    x = MARGIN / width
    for text, colour in KEY:
        figure.text(x, 1 - (MARGIN + 0.5) / height, f"■ {text}", fontsize=8.5, color=colour, weight="bold")
        x += (text_width(f"■ {text}", 8.5) * 1.12 + 0.15) / width


def image_axes(figure: Figure, image: np.ndarray, left: float, top: float, width: float, height: float) -> Axes:
    """The image at this place, in inches from the upper left corner of the page."""
    page = figure.get_size_inches()
    axes = figure.add_axes((left / page[0], 1 - (top + height) / page[1], width / page[0], height / page[1]))
    axes.imshow(np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image, aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(color=RULE, linewidth=1)
    return axes


def _draw_pair(
    both: Sequence[Axes], seen: Seen, number: int, size: tuple[int, int], classes: Sequence[str]
) -> tuple[int, int, int]:
    """Draws the boxes; returns how many objects were found and missed, and how many detections are false positives."""
    detected, annotated = seen.found.detected, seen.found.annotated
    height, width = size / np.asarray(seen.rows["original_size"][number], np.float64)
    scale = np.asarray([width, height, width, height])
    match = np.where(detected.score >= seen.score, matches(seen.found, seen.near), -1)
    right, wrong = verdict(seen.found, match)
    objects = np.flatnonzero(annotated.image == number)
    hit = np.isin(objects, match)
    names = list(classes) if len(classes) > 1 else [""]
    labels: tuple[list[Label], list[Label]] = ([], [])
    for row, is_found in zip(objects, hit, strict=True):
        ignored = bool(annotated.ignore[row])
        colour = MUTED if ignored else GREEN if is_found else ORANGE
        text, box = names[int(annotated.label[row])], annotated.box[row] * scale
        draw_box(both[0], box, text, colour, dashed=ignored, size=6, taken=labels[0])
    shown = np.flatnonzero((detected.image == number) & (detected.score >= seen.score))
    for place, row in enumerate(shown):  # the best first: its label has room, and its box lies above the others
        colour = GREEN if right[row] else VERMILLION if wrong[row] else MUTED
        text = f"{names[int(detected.label[row])]} {detected.score[row]:.2f}".strip()
        box, above = detected.box[row] * scale, 2 - place / len(shown)
        draw_box(both[1], box, text, colour, dashed=colour == MUTED, size=6, taken=labels[1], zorder=above)
    real = ~annotated.ignore[objects]
    return int((hit & real).sum()), int((~hit & real).sum()), int(wrong[shown].sum())


def precision_recall(curves: coco_ap.Curves, classes: Sequence[str], heading: str = "") -> Figure:
    """Precision against recall at IoU 0.5 and 0.75: the mean over classes, and each class; up to five have names."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.3), layout="constrained", facecolor="white")
    for place, threshold in enumerate((0.5, 0.75)):
        axes = figure.add_subplot(1, 2, place + 1)
        precision = curves.precision[coco_ap.THRESHOLDS.index(threshold), :, :, 0, -1]
        known = np.flatnonzero(precision[0] >= 0).tolist()
        few = 1 < len(known) <= FEW_CURVES
        for turn, k in enumerate(known if len(known) > 1 else ()):
            style: dict[str, Any] = (
                {"color": COLOURS[turn], "linewidth": 1.4} if few else {"color": MUTED, "alpha": 0.4, "linewidth": 1}
            )
            label = f"{shorten(classes[k], 1.4, 8)} {precision[:, k].mean():.3f}" if few else None
            axes.plot(np.linspace(0, 1, 101), precision[:, k], label=label, **style)
        mean = precision[:, known].mean(1) if len(known) else np.zeros(101)
        name = "mean" if len(known) > 1 else classes[known[0]] if len(known) else ""
        axes.plot(
            np.linspace(0, 1, 101), mean, color=INK, linewidth=2.2, label=f"{shorten(name, 1.4, 8)} {mean.mean():.3f}"
        )
        _dress(axes, f"IoU {threshold}: AP{100 * threshold:.0f} {mean.mean():.3f}", few=few or len(known) <= 1)
    if heading:
        figure.suptitle(shorten(heading, 9, 9), x=0.01, ha="left", fontsize=9, color=MUTED, parse_math=False)
    return figure


def _dress(axes: Axes, title: str, *, few: bool) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(title, loc="left", fontsize=11, weight="bold", color=INK)
    axes.set_xlabel("recall", fontsize=9, color=INK)
    axes.set_ylabel("precision", fontsize=9, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=MUTED, labelcolor=INK)
    title = "AP" if few else "AP; grey: each class"
    legend = axes.legend(frameon=False, fontsize=8, title=title, title_fontsize=8, loc="best")
    for text in legend.get_texts():
        text.set_parse_math(False)
