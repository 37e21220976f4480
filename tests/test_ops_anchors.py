"""Reference boxes by hand and by loops, box codecs against their equations."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.ops import anchors, box_codec


def boxes(seed, n=40):
    random = np.random.RandomState(seed)
    corner = random.uniform(0, 200, (n, 2))
    return np.concatenate([corner, corner + random.uniform(1, 90, (n, 2))], 1).astype(np.float32)


def test_a_pyramid_has_an_anchor_of_each_kind_at_every_corner_of_a_cell():
    found = anchors.pyramid([(3, 4), (2, 2)], (48, 66), [(16,), (32, 64)], ratios=(0.5, 1.0, 2.0))
    expected = []
    for rows, columns, down, right, sizes in ((3, 4, 16, 16, (16,)), (2, 2, 24, 33, (32, 64))):
        level = []
        for row in range(rows):
            for column in range(columns):
                for ratio in (0.5, 1.0, 2.0):
                    for size in sizes:
                        half_w, half_h = (round(size * f / 2) for f in (1 / math.sqrt(ratio), math.sqrt(ratio)))
                        x, y = column * right, row * down
                        level.append((x - half_w, y - half_h, x + half_w, y + half_h))
        expected.append(level)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_ssd300_has_its_8732_default_boxes():
    shapes, strides = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)], [8, 16, 32, 64, 100, 300]
    scales = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
    found = anchors.ssd_default_boxes(shapes, (300, 300), scales, [[2], [2, 3], [2, 3], [2, 3], [2], [2]], strides)
    assert found.shape == (8732, 4)
    centre, side = (found[:, :2] + found[:, 2:]) / 2, found[:, 2:] - found[:, :2]
    np.testing.assert_allclose(centre[4], (12, 4), atol=1e-4)  # the second cell of the first row, four kinds each
    square, between = 0.07 * 300, math.sqrt(0.07 * 0.15) * 300
    flat = (square * math.sqrt(2), square / math.sqrt(2))
    np.testing.assert_allclose(side[:4], [(square,) * 2, (between,) * 2, flat, flat[::-1]], rtol=1e-5)
    assert side.max() <= 300


def test_wrong_numbers_of_sizes_are_refused():
    with pytest.raises(ValueError, match="1 levels of features and sizes for 2"):
        anchors.pyramid([(2, 2)], (8, 8), [(4,), (8,)])
    with pytest.raises(ValueError, match="need 2 scales, 1 lists of ratios and 1 strides; got 1, 1 and 1"):
        anchors.ssd_default_boxes([(2, 2)], (8, 8), [0.1], [[2]], [4])


def test_offsets_follow_their_equations_and_lead_back():
    target, reference, weights = boxes(0), boxes(1), (10.0, 10.0, 5.0, 5.0)
    found = np.asarray(box_codec.encode(jnp.asarray(target), jnp.asarray(reference), weights))
    for (x0, y0, x1, y1), (a0, b0, a1, b1), (dx, dy, dw, dh) in zip(target, reference, found, strict=True):
        assert dx == pytest.approx(10 * ((x0 + x1) - (a0 + a1)) / 2 / (a1 - a0), rel=1e-4, abs=1e-4)
        assert dy == pytest.approx(10 * ((y0 + y1) - (b0 + b1)) / 2 / (b1 - b0), rel=1e-4, abs=1e-4)
        assert dw == pytest.approx(5 * math.log((x1 - x0) / (a1 - a0)), rel=1e-4, abs=1e-4)
        assert dh == pytest.approx(5 * math.log((y1 - y0) / (b1 - b0)), rel=1e-4, abs=1e-4)
    back = box_codec.decode(jnp.asarray(found), jnp.asarray(reference), weights)
    np.testing.assert_allclose(back, target, atol=2e-3)


def test_a_decoded_box_is_at_most_62_and_a_half_references_wide():
    found = box_codec.decode(jnp.float32([[0, 0, 99, 99]]), jnp.float32([[0, 0, 2, 4]]))
    np.testing.assert_allclose(found[0, 2:] - found[0, :2], (125, 250), rtol=1e-5)


def test_padding_has_finite_offsets_and_gradients():
    empty = jnp.zeros((3, 4))
    values, gradient = jax.jit(jax.value_and_grad(lambda b: box_codec.encode(b, empty).sum()))(empty)
    assert float(values) == 0
    assert np.isfinite(gradient).all()


def test_yolo_leads_back():
    target = boxes(2, 5)
    cells, priors = np.floor((target[:, :2] + target[:, 2:]) / 2 / 16), np.full((5, 2), 30, np.float32)
    inside, logs = map(np.asarray, jax.jit(partial(box_codec.encode_yolo, stride=16))(target, cells, priors))
    assert ((inside >= 0) & (inside <= 1)).all()
    raw = np.concatenate([np.log(inside / (1 - inside)), logs], 1)
    back = jax.jit(partial(box_codec.decode_yolo, stride=16))(raw, cells, priors)
    np.testing.assert_allclose(back, target, atol=2e-3)
