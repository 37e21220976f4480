"""What a calibration was fitted on is never what it is judged by: rows left out of an evaluation, or the whole refused."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxvision.errors import ConfigError, DataError
from jaxvision.types import WHOLE, Batch, Shard, Stream


class FittedOn(NamedTuple):
    """Examples that a calibration was fitted on."""

    fingerprint: str
    """Fingerprint of the data (`About`)."""
    evaluation: str
    """Under which a run had them."""
    fraction: float = 1.0
    """How much of them was taken, chosen by the seed."""
    seed: int = 0

    def rows(self, examples: int) -> Int[np.ndarray, "n"]:
        """Indices of the examples that were taken, ascending. Raises ConfigError for a fraction that takes none."""
        count = round(self.fraction * examples) if 0 < self.fraction <= 1 else 0
        if not count:
            raise ConfigError(
                f"the fraction is {self.fraction}; it must be above 0, at most 1, and take an example at least"
            )
        return np.sort(np.random.default_rng(self.seed).permutation(examples)[:count])


def left_out(stream: Stream, fitted: FittedOn) -> Stream:
    """The stream without the examples that a calibration was fitted on, if it is of the same data; they are not valid.

    Raises:
      DataError: when its batches are asked for, if none is left.
    """

    def batches(step: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        about = stream.about()
        if about.fingerprint != fitted.fingerprint:
            return stream.batches(step, shard)
        rows = fitted.rows(about.examples)
        if len(rows) == about.examples:
            raise DataError(
                f"it was calibrated on these data (evaluation {fitted.evaluation!r}): figures of them would flatter it; "
                "evaluate it on others (--eval=NAME, or --config.FIELD=VALUE), or calibrate it on a fraction of them"
            )
        return (_without(batch, rows) for batch in stream.batches(step, shard))

    return stream._replace(batches=batches)


def _without(batch: Batch, rows: np.ndarray) -> Batch:
    return batch.replace(valid=np.asarray(batch.valid) & ~np.isin(np.asarray(batch.index), rows))
