"""Masks at the size of a photograph: 100 of 28 px, pasted into 12 megapixels and encoded, beside torchvision and pycocotools.

In torchvision's geometry the run lengths are the same, byte for byte. Ours makes them one object at a time, in the window of
its box; torchvision's `paste_masks_in_image` gives floats of all objects, which take 9 GB.
"""

from collections.abc import Iterator

from experiments.benchmarks.speed.contest import Contest, Side

HERE = "experiments.benchmarks.speed"


def rows(small: bool) -> Iterator[Contest]:
    """In torchvision's geometry, and in the one of a mask whose cells lie where its box does."""
    given = {"count": 4, "height": 150, "width": 200} if small else {"count": 100, "height": 3000, "width": 4000}
    sides = ("aligned", None), ("torchvision", 0.0)
    for geometry, tolerance in sides:
        yield Contest(
            f"{given['count']} masks into {given['width']:,} x {given['height']:,} px, geometry: {geometry}",
            (
                Side("ours", f"{HERE}.masks_ours:{geometry}", given),
                Side("torchvision, pycocotools", f"{HERE}.masks_torch:pasted", given, peer=True, least=1.0),
            ),
            blocks=3,
            tolerance=tolerance,
        )
