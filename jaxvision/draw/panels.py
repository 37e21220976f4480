"""Panels of training curves: which metrics of a run share one, and which of them a page shows."""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from numbers import Real
from typing import Any, NamedTuple

from jaxvision.errors import amount

TRAINING = "train"
MOST_PANELS = 9

LOWER_IS_BETTER = re.compile("loss|error|perplexity|entropy|distance|mse|rmse|mae")
HIGHER_IS_BETTER = re.compile("accuracy|precision|recall|f1|m?ap|ar|m?iou|dice|[prs]q|auc|auroc|psnr|ssim|agreement")
LOSS = "loss"
LOSSES = (LOSS, "log_loss")
"""What an evaluation may call the loss: training's cross-entropy is the log loss of an evaluation."""


class Curve(NamedTuple):
    """One quantity of one part of the data, at the steps where it was measured."""

    part: str
    quantity: str
    steps: list[float]
    values: list[float]


Panel = Sequence[Curve]
"""Curves that share a pair of axes; the first one names it."""


class Page(NamedTuple):
    """The panels of a page, and the quantities that have none."""

    panels: Sequence[Panel]
    equal: Mapping[str, Sequence[str]]
    """A quantity to others whose curves are the same."""
    empty: Sequence[str]
    """Quantities without a finite value."""
    others: Sequence[str]
    """Quantities for which there was no room."""


def page(rows: Sequence[Mapping[str, Any]], by: str | None = None) -> Page:
    """The panels of the rows of a log, up to 9.

    The loss comes first, then the quantity `by` which the best checkpoint is chosen, then what evaluations measure, in the
    order of the rows, and the terms of the loss in turn; learning rates and the norm of the gradient come last and always
    have room.

    Raises:
      ValueError: no rows, a row without a step, or rows without a single metric.
    """
    together = _together(_collected(rows))
    finite = {quantity: panel for quantity, panel in together.items() if any(map(_is_finite, panel))}
    kept, equal = _each_once(finite or together)
    order = _order(kept, None if by is None else by.partition("/")[2])
    shown, others = order[:MOST_PANELS], order[MOST_PANELS:]
    shown.sort(key=lambda quantity: (_is_aside(kept[quantity]), quantity != LOSS, not _is_measured(kept[quantity])))
    empty = [quantity for quantity in together if finite and quantity not in finite]
    return Page([kept[quantity] for quantity in shown], equal, empty, others)


def _collected(rows: Sequence[Mapping[str, Any]]) -> list[Curve]:
    if not rows:
        raise ValueError("no curves to draw: there are no rows")
    found: dict[str, Curve] = {}
    for number, row in enumerate(rows):
        if "step" not in row:
            raise ValueError(f"row {number} has no step; it has {', '.join(row) or 'nothing'}")
        for name, value in row.items():
            if _is_metric(name, value):
                curve = found.setdefault(name, Curve(*_parts(name), [], []))
                curve.steps.append(row["step"])
                curve.values.append(math.nan if value is None else value)
    if not found:
        raise ValueError(f"no curves to draw: {amount(len(rows), 'row')}, none with a metric beside its step")
    return list(found.values())


def _is_metric(name: str, value: Any) -> bool:
    number = value is None or (isinstance(value, Real) and not isinstance(value, bool))
    return number and name not in ("step", "epoch") and name.count("/") < 2


def _parts(name: str) -> tuple[str, str]:
    """The part of the data and the quantity that a name tells."""
    part, slash, quantity = name.partition("/")
    return (part, quantity) if slash else (TRAINING, name)


def _together(found: Sequence[Curve]) -> dict[str, list[Curve]]:
    """The curves of each quantity, training's first; an evaluation's log loss beside the loss of training, if any."""
    has_loss = any(curve.quantity == LOSS for curve in found)
    panels: dict[str, list[Curve]] = {}
    for curve in sorted(found, key=lambda curve: curve.part != TRAINING):
        quantity = LOSS if has_loss and curve.quantity in LOSSES else curve.quantity
        panels.setdefault(quantity, []).append(curve)
    return panels


def _is_finite(curve: Curve) -> bool:
    return any(map(math.isfinite, curve.values))


def _each_once(panels: Mapping[str, list[Curve]]) -> tuple[dict[str, list[Curve]], dict[str, list[str]]]:
    """The panels without those that repeat one before; and the quantities of these, by that one's."""
    kept: dict[str, list[Curve]] = {}
    equal: dict[str, list[str]] = {}
    for quantity, panel in panels.items():
        first = next((known for known, other in kept.items() if _repeats(panel, other)), None)
        if first is None:
            kept[quantity] = panel
        else:
            equal.setdefault(first, []).append(quantity)
    return kept, equal


def _repeats(panel: Panel, other: Panel) -> bool:
    """Whether a panel of evaluations shows nothing that another one does not."""
    known = {curve.part: curve for curve in other}
    return _is_measured(panel) and all(_same(curve, known.get(curve.part)) for curve in panel)


def _same(curve: Curve, other: Curve | None) -> bool:
    return (
        other is not None
        and curve.steps == other.steps
        and better(curve.quantity) == better(other.quantity) is not None
        and not is_constant(curve)
        and all(
            math.isclose(a, b, rel_tol=1e-9) or (math.isnan(a) and math.isnan(b))
            for a, b in zip(curve.values, other.values, strict=True)
        )
    )


def _order(panels: Mapping[str, Panel], by: str | None) -> list[str]:
    """All quantities, the most telling first; those that never changed last."""
    first = [name for name in dict.fromkeys((LOSS, by)) if name is not None and name in panels]
    always = [name for name in panels if name.startswith("learning_rate") or name == "gradient_norm"]
    rest = [name for name in panels if name not in (*first, *always)]
    lively = [name for name in rest if not all(map(is_constant, panels[name])) and not _is_aside(panels[name])]
    measured = [name for name in lively if _is_measured(panels[name])]
    terms = [name for name in lively if name not in measured]
    turns = [name for pair in zip_longest(measured, terms) for name in pair if name is not None]
    room = max(MOST_PANELS - len(first) - len(always), 1)
    return [*first, *turns[:room], *always, *turns[room:], *(name for name in rest if name not in turns)]


def _is_measured(panel: Panel) -> bool:
    """Whether it has a curve of an evaluation, of which one value is better than another."""
    return better(panel[0].quantity) is not None and panel[-1].part != TRAINING


def _is_aside(panel: Panel) -> bool:
    """Whether it is of training alone, and no value is better than another."""
    return better(panel[0].quantity) is None and panel[-1].part == TRAINING


def is_constant(curve: Curve) -> bool:
    """Whether several values are all the same."""
    finite = [value for value in curve.values if math.isfinite(value)]
    return len(finite) > 1 and min(finite) == max(finite)


def better(quantity: str) -> str | None:
    """Whether "lower" or "higher" is better, as far as the name of the quantity says."""
    words = re.findall(r"[a-z]+", quantity.lower()) + quantity.lower().split("_")
    if any(map(LOWER_IS_BETTER.fullmatch, words)):
        return "lower"
    return "higher" if any(map(HIGHER_IS_BETTER.fullmatch, words)) else None
