import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxvision.ops import homography as h


def moved(matrix, points):
    to = np.asarray(matrix, np.float64) @ np.concatenate([np.asarray(points, np.float64).T, np.ones((1, len(points)))])
    return (to[:2] / to[2]).T


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (h.shift(2, -1), (5, 3)),
        (h.zoom(2, 0.5), (6, 2)),
        (h.shear(0.5, 0), (5, 4)),
        (h.shear(0, 0.5), (3, 5.5)),
        (h.rotation(90), (4, -3)),
        (h.rotation(180), (-3, -4)),
        (h.product(h.shift(1, 0), h.rotation(90)), (5, -3)),
    ],
)
def test_where_a_point_goes(matrix, expected):
    np.testing.assert_allclose(moved(matrix, [(3, 4)]), [expected], atol=1e-5)


def test_a_quarter_turn_is_counter_clockwise_as_seen():
    image = np.random.default_rng(0).integers(0, 256, (6, 6)).astype(np.float32)
    turn = h.about_centre(h.rotation(90), jnp.int32([6, 6]))
    y, x = np.mgrid[:6, :6] + 0.5
    back = moved(h.inverse(turn), np.stack([x.ravel(), y.ravel()], -1)) - 0.5
    found = ndimage.map_coordinates(image, back[:, ::-1].T, order=1, mode="nearest").reshape(6, 6)
    np.testing.assert_allclose(found, np.rot90(image), atol=1e-2)


def test_the_inverse_leads_back_and_keeps_the_sign():
    rng = np.random.default_rng(1)
    points = rng.uniform(0, 50, (20, 2))
    for _ in range(20):
        corners = np.float32([[0, 0], [50, 0], [50, 40], [0, 40]]) + rng.uniform(-9, 9, (4, 2))
        matrix = h.onto(jnp.asarray(corners, jnp.float32), jnp.int32([40, 50]))
        np.testing.assert_allclose(moved(matrix, [(0, 0), (50, 0), (50, 40), (0, 40)]), corners, atol=1e-3)
        back = np.asarray(h.inverse(matrix))
        np.testing.assert_allclose(
            back / back[2, 2], np.linalg.inv(matrix) / np.linalg.inv(matrix)[2, 2], rtol=2e-4, atol=1e-4
        )
        np.testing.assert_allclose(moved(back, moved(matrix, points)), points, atol=2e-2)
        assert np.all(back[2] @ np.append(corners[0], 1) > 0)


def test_moved_boxes_are_the_tightest_around_the_moved_corners_and_cut_to_the_content():
    rng = np.random.default_rng(2)
    boxes = np.sort(rng.uniform(0, 30, (20, 2, 2)), axis=1).reshape(20, 4).astype(np.float32)
    matrix = h.about_centre(h.product(h.rotation(33), h.shear(0.3, 0.1)), jnp.int32([30, 40]))
    with jax.numpy_dtype_promotion("strict"):
        found = jax.jit(h.moved_boxes)(boxes, matrix)
        cut, left = jax.jit(h.cut_boxes)(found, np.int32([30, 40]))
    for box, to, inner, some in zip(boxes, np.asarray(found), np.asarray(cut), np.asarray(left), strict=True):
        corners = moved(matrix, [(box[i], box[j]) for i in (0, 2) for j in (1, 3)])
        expected = [*corners.min(0), *corners.max(0)]
        np.testing.assert_allclose(to, expected, atol=1e-3)
        np.testing.assert_allclose(inner, np.clip(expected, 0, [40, 30, 40, 30]), atol=1e-3)
        whole = np.array_equal(inner, to)
        assert some == (min(inner[2] - inner[0], inner[3] - inner[1]) >= (0 if whole else 1))
    left = h.cut_boxes(
        jnp.float32([[40, 0, 50, 9], [39.5, 0, 50, 9], [39, 0, 50, 9], [39.5, 0, 40, 9], [5, 5, 5, 9]]),
        jnp.int32([30, 40]),
    )[1]
    assert left.tolist() == [False, False, True, True, False]
