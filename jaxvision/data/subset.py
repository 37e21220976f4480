"""A part of a source, as a source."""

import numpy as np

from jaxvision.data.source import Source, digest


def subset(source: Source, indices: np.ndarray) -> Source:
    """The examples of these indices, renumbered from 0; names stay theirs.

    Raises ValueError for an index that the source does not have.
    """
    indices = np.asarray(indices, np.int64)
    if len(indices) and not 0 <= indices.min() <= indices.max() < source.length:
        raise ValueError(f"indices go from {indices.min()} to {indices.max()}; the source has 0 to {source.length - 1}")
    return Source(
        length=len(indices),
        read=lambda rows: source.read(indices[rows]),
        labels=lambda: source.labels()[indices],
        classes=source.classes,
        name=lambda index: source.name(int(indices[index])),
        fingerprint=digest(source.fingerprint, indices.tobytes()),
    )


def held_out(source: Source, share: float, seed: int) -> tuple[Source, Source]:
    """The source split in two, `(rest, held out)`: this share of every class, rounded, but at least one of two or more.

    Which examples are held out depends on the seed and on the labels alone.

    Raises ValueError if `share` is not above 0 and below 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"held_out: share is {share}; it must be above 0 and below 1")
    labels = source.labels()
    bits = np.random.Philox(key=seed).random_raw(len(labels))
    out = np.zeros(len(labels), bool)
    for label in range(len(source.classes)):
        members = np.flatnonzero(labels == label)
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        out[members[np.argsort(bits[members], kind="stable")][: max(count, 0)]] = True
    return subset(source, np.flatnonzero(~out)), subset(source, np.flatnonzero(out))
