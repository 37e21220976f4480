"""Raw scores of a detector: of every candidate, before any is selected, which is where a gradient reaches them.

Selection takes its scores by `top_k`, which has no gradient: that of a detection's score is 0 for every pixel. So `decode`
of every detector hands its candidates to `tell`, which keeps them only inside `listening`. So does the loss of SSD and of
RetinaNet those of a batch, their boxes not cut at the content: a student of another detector learns from them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from jaxtyping import Array, Float


class Candidates(NamedTuple):
    """Candidates of one image, or of several: rows are what `Detections.index` counts, anchors, queries or regions."""

    boxes: Float[Array, "*b a 4"] | Float[Array, "*b a k 4"]
    """Bounding boxes, of a row or of each class of it, in pixels of the canvas."""
    scores: Float[Array, "*b a k"]
    """The score of each row for each class, as `Detections.scores` has it."""


_KEPT: ContextVar[list | None] = ContextVar("_KEPT", default=None)


@contextmanager
def listening() -> Iterator[list[Candidates]]:
    """Inside this block the candidates that are told are kept in the list that it gives."""
    kept: list[Candidates] = []
    token = _KEPT.set(kept)
    try:
        yield kept
    finally:
        _KEPT.reset(token)


def is_heard() -> bool:
    """Whether anybody listens."""
    return _KEPT.get() is not None


def tell(candidates: Callable[[], Candidates]) -> None:
    """Keeps what the function gives, where anybody listens; else it is not called."""
    if (kept := _KEPT.get()) is not None:
        kept.append(candidates())
