"""NMS and ROIAlign beside torchvision's, and detection's other operators."""

from collections.abc import Iterator

from experiments.benchmarks.speed.contest import Contest, Side

HERE = "experiments.benchmarks.speed"


def rows(small: bool) -> Iterator[Contest]:
    """NMS of clusters of boxes at an IoU of 0.5."""
    for count in (100,) if small else (1_000, 5_000, 20_000):
        sides = (
            Side("ours", f"{HERE}.nms_ours:nms", {"count": count}),
            Side("torchvision", f"{HERE}.nms_torch:nms", {"count": count}, peer=True, least=1.0),
        )
        yield Contest(f"NMS of {count:,} boxes", sides, units=max(1, 20_000 // count), blocks=9, tolerance=0.0)
