"""Weights of a map's pixels go where their labels go, through every augmentation that moves maps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coloured_scene import apply, coloured

from jaxvision.augment import (
    affine,
    chain,
    expand,
    flip,
    iou_crop,
    mosaic,
    perspective,
    resized_crop,
    scale_jitter,
    vertical_flip,
)
from jaxvision.types import SegmentationMap

EVERY = {
    "flip": flip(1.0),
    "vertical_flip": vertical_flip(1.0),
    "affine": affine(rotation=40, shift=0.2, shear=0.2, zoom=0.2, fill="reflect"),
    "perspective": perspective(0.6),
    "resized_crop": resized_crop((0.2, 0.9)),
    "scale_jitter": scale_jitter((0.5, 1.5)),
    "expand": expand(3.0),
    "mosaic": mosaic(),
    "iou_crop": iou_crop(),
    "chain": chain(flip(), mosaic()),
}
QUICK = ("flip", "affine", "mosaic")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in EVERY])
def test_weights_go_where_labels_go(name):
    batch = coloured(6)
    label = np.random.default_rng(0).integers(1, 99, batch.image.shape[:3]).astype(np.int32)
    scene = SegmentationMap(jnp.asarray(label), jnp.ones(label.shape, bool), jnp.asarray(label, jnp.float32) / 2)
    after = apply(EVERY[name], batch.replace(target={"objects": batch.target, "scene": scene})).target["scene"]
    assert np.any(after.label != label)
    np.testing.assert_array_equal(after.weight, after.label / 2)
    without = batch.replace(target={"objects": batch.target, "scene": dataclasses.replace(scene, weight=None)})
    found = apply(EVERY[name], without).target["scene"]
    assert found.weight is None
    jax.tree.map(np.testing.assert_array_equal, found, dataclasses.replace(after, weight=None))


def test_weights_of_another_size_are_refused():
    batch = coloured(6)
    flags = jnp.ones(batch.image.shape[:3], bool)
    scene = SegmentationMap(flags.astype(jnp.int32), flags, jnp.ones((len(flags), 3, 3)))
    with pytest.raises(ValueError, match=r"needs batch\.target\.weight on the canvas of the image"):
        apply(flip(1.0), batch.replace(target=scene))
