"""Sides of the peers in the benchmark `coco_eval`: each package evaluates lists of dicts, by its class `COCOeval`."""

import contextlib
import importlib
import io
from typing import Any

from experiments.benchmarks.speed import coco_rows
from experiments.benchmarks.speed.contest import Work


def pycocotools(images: int, masks: bool) -> Work:
    """COCO's own."""
    return _work("pycocotools.coco", "pycocotools.cocoeval", "COCOeval", images, masks)


def faster_coco_eval(images: int, masks: bool) -> Work:
    """Its evaluator in C++."""
    return _work("faster_coco_eval", "faster_coco_eval", "COCOeval_faster", images, masks)


def hotcoco(images: int, masks: bool) -> Work:
    """Its evaluator in Rust."""
    return _work("hotcoco", "hotcoco", "COCOeval", images, masks)


def _work(coco: str, evaluator: str, name: str, images: int, masks: bool) -> Work:
    """The twelve metrics of dicts that were made before; they are the outcome."""
    make, evaluate = importlib.import_module(coco).COCO, getattr(importlib.import_module(evaluator), name)
    data, results = coco_rows.dicts(images, masks)

    ready = _copied(results)

    def once() -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = _loaded(make, data)
            evaluation: Any = evaluate(truth, truth.loadRes(ready), "segm" if masks else "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return [float(each) for each in evaluation.stats[:12]]

    def run(units: int) -> None:
        assert units == 1, "the results are copied after every block"
        once()

    def settle() -> None:
        ready[:] = _copied(results)

    def outcome() -> list[float]:
        found = once()
        settle()
        return found

    return Work(run, outcome, settle)


def _copied(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results of which pycocotools may make what it likes."""
    return [dict(each) for each in results]


def _loaded(make: Any, data: dict[str, Any]) -> Any:
    """The annotations; pycocotools takes them from a file, or as what it holds."""
    if make.__module__.startswith("pycocotools"):
        truth = make()
        truth.dataset = data
        truth.createIndex()
        return truth
    return make(data)
