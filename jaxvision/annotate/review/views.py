"""Views: a record as the page is told it, its masks as SVG paths."""

from functools import lru_cache
from typing import Any

import numpy as np

from jaxvision.annotate.records import Annotation, ImageRecord
from jaxvision.annotate.review.queue import wrongness
from jaxvision.formats.labelled import Segmentation
from jaxvision.masks import runs
from jaxvision.masks.polygons import edges
from jaxvision.masks.runs import Runs

LONGEST_SIDE = 1024
"""Pixels of the longer side of the grid on which run lengths are outlined: a screen shows no more."""
Path = str
"""The `d` of an SVG path: corners in pixels of the image, to be filled by the even-odd rule."""


def record_view(record: ImageRecord, number: int) -> dict[str, Any]:
    """What the page is told of an image."""
    return {
        "number": number,
        "name": record.name,
        "picture": f"/image/{number}?v={record.sha256[:16]}",
        "size": list(record.size),
        "state": record.state,
        "failure": record.failure,
        "version": record.version,
        "objects": [object_view(each) for each in record.objects],
    }


def object_view(each: Annotation) -> dict[str, Any]:
    """What the page is told of an object."""
    mask = each.segmentation
    return {
        "id": each.id,
        "label": each.label,
        "box": list(each.box),
        "path": None if mask is None else path(mask),
        "follows": mask is not None and not isinstance(mask, Runs),  # whether the mask is moved with the box
        "score": each.score,
        "probability": each.probability,
        "wrong": wrongness(each),
        "attributes": {
            key: list(value) if isinstance(value, tuple) else value for key, value in each.attributes.items()
        },
        "sources": [source.model for source in each.sources],
        "verdict": each.verdict,
        "human": each.human,
    }


@lru_cache(4096)
def path(mask: Segmentation) -> Path:
    """The outline of a mask."""
    polygons = outlines(mask) if isinstance(mask, Runs) else mask
    return "".join(map(_closed, polygons))


def outlines(mask: Runs, longest: int = LONGEST_SIDE) -> list[list[int]]:
    """Closed outlines of a mask in pixels of its image, holes too; of a large image not every pixel is seen."""
    x0, y0, x1, y1 = map(int, runs.box(mask))
    step = -(-max(mask.size) // longest)
    pixels = runs.columns(mask, x0, x1)[y0:y1:step, ::step]
    return [(np.reshape(each, (-1, 2)) * step + (x0, y0)).reshape(-1).tolist() for each in edges(pixels)]


def _closed(polygon: Any) -> Path:
    corners = [f"{x:.10g} {y:.10g}" for x, y in zip(polygon[::2], polygon[1::2], strict=True)]
    return f"M{'L'.join(corners)}Z"
