"""The operators of detection against torchvision's own, over generated cases: python -m pytest -m parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from jaxvision.ops import anchors, box_codec, boxes
from jaxvision.ops.nms import nms
from jaxvision.ops.roi_align import roi_align, roi_pool

pytestmark = pytest.mark.parity
THRESHOLDS = (0.1, 0.3, 0.45, 0.5, 0.7, 0.9)
seeds = st.integers(0, 2**31 - 1)
cases = settings(max_examples=60, deadline=None, derandomize=True)


def some_boxes(random, n, whole):
    """Boxes with duplicates, some without area; on whole pixels, so that overlaps tie, or anywhere."""
    corner, side = random.uniform(-5, 40, (n, 2)), random.uniform(0, 30, (n, 2))
    side[random.random_sample(n) < 0.1] = 0
    found = np.concatenate([corner, corner + side], 1)
    found = np.round(found) if whole else found
    found[random.permutation(n)[: n // 4]] = found[random.randint(0, n, n // 4)]
    return found


@cases
@given(seeds, st.booleans())
def test_overlaps(seed, whole):
    import torch
    from torchvision import ops

    random = np.random.RandomState(seed)
    a, b = some_boxes(random, 12, whole), some_boxes(random, 9, whole)
    a, b = (x[(x[:, 2:] > x[:, :2]).all(1)] for x in (a, b))  # theirs divide 0 by 0
    with jax.enable_x64(True):
        for ours, theirs in (
            (boxes.iou, ops.box_iou),
            (boxes.giou, ops.generalized_box_iou),
            (boxes.diou, ops.distance_box_iou),
            (boxes.ciou, ops.complete_box_iou),
        ):
            found = boxes.pairwise(ours, jnp.asarray(a), jnp.asarray(b))
            assert_allclose(found, theirs(torch.from_numpy(a), torch.from_numpy(b)), rtol=0, atol=1e-12)
        assert_allclose(boxes.area(jnp.asarray(a)), ops.box_area(torch.from_numpy(a)), rtol=1e-12)
        clipped = boxes.clip(jnp.asarray(a), jnp.int32([20, 30]))
        assert_array_equal(clipped, ops.clip_boxes_to_image(torch.from_numpy(a), (20, 30)))
        for ours, theirs in (("to_centre", "cxcywh"), ("to_corner", "xywh")):
            other = ops.box_convert(torch.from_numpy(a), "xyxy", theirs)
            assert_allclose(getattr(boxes, ours)(jnp.asarray(a)), other, rtol=1e-12)
            back = getattr(boxes, ours.replace("to_", "from_"))(jnp.asarray(other.numpy()))
            assert_allclose(back, ops.box_convert(other, theirs, "xyxy"), rtol=1e-12)


SUPPRESS = jax.jit(nms, static_argnums=3)


@cases
@given(seeds, st.sampled_from(THRESHOLDS), st.booleans(), st.booleans(), st.sampled_from(["mixed", "none", "alike"]))
def test_nms(seed, threshold, whole, classwise, kind):
    import torch
    from torchvision import ops

    random, n = np.random.RandomState(seed), 40
    found = some_boxes(random, n, whole)
    if kind == "alike":  # all suppressed but one
        found[:] = [3, 4, 20, 30]
    found = found.astype(np.float32)
    scores = random.permutation(n).astype(np.float32)  # theirs is not stable under ties
    valid = np.zeros(n, bool) if kind == "none" else random.random_sample(n) < 0.8
    labels = random.randint(0, 3, n) if classwise else np.zeros(n, int)
    kept = SUPPRESS(*(jnp.asarray(x) for x in (found, scores, valid)), threshold, jnp.asarray(labels))
    rows = np.flatnonzero(valid)
    same = float(np.float32(threshold))  # on a CPU they compare with it in double precision
    theirs = ops.boxes._batched_nms_vanilla(*(torch.from_numpy(x[rows]) for x in (found, scores, labels)), same)
    assert_array_equal(np.flatnonzero(kept), np.sort(rows[theirs.numpy()]))


@cases
@given(seeds)
def test_the_codec(seed):
    import torch
    from torchvision.models.detection._utils import BoxCoder

    random = np.random.RandomState(seed)
    a, b = (some_boxes(random, 30, False) for _ in range(2))
    some = ((a[:, 2:] > a[:, :2]) & (b[:, 2:] > b[:, :2])).all(1)
    a, b = a[some], b[some]
    offsets = random.normal(0, 3, a.shape)
    with jax.enable_x64(True):
        for weights in ((1.0, 1.0, 1.0, 1.0), box_codec.FASTER_RCNN):
            coder = BoxCoder(weights)
            encoded = coder.encode_single(torch.from_numpy(a), torch.from_numpy(b))
            ours = box_codec.encode(jnp.asarray(a), jnp.asarray(b), weights)
            assert_allclose(ours, encoded, rtol=1e-9, atol=1e-9)
            decoded = coder.decode_single(torch.from_numpy(offsets), torch.from_numpy(b))
            assert_allclose(box_codec.decode(jnp.asarray(offsets), jnp.asarray(b), weights), decoded, rtol=1e-9)


def test_anchors_and_default_boxes():
    import torch
    from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
    from torchvision.models.detection.image_list import ImageList

    from jaxvision.tasks.ssd import SSD300

    shapes = [(13, 21), (7, 11), (4, 6)]
    images = ImageList(torch.zeros(1, 3, 104, 168), [(104, 168)])
    theirs = AnchorGenerator(((32,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 3)
    expected = theirs(images, [torch.zeros(1, 1, *shape) for shape in shapes])[0]
    found = anchors.pyramid(shapes, (104, 168), [(32,), (64,), (128,)])
    assert_array_equal(np.concatenate(found), expected.numpy())

    ratios = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
    scales, steps = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05], [8, 16, 32, 64, 100, 300]
    maps = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]
    images = ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    generator = DefaultBoxGenerator(ratios, scales=scales, steps=steps)
    expected = generator(images, [torch.zeros(1, 1, *shape) for shape in maps])[0]
    assert_allclose(SSD300(maps, (300, 300)), expected.numpy(), rtol=0, atol=1e-4)


def regions(random, n):
    """On the map, over its border, outside, without extent."""
    corner = random.uniform(-30, 90, (n, 2))
    found = np.concatenate([corner, corner + random.uniform(0, 60, (n, 2))], 1)
    found[0], found[1] = [200, 200, 240, 260], [10, 10, 10, 10]
    return found


def on_the_edge(found, scale, aligned, size, samples, sides):
    """Whether a sample lies within rounding of a pixel beyond the map, where a last bit decides whether it counts."""
    low = found * scale - (0.5 if aligned else 0)
    extent = low[:, 2:] - low[:, :2]
    extent = extent if aligned else np.maximum(extent, 1)
    place = (np.arange(size * samples) + 0.5) / (size * samples)
    at = low[:, None, :2] + place[None, :, None] * extent[:, None]
    return any(np.abs(at[..., axis] - edge).min() < 1e-9 for axis in (0, 1) for edge in (-1, sides[axis]))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seeds, st.booleans(), st.sampled_from([1, 2, 3]))
def test_roi_align_and_its_gradient(seed, aligned, samples):
    import torch
    from torchvision import ops

    random, scale, size = np.random.RandomState(seed), 0.25, 5
    features, found = random.normal(size=(16, 20, 3)), regions(random, 8)
    if on_the_edge(found, scale, aligned, size, samples, (20, 16)):
        return
    weight = random.normal(size=(8, size, size, 3))
    with jax.enable_x64(True):
        run = lambda x: roi_align(x, jnp.asarray(found), size=size, scale=scale, samples=samples, aligned=aligned)
        ours = jax.jit(run)(jnp.asarray(features))
        gradient = jax.jit(jax.grad(lambda x: (run(x) * weight).sum()))(jnp.asarray(features))
    given_ = torch.from_numpy(features.transpose(2, 0, 1)[None].copy()).requires_grad_()
    theirs = ops.roi_align(given_, [torch.from_numpy(found)], size, scale, samples, aligned)
    (theirs * torch.from_numpy(weight.transpose(0, 3, 1, 2).copy())).sum().backward()
    assert_allclose(ours, theirs.detach().numpy().transpose(0, 2, 3, 1), rtol=0, atol=1e-12)
    assert_allclose(gradient, given_.grad[0].numpy().transpose(1, 2, 0), rtol=0, atol=1e-11)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seeds)
def test_roi_pool_and_its_gradient(seed):
    import torch
    from torchvision import ops

    random, scale, size = np.random.RandomState(seed), 0.25, 4
    features, found = random.normal(size=(16, 20, 3)), regions(random, 8)
    weight = random.normal(size=(8, size, size, 3))
    with jax.enable_x64(True):
        run = lambda x: roi_pool(x, jnp.asarray(found), size=size, scale=scale)
        ours = jax.jit(run)(jnp.asarray(features))
        gradient = jax.jit(jax.grad(lambda x: (run(x) * weight).sum()))(jnp.asarray(features))
    given_ = torch.from_numpy(features.transpose(2, 0, 1)[None].copy()).requires_grad_()
    theirs = ops.roi_pool(given_, [torch.from_numpy(found)], size, scale)
    (theirs * torch.from_numpy(weight.transpose(0, 3, 1, 2).copy())).sum().backward()
    assert_allclose(ours, theirs.detach().numpy().transpose(0, 2, 3, 1), rtol=0, atol=1e-12)
    assert_allclose(gradient, given_.grad[0].numpy().transpose(1, 2, 0), rtol=0, atol=1e-11)
