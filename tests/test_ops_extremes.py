"""The larger and the smaller of two, against their definition and their gradient's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equalities import equalities
from numpy.testing import assert_array_equal

from jaxvision.ops.extremes import maximum, minimum

A, B = jnp.asarray([[1.0, 2.0, -3.0, 0.0]]), jnp.asarray([[2.0], [-3.0]])


@pytest.mark.parametrize(("function", "numpy", "wins"), [(maximum, np.maximum, 1), (minimum, np.minimum, -1)])
def test_values_and_gradient_follow_the_definition(function, numpy, wins):
    value, (of_a, of_b) = jax.value_and_grad(lambda a, b: function(a, b).sum(), (0, 1))(A, B)
    share = np.asarray(jnp.sign(wins * (A - B)) + 1) / 2  # half of each where they are equal
    assert value == numpy(A, B).sum()
    assert_array_equal(function(A, B), numpy(A, B))
    assert_array_equal(of_a, share.sum(0, keepdims=True))
    assert_array_equal(of_b, (1 - share).sum(1, keepdims=True))


def test_a_number_has_the_type_of_the_array_and_nan_shows():
    with jax.numpy_dtype_promotion("strict"):
        found = maximum(jnp.asarray([-1.0, np.nan, 3.0], jnp.bfloat16), 0)
    assert found.dtype == jnp.bfloat16
    assert_array_equal(found.astype(np.float32), [0, np.nan, 3])


@pytest.mark.parametrize("function", [maximum, minimum])
def test_no_result_is_compared_with_what_it_was_taken_from(function):
    assert not equalities(jax.grad(lambda a: function(a * a, a).sum()), A)
    assert equalities(jax.grad(lambda a: jnp.maximum(a * a, a).sum()), A)
