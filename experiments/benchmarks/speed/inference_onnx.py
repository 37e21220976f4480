"""Side of ONNX Runtime in the benchmark `inference`."""

from typing import Any

from experiments.benchmarks.speed.contest import Work


def classifier(**given: Any) -> Work:
    """Nothing to measure yet. Raises NotImplementedError."""
    raise NotImplementedError("jaxvision exports no ONNX file yet")


detector = classifier
