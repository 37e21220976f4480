"""Remarks on the data of a run: what was left out, what looks wrong, what doesn't fit together."""

from collections.abc import Mapping

from jaxvision.errors import amount
from jaxvision.types import About, ClassScores, Prediction

SHOWN = 20
"""Classes that are named."""


def remarks(abouts: Mapping[str, About]) -> list[str]:
    """What a person should know of the data of each stream before they are used; what two streams say is there once."""
    said: dict[str, str] = {}
    for name, about in abouts.items():
        for text in (*about.notes, *about.doubts):
            said.setdefault(text, name)
    lines = [f"{name}: {text}" for text, name in said.items()]
    return lines + [f"{name}: {text}" for name, text in class_differences(abouts).items()]


def class_differences(abouts: Mapping[str, About]) -> dict[str, str]:
    """How the classes of each evaluation differ from those of training, by the name of the stream."""
    if "train" not in abouts:
        return {}
    ours = abouts["train"].classes
    return {name: _difference(ours, about.classes) for name, about in abouts.items() if about.classes != ours}


def _difference(ours: tuple[str, ...], others: tuple[str, ...]) -> str:
    parts = {"only here": set(others) - set(ours), "only in train": set(ours) - set(others)}
    differences = [f"{where}: {', '.join(sorted(names)[:SHOWN])}" for where, names in parts.items() if names]
    return f"its classes are not those of train: {'; '.join(differences) or 'they are in another order'}"


def check_head(prediction: Prediction, about: About) -> None:
    """Raises ValueError if a classifier tells fewer classes apart than the data have: the loss is not finite then."""
    mismatch = head_mismatch(prediction, about)
    if mismatch is not None and prediction.logits.shape[-1] < len(about.classes):
        raise ValueError(mismatch)


def head_mismatch(prediction: Prediction, about: About) -> str | None:
    """How the number of classes that a classifier tells apart differs from that of the data; None if it does not.

    `prediction` may be one of shapes.
    """
    if not isinstance(prediction, ClassScores) or prediction.logits.shape[-1] == len(about.classes):
        return None
    names = ", ".join(about.classes[:5]) + (", ..." if len(about.classes) > 5 else "")
    told_apart = amount(prediction.logits.shape[-1], "class")
    return f"the network tells {told_apart} apart, but the data have {len(about.classes)} ({names})"
