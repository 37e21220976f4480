"""Plain programs: the same values, without the operators that converters do not know."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.nn.settled import settled
from jaxvision.ops.top_k import top_k
from jaxvision.trust.export.plain import apart, computing, from_package, operators, place, plain, sorted_top_k

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 7)), jnp.float32)


def names(function, *arguments):
    return {each.primitive.name for each in operators(jax.make_jaxpr(function)(*arguments).jaxpr)}


@pytest.mark.parametrize(
    ("function", "without"),
    [
        (lambda x: settled(2 * x) + 1, {"cond", "optimization_barrier"}),
        (lambda x: jax.lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos), {"cond", "platform_index"}),
        (lambda x: jax.lax.map(jnp.cumsum, x[:1]), {"scan"}),
        (lambda x: jax.jit(jax.nn.relu)(x), {"jit", "pjit", "custom_jvp_call"}),
        (lambda x: jax.vmap(lambda row: top_k(row, 3))(x), {"custom_vmap_call", "custom_partitioning"}),
        (lambda x: jax.lax.while_loop(lambda s: s.sum() < 99, lambda s: s + 1, x), set()),
        (lambda x: jax.lax.scan(lambda s, row: (s + row, s * row), jnp.zeros(7), x), set()),
    ],
)
def test_values_stay_and_operators_go(function, without):
    for shapes in (None, [jax.ShapeDtypeStruct(X.shape, X.dtype)]):
        made = plain(function, shapes)
        expected = jnp.cos(X) if "platform_index" in without else function(X)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), made(X), expected)
        assert not without & names(made, X)


def test_the_largest_by_a_sort_are_those_of_top_k_in_their_order():
    x = jnp.float32([[1, 3, 3, -0.5, 3, 2], [0, 0, 0, 0, 0, 0]])
    with computing({"top_k": sorted_top_k}):
        made = plain(lambda x: top_k(x, 4), [jax.ShapeDtypeStruct(x.shape, x.dtype)])
        best, index = made(x)
        assert "top_k" not in names(made, x)
    assert index.tolist() == [[1, 2, 4, 5], [0, 1, 2, 3]]
    assert best.tolist() == [[3, 3, 3, 2], [0, 0, 0, 0]]
    assert index.dtype == np.int32
    assert "top_k" in names(plain(lambda x: top_k(x, 4)), x)


def test_results_that_are_one_value_become_two():
    jaxpr = jax.make_jaxpr(apart(plain(lambda x: (2 * x, x, x))))(X).jaxpr
    assert len(set(map(id, jaxpr.outvars))) == 3
    doubled, one, other = apart(lambda x: (y := 2 * x, y, x))(X)
    assert doubled.tolist() == one.tolist()
    assert other.tolist() == X.tolist()


def test_an_operator_is_found_in_the_source():
    (sine,) = [
        each for each in operators(jax.make_jaxpr(lambda x: jnp.sin(x))(X).jaxpr) if each.primitive.name == "sin"
    ]
    assert "test_trust_export_plain.py:" in place(sine)
    jaxpr = jax.make_jaxpr(settled)(X).jaxpr
    (branch,) = [each for each in operators(jaxpr) if each.primitive.name == "cond"]
    assert place(branch).startswith("jaxvision/nn/settled.py:")
    assert from_package("/somewhere/else.py:3") == "/somewhere/else.py:3"
