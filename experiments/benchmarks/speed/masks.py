"""Masks at the size of a photograph: 100 of 28 px, pasted into 12 megapixels and encoded, beside torchvision and pycocotools.

In torchvision's geometry the run lengths are the same, byte for byte. Ours makes them one object at a time, in the window of
its box; torchvision's `paste_masks_in_image` gives floats of all objects, which take 9 GB, or is called for one object at a
time. In the geometry of a mask whose cells lie where its box does, which torchvision has not, ours stands alone.
"""

from collections.abc import Iterator

from experiments.benchmarks.speed.contest import Contest, Side

HERE = "experiments.benchmarks.speed"


def rows(small: bool) -> Iterator[Contest]:
    """In torchvision's geometry beside it, and in the other one."""
    given = {"count": 4, "height": 150, "width": 200} if small else {"count": 100, "height": 3000, "width": 4000}
    what = f"{given['count']} masks into {given['width']:,} x {given['height']:,} px, geometry"
    sides = (
        Side("ours", f"{HERE}.masks_ours:torchvision", given),
        Side("torchvision, pycocotools", f"{HERE}.masks_torch:pasted", given, peer=True, least=1.0),
        Side("the same, one by one", f"{HERE}.masks_torch:one_by_one", given, peer=True, least=1.0),
    )
    yield Contest(f"{what}: torchvision", sides, blocks=3, tolerance=0.0)
    yield Contest(f"{what}: aligned", (Side("ours", f"{HERE}.masks_ours:aligned", given),), blocks=3)
