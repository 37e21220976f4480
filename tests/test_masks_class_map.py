"""Class maps at the size of the file, and on the device; packed masks."""

import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
from segmentation_cases import resized

from jaxvision.masks import packing, runs
from jaxvision.masks.class_map import class_map
from jaxvision.ops import class_map as device
from jaxvision.types import Canvas


def canvas(shape, size, file, window=None):
    return Canvas(np.zeros((*shape, 3), np.uint8), size, file, window=window)


@pytest.mark.parametrize("file", [(50, 62), (17, 40), (200, 31)])
def test_class_maps_of_a_file_are_those_of_logits_resized_to_it(file):
    logits = np.random.default_rng(0).normal(size=(20, 25, 4))
    found = class_map(logits, canvas((40, 50), (40, 50), file))
    expected = np.stack([resized(logits[..., k], *file) for k in range(4)], -1).argmax(-1)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_class_maps_of_a_padded_canvas_and_of_a_padded_image():
    logits = np.random.default_rng(1).normal(size=(40, 50, 3))
    whole = class_map(logits, canvas((40, 50), (30, 50), (30, 50)))
    np.testing.assert_array_equal(whole, logits[:30].argmax(-1))
    window = class_map(logits, canvas((40, 50), (40, 50), (36, 44), (-2, -1, 48, 39)))
    np.testing.assert_array_equal(window, logits[1:37, 2:46].argmax(-1))


def test_class_maps_of_host_and_device_are_equal():
    logits = np.random.default_rng(2).normal(size=(9, 13, 5)).astype(np.float32)
    on_device = device.class_map(jnp.asarray(logits), (33, 47))
    np.testing.assert_array_equal(class_map(logits, canvas((33, 47), (33, 47), (33, 47))), on_device)


def test_class_maps_of_many_classes():
    logits = np.zeros((2, 2, 300), np.float32)
    logits[..., 299] = 1
    found = class_map(logits, canvas((2, 2), (2, 2), (5, 5)))
    assert found.dtype == np.uint16
    assert (found == 299).all()


def test_memory_of_a_class_map_does_not_grow_with_the_classes():
    logits = np.random.default_rng(3).normal(size=(32, 32, 50)).astype(np.float32)
    tracemalloc.start()
    found = class_map(logits, canvas((512, 512), (512, 512), (800, 1000)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - found.nbytes < 8e6  # all logits of the file would be 160 MB


def test_packed_masks_are_the_same_again():
    rng = np.random.default_rng(4)
    masks = [runs.encode(rng.random((13, 9)) < p) for p in (0, 0.3, 0.9, 1)]
    assert packing.unpack(packing.pack(masks), (13, 9)) == masks
    assert packing.unpack(packing.pack([]), (13, 9)) == []
