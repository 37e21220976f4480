"""Panoptic maps of an evaluation, kept small for pictures: predicted and true, some thousand bytes an image."""

import io
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxvision.masks.panoptic import PanopticMap

LONGEST = 512
"""Pixels of the longer side, of a map as it is kept."""


class MapPair(NamedTuple):
    """Predicted and true map of one image, every `step`-th pixel of the file along both sides."""

    found: Int[np.ndarray, "h w"]
    """The predicted segment of each pixel, from 1; 0 is void."""
    true: Int[np.ndarray, "h w"]
    """The true segment of each pixel, from 1; 0 is void."""
    found_labels: Int[np.ndarray, "n"]
    """Classes of the predicted segments 1, 2, ..."""
    true_labels: Int[np.ndarray, "m"]
    crowd: Bool[np.ndarray, "m"]
    """Whether each true segment is a group that is not told apart."""


def packed(found: PanopticMap, true: Int[np.ndarray, "h w"], labels: np.ndarray, crowd: np.ndarray) -> bytes:
    """Both maps as compressed bytes, which `unpacked` reads."""
    step = -(-max(true.shape) // LONGEST)
    file = io.BytesIO()
    arrays = {
        "found": found.ids[::step, ::step].astype(np.uint16),
        "true": true[::step, ::step].astype(np.uint16),
        "found_labels": np.array([each.label for each in found.segments], np.int32),
        "true_labels": np.asarray(labels, np.int32),
        "crowd": np.asarray(crowd, bool),
    }
    np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
    return file.getvalue()


def unpacked(data: bytes) -> MapPair:
    """The maps that `packed` made these bytes of."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return MapPair(**{name: arrays[name] for name in MapPair._fields})
