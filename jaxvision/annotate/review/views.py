"""Views: a record as the page is told it, its masks as SVG paths."""

from collections.abc import Mapping
from typing import Any

from jaxvision.annotate.drawing import path
from jaxvision.annotate.records import Annotation, ImageRecord
from jaxvision.masks.runs import Runs


def record_view(record: ImageRecord, number: int, wrong: Mapping[int, float], version: str) -> dict[str, Any]:
    """What the page is told of an image: the version of its file, and how probably each object, by its id, is wrong."""
    return {
        "number": number,
        "name": record.name,
        "picture": f"/image/{number}?v={version}",
        "size": list(record.size),
        "state": record.state,
        "failure": record.failure,
        "version": record.version,
        "objects": [object_view(each, wrong.get(each.id, 0.0)) for each in record.objects],
    }


def object_view(each: Annotation, wrong: float) -> dict[str, Any]:
    """What the page is told of an object, and how probably it is wrong."""
    mask = each.segmentation
    return {
        "id": each.id,
        "label": each.label,
        "box": list(each.box),
        "path": None if mask is None else path(mask),
        "follows": mask is not None and not isinstance(mask, Runs),  # whether the mask is moved with the box
        "score": each.score,
        "probability": each.probability,
        "wrong": wrong,
        "attributes": {
            key: list(value) if isinstance(value, tuple) else value for key, value in each.attributes.items()
        },
        "sources": [source.model for source in each.sources],
        "verdict": each.verdict,
        "human": each.human,
    }
