"""NMS, of all boxes and of each class by itself, beside torchvision's."""

from collections.abc import Iterator

from experiments.benchmarks.speed.contest import Contest, Side

HERE = "experiments.benchmarks.speed"


def rows(small: bool) -> Iterator[Contest]:
    """NMS of clusters of boxes at an IoU of 0.5; the same boxes are kept."""
    for program, what in (("nms", "NMS"), ("class_wise", "class-wise NMS")):
        for count in (100,) if small else (1_000, 5_000, 20_000):
            given = {"count": count}
            sides = (
                Side("ours", f"{HERE}.nms_ours:{program}", given),
                Side("torchvision", f"{HERE}.nms_torch:{program}", given, peer=True, least=1.0),
            )
            yield Contest(f"{what} of {count:,} boxes", sides, units=max(1, 20_000 // count), blocks=9, tolerance=0.0)
    chain = {"count": 100 if small else 1_000, "form": "chain"}
    sides = (
        Side("ours", f"{HERE}.nms_ours:nms", chain),
        Side("torchvision", f"{HERE}.nms_torch:nms", chain, peer=True),
    )
    yield Contest(f"NMS of {chain['count']:,} boxes, the worst: a chain", sides, units=5, blocks=5, tolerance=0.0)
