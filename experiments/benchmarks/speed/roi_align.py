"""ROIAlign with its gradient, beside torchvision's: 512 regions on a map of 50 x 50 with 256 channels, and on a pyramid."""

from collections.abc import Iterator

from experiments.benchmarks.speed.contest import Contest, Side

HERE = "experiments.benchmarks.speed"


def rows(small: bool) -> Iterator[Contest]:
    """One map, and the five of an image of 800 px; the pooled features and the gradient are the same."""
    given = {"regions": 8, "channels": 4} if small else {"regions": 512, "channels": 256}
    what = f"{given['regions']} regions, forward and backward"
    for program, name in (("one_map", "ROIAlign"), ("pyramid", "ROIAlign on a pyramid")):
        sides = (
            Side("ours", f"{HERE}.roi_align_ours:{program}", given),
            Side("torchvision", f"{HERE}.roi_align_torch:{program}", given, peer=True, least=1.0),
        )
        yield Contest(f"{name}, {what}", sides, units=2, blocks=9, tolerance=1e-4)
