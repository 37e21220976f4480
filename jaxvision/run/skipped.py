"""What a run says of training images that were skipped because they could not be used."""

from collections.abc import Callable

from jaxvision.errors import DataError
from jaxvision.types import Stream

BOUND = 0.1
"""The part of the rows of an interval without a usable image above which it is said."""


class SkippedImages:
    """Says how many rows of the training batches had no usable image, of those that this process read since it started."""

    def __init__(self, stream: Stream, say: Callable[[str], None]):
        """Watches a stream; a stream that ends at the first such image has nothing to say."""
        self._count, self._say = stream.skipped or (lambda: (0, 0)), say
        self._last = (0, 0)

    def interval(self) -> None:
        """Says so where too many of the rows since the last call had none."""
        without, rows = (now - before for now, before in zip(self._count(), self._last, strict=True))
        self._last = self._count()
        if without > BOUND * rows:
            self._say(
                f"warning: {without:,} of the last {rows:,} rows of training batches ({without / rows:.0%}) had no image"
            )

    def total(self) -> None:
        """Says how many there were, if any. Raises DataError if there were only such: nothing was learnt."""
        without, rows = self._count()
        if rows and without == rows:
            raise DataError(f"none of the {rows:,} rows of training batches had an image")
        if without:
            self._say(f"{without:,} of {rows:,} rows of training batches ({without / rows:.1%}) had no image")
