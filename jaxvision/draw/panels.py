"""Panels of training curves: which metrics of a run share one, and which of them a page shows."""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from numbers import Real
from typing import Any, NamedTuple

from jaxvision.errors import amount

TRAINING = "train"
MOST_PANELS = 12

LOWER_IS_BETTER = re.compile("loss|error|perplexity|entropy|distance|mse|rmse|mae")
HIGHER_IS_BETTER = re.compile("accuracy|precision|recall|f1|m?ap|ar|m?iou|dice|[prs]q|auc|auroc|psnr|ssim|agreement")
MINOR = re.compile(r"(mask_)?(AR\d+|A[PR]_(small|medium|large))")
"""Metrics of COCO that come after the others: recall of so many detections, and all that is of objects of some size."""
POTENTIAL = "dAP_"
"""Beginning of the names of what AP lacks for each reason: they come last."""
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
    """The panels of the rows of a log, up to 12.

    The loss comes first, then the quantity `by` which the best checkpoint is chosen, even where it is of a single class, then
    what evaluations measure, these in turn and each in the order of the rows, and the terms of the loss in turn; learning
    rates and the norm of the gradient come last and always have room. What AP lacks for which reason is drawn where there is
    room for more.

    Raises:
      ValueError: no rows, a row without a step, or rows without a single metric.
    """
    together = _together(_collected(rows, by))
    chosen_by = None if by is None else by.partition("/")[2]
    finite = {quantity: panel for quantity, panel in together.items() if any(map(_is_finite, panel))}
    kept, equal = _each_once(finite or together, chosen_by)
    order = _order(kept, chosen_by)
    shown, others = order[:MOST_PANELS], order[MOST_PANELS:]
    shown.sort(key=lambda quantity: (_is_aside(kept[quantity]), quantity != LOSS, not _is_measured(kept[quantity])))
    empty = [quantity for quantity in together if finite and quantity not in finite]
    return Page([kept[quantity] for quantity in shown], equal, empty, others)


def _collected(rows: Sequence[Mapping[str, Any]], by: str | None) -> list[Curve]:
    if not rows:
        raise ValueError("no curves to draw: there are no rows")
    found: dict[str, Curve] = {}
    for number, row in enumerate(rows):
        if "step" not in row:
            raise ValueError(f"row {number} has no step; it has {', '.join(row) or 'nothing'}")
        for name, value in row.items():
            if _is_metric(name, value, by):
                curve = found.setdefault(name, Curve(*_parts(name), [], []))
                curve.steps.append(row["step"])
                curve.values.append(math.nan if value is None else value)
    if not found:
        raise ValueError(f"no curves to draw: {amount(len(rows), 'row')}, none with a metric beside its step")
    return list(found.values())


def _is_metric(name: str, value: Any, by: str | None) -> bool:
    """Whether it is a number that may have a panel: of a single class only what the best checkpoint is chosen by."""
    number = value is None or (isinstance(value, Real) and not isinstance(value, bool))
    return number and name not in ("step", "epoch") and (name.count("/") < 2 or name == by)


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


def _each_once(
    panels: Mapping[str, list[Curve]], by: str | None
) -> tuple[dict[str, list[Curve]], dict[str, list[str]]]:
    """The panels without those that repeat one before, other than the loss and `by`; those left out, by that one's name."""
    first = [quantity for quantity in dict.fromkeys((LOSS, by)) if quantity is not None and quantity in panels]
    order = dict.fromkeys((*first, *panels))
    kept: dict[str, list[Curve]] = {}
    equal: dict[str, list[str]] = {}
    for quantity in order:
        panel = panels[quantity]
        same = next((known for known, other in kept.items() if _repeats(panel, other)), None)
        if same is None or quantity in first:
            kept[quantity] = panel
        else:
            equal.setdefault(same, []).append(quantity)
    return kept, equal


def _repeats(panel: Panel, other: Panel) -> bool:
    """Whether a panel of evaluations, or a term of the loss beside the loss, shows nothing that another one does not."""
    known = {curve.part: curve for curve in other}
    return (_is_measured(panel) or other[0].quantity == LOSS) and all(
        _same(curve, known.get(curve.part)) for curve in panel
    )


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
    potentials = [name for name in rest if name.startswith(POTENTIAL)]
    rest = [name for name in rest if name not in potentials]
    lively = [name for name in rest if not all(map(is_constant, panels[name])) and not _is_aside(panels[name])]
    measured = _by_turns({name: panels[name] for name in lively if _is_measured(panels[name])})
    terms = [name for name in lively if name not in measured]
    turns = [name for pair in zip_longest(measured, terms) for name in pair if name is not None]
    room = max(MOST_PANELS - len(first) - len(always), 1)
    return [*first, *turns[:room], *always, *turns[room:], *(name for name in rest if name not in turns), *potentials]


def _by_turns(panels: Mapping[str, Panel]) -> list[str]:
    """Quantities that are measured, of each evaluation in turn: of masks before those of boxes, minor ones last."""
    groups: dict[str, list[str]] = {}
    for name, panel in panels.items():
        groups.setdefault(next(curve.part for curve in panel if curve.part != TRAINING), []).append(name)
    for names in groups.values():
        names.sort(key=lambda name: (bool(MINOR.fullmatch(name)), not name.startswith("mask_")))
    return [name for names in zip_longest(*groups.values()) for name in names if name is not None]


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
    """Whether "lower" or "higher" is better, as far as the name of the quantity says, without that of its class."""
    quantity = quantity.partition("/")[0]
    words = re.findall(r"[a-z]+", quantity.lower()) + quantity.lower().split("_")
    if any(map(LOWER_IS_BETTER.fullmatch, words)):
        return "lower"
    return "higher" if any(map(HIGHER_IS_BETTER.fullmatch, words)) else None
