"""Published peaks of GPUs."""

PEAKS = {"H200": 989.5, "H100 PCIe": 756.0, "H100": 989.5, "A100": 312.0, "L40S": 362.0, "L4": 121.0, "B200": 2250.0}
"""TFLOP/s in bfloat16, dense, as published, by a part of a GPU's name; the first that fits counts."""


def peak(name: str) -> float | None:
    """The published TFLOP/s of a GPU."""
    return next((value for part, value in PEAKS.items() if part in name), None)
