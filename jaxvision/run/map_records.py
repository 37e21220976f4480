"""How class maps and panoptic maps are written: the class or segment of each pixel of an image, at the size of its file."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from jaxvision.draw.boxes import with_boxes
from jaxvision.draw.masks import with_classes, with_legend, with_masks
from jaxvision.draw.palette import BLACK, class_colour, class_colours, distinct, levels
from jaxvision.draw.side_by_side import enlarged, enlargement
from jaxvision.errors import ConfigError, amount
from jaxvision.experiment import Output, Record, Selection
from jaxvision.masks import runs
from jaxvision.masks.class_map import class_map
from jaxvision.masks.panoptic import PanopticMap, merge
from jaxvision.masks.runs import Runs
from jaxvision.run.coco_masks import mask_of, segmentation
from jaxvision.types import Canvas, Detections, MapMasks, PixelScores, Prediction


def _size(record: Record) -> tuple[int, int]:
    return record["height"], record["width"]


def check_pixels(scores: PixelScores, classes: Sequence[str]) -> None:
    """Raises ValueError if a pixel has not as many scores as there are classes."""
    if scores.logits.shape[-1] != len(classes):
        raise ValueError(
            f"the model gives scores for {amount(scores.logits.shape[-1], 'class')}, the data have {len(classes)}"
        )


def pixels_record(scores: PixelScores, canvas: Canvas, selection: Selection) -> Record:
    """The classes that the image has pixels of, the largest first: how many, which fraction of all, and their mask.

    `label` counts from 0, as the pixels of `pixels_map` do, `category_id` from 1, as COCO's.
    """
    map = class_map(np.asarray(scores.logits), canvas)
    counts = np.bincount(map.reshape(-1), minlength=len(selection.classes))
    classes = [
        {
            "name": selection.classes[label],
            "label": int(label),
            "category_id": int(label) + 1,
            "pixels": int(counts[label]),
            "fraction": float(counts[label] / map.size),
            "segmentation": segmentation(runs.encode(map == label), polygons=selection.polygons),
        }
        for label in np.argsort(-counts, kind="stable")
        if counts[label]
    ]
    return {"height": map.shape[0], "width": map.shape[1], "classes": classes}


def pixels_columns(selection: Selection) -> list[str]:
    """Class, pixels, fraction."""
    del selection
    return ["class", "pixels", "fraction"]


def pixels_lines(record: Record) -> list[list]:
    """A line a class, with the values of `pixels_columns`."""
    return [[each["name"], each["pixels"], each["fraction"]] for each in record["classes"]]


def pixels_annotations(record: Record) -> list[Record]:
    """The classes as COCO's stuff, a mask each."""
    return [_annotation(each, each["pixels"], _size(record)) for each in record["classes"]]


def _annotation(told: Record, area: int, size: tuple[int, int]) -> Record:
    """A mask without a score, with the box around it."""
    x0, y0, x1, y1 = runs.box(mask_of(told["segmentation"], size)).tolist()
    box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": area, "iscrowd": 0}
    return {"category_id": told["category_id"], **box, "segmentation": told["segmentation"]}


def _labels(record: Record) -> np.ndarray:
    """The class of each pixel."""
    labels = np.zeros(_size(record), np.int32)
    for each in record["classes"]:
        labels[runs.decode(mask_of(each["segmentation"], labels.shape))] = each["label"]
    return labels


def draw_pixels(pixels: np.ndarray, record: Record) -> Image.Image:
    """The image with the colour of each pixel's class over it, but for one called background, and a legend below it.

    A small image is enlarged, as `draw.side_by_side` does it.
    """
    classes = [(each["name"], each["label"]) for each in record["classes"]]
    known = {label: class_colour(label, name) for name, label in classes}
    colours = [known.get(label, distinct(label)) for label in range(max(known, default=-1) + 1)]
    times = enlargement(pixels.shape)
    painted = Image.fromarray(with_classes(enlarged(pixels, times), enlarged(_labels(record), times), colours))
    return with_legend(painted, [(name, known[label]) for name, label in classes if known[label] != BLACK])


def pixels_map(record: Record, selection: Selection) -> Image.Image:
    """The class of each pixel, counted from 0: a palette PNG, or 16 bits for more than 256 classes."""
    labels, colours = _labels(record), class_colours(selection.classes)
    if len(colours) > 256:
        return Image.fromarray(labels.astype(np.uint16))
    picture = Image.fromarray(labels.astype(np.uint8)).convert("P")
    picture.putpalette(levels(colours).reshape(-1).tolist())
    return picture


PIXELS = Output(
    pixels_record, pixels_columns, pixels_lines, pixels_annotations, draw_pixels, pixels_map, check=check_pixels
)
"""Output of `PixelScores`: the pixels of each class."""


def panoptic(things: Sequence[bool], *, threshold: float = 0.85, smallest: int = 4) -> Output:
    """Output of detections whose masks are merged into a map of things and stuff (`masks.panoptic.merge`).

    A record has `segments`: `id`, `label`, `category_id`, `isthing`, `score`, `area`, `box` and `segmentation` of each. In
    `.json` an image is an annotation with `segments_info`, as COCO's panoptic files have it; its `file_name` is that of the
    PNG of ids.

    Args:
      things: whether each class is of things.
      threshold: as in `masks.panoptic.merge`.
      smallest: as in `masks.panoptic.merge`.
    """

    def record(found: Detections, canvas: Canvas, selection: Selection) -> Record:
        of: Any = found
        if not isinstance(of.masks, MapMasks):
            raise ConfigError("a panoptic map can't be put together from tiles, whose masks are joined as objects")
        valid = np.asarray(of.valid)
        labels: Any = np.asarray(of.labels)[valid]
        scores: Any = np.asarray(of.scores, np.float64)[valid]
        masks = of.masks.replace(logits=np.asarray(of.masks.logits)[valid])
        map = merge(labels, scores, masks, canvas, things=things, threshold=threshold, smallest=smallest)
        return segments_record(map, things, selection)

    def check(shapes: Prediction, classes: Sequence[str]) -> None:
        if not isinstance(shapes, Detections) or not isinstance(shapes.masks, MapMasks):
            raise ValueError("a panoptic output needs predictions to be Detections with MapMasks")
        if len(things) != len(classes):
            raise ValueError(
                f"it says of {amount(len(things), 'class')} whether they are things, the data have {len(classes)}"
            )

    def categories(selection: Selection) -> list[Record]:
        each = enumerate(zip(selection.classes, things, strict=True), 1)
        return [{"id": number, "name": name, "isthing": int(thing)} for number, (name, thing) in each]

    return Output(
        record, segments_columns, segments_lines, segments_annotations, draw_segments, segments_map, categories, check
    )


def segments_record(map: PanopticMap, things: Sequence[bool], selection: Selection) -> Record:
    """The segments of a map in the order of their ids, with their masks."""
    segments = []
    for each in map.segments:
        mask = runs.encode(map.ids == each.id)
        told = {"id": each.id, "label": selection.classes[each.label], "category_id": each.label + 1}
        told |= {"isthing": int(things[each.label]), "score": each.score, "area": each.area}
        masked = {"box": runs.box(mask).tolist(), "segmentation": segmentation(mask, polygons=selection.polygons)}
        segments.append({**told, **masked})
    return {"height": map.ids.shape[0], "width": map.ids.shape[1], "segments": segments}


def segments_columns(selection: Selection) -> list[str]:
    """Label, score, area, corners."""
    del selection
    return ["label", "score", "area", "x0", "y0", "x1", "y1"]


def segments_lines(record: Record) -> list[list]:
    """A line a segment, with the values of `segments_columns`."""
    return [[each["label"], each["score"], each["area"], *each["box"]] for each in record["segments"]]


def segments_annotations(record: Record) -> list[Record]:
    """One annotation: the segments, and the name of the PNG of their ids, if it was written."""
    info = [
        {"id": each["id"], **_annotation(each, each["area"], _size(record)), "score": each["score"]}
        for each in record["segments"]
    ]
    return [{**({"file_name": record["map"]} if "map" in record else {}), "segments_info": info}]


def draw_segments(pixels: np.ndarray, record: Record) -> Image.Image:
    """The image with a colour over each segment: things by number, with labels and scores; stuff by class, in a legend below.

    A small image is enlarged, as `draw.side_by_side` does it.
    """
    segments = record["segments"]
    things = [each for each in segments if each["isthing"]]
    stuff = [(each["label"], distinct(len(things) + place)) for place, each in enumerate(_stuff(segments))]
    colours = {each["id"]: distinct(number) for number, each in enumerate(things)}
    colours |= {each["id"]: colour for each, (_, colour) in zip(_stuff(segments), stuff, strict=True)}
    times = enlargement(pixels.shape)
    masks = [_enlarged(mask_of(each["segmentation"], _size(record)), times) for each in segments]
    painted = with_masks(enlarged(pixels, times), masks, [colours[each["id"]] for each in segments])
    boxes = times * np.array([each["box"] for each in things], np.float64).reshape(-1, 4)
    texts = [f"{each['label']} {each['score']:.2f}" for each in things]
    named = with_boxes(painted, boxes, texts, [colours[each["id"]] for each in things], lines=False)
    return with_legend(named, stuff)


def _enlarged(mask: Runs, times: int) -> Runs:
    return mask if times == 1 else runs.encode(enlarged(runs.decode(mask), times))


def _stuff(segments: Sequence[Record]) -> list[Record]:
    return [each for each in segments if not each["isthing"]]


def segments_map(record: Record, selection: Selection) -> Image.Image:
    """The id of each pixel's segment as COCO's panoptic PNG has it: red + 256 green + 256² blue; 0 is void."""
    del selection
    ids = np.zeros(_size(record), np.int32)
    for each in record["segments"]:
        ids[runs.decode(mask_of(each["segmentation"], ids.shape))] = each["id"]
    return Image.fromarray(np.stack([ids >> shift & 255 for shift in (0, 8, 16)], -1).astype(np.uint8))
