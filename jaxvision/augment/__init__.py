"""Augmentation on the device: pure (key, step, batch) -> batch.

What the room shares: `key` is already that of the training step, `step` is there only for what changes as training goes
on. An example draws from (key, its row in the batch), so that its neighbours do not change what happens to it. Pixels
stay 0-255 and of the type they came in, unless an augmentation says otherwise. What lies outside `batch.size` is nobody's
content: it stays what it is. Everything that shows the image (boxes, masks, maps) moves with it.
"""

from jaxvision.augment.compose import chain, identity
from jaxvision.augment.geometry import flip, pad_and_crop

__all__ = ["chain", "flip", "identity", "pad_and_crop"]
