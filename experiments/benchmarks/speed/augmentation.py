"""Augmentation policies on the device, beside the same of torchvision's `transforms.v2` on tensors; whole batches, uint8.

Each image has random numbers of its own: ours takes the batch, torchvision's policy one image after another, as its data
loaders call it, in one process. Draws differ: what is compared, to a tenth, is the mean and the standard deviation of the
levels over some batches, and how far they are from those of the images; that is no proof that policies are the same.
"""

from collections.abc import Iterator

from experiments.benchmarks.speed.contest import Contest, Side

HERE = "experiments.benchmarks.speed"
POLICIES = (
    *("crop_and_flip", "resized_crop", "affine", "colours", "affine_colours_erasing"),
    *("randaugment", "trivialaugment", "augmix"),
)
FORMS = ((32, 128), (128, 32))
"""Sides of images, and how many there are in a batch."""


def rows(small: bool) -> Iterator[Contest]:
    """Every policy at both sizes."""
    for side, count in ((16, 4),) if small else FORMS:
        for policy in POLICIES:
            given = {"policy": policy, "side": side, "count": count}
            sides = (
                Side("ours", f"{HERE}.augmentation_ours:work", given),
                Side("torchvision", f"{HERE}.augmentation_torch:work", given, peer=True, least=1.0),
            )
            name = f"{policy}, {count} images of {side} px"
            yield Contest(name, sides, units=2, blocks=9, tolerance=None if small else 0.1)
