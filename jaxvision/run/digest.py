"""Digests, by which it is noticed that something is no longer what was saved: of arrays, of JSON data, of files."""

import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxvision.types import Scalar


def checksum(value: Any) -> str:
    """SHA-256 of JSON data, whatever the order of its keys and the layout of its text."""
    return sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def sha256(data: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest(tree: PyTree) -> Scalar:
    """A checksum of every bit of every array of the tree, computed where the arrays are.

    One program a shape, as one for all arrays of a large detector takes twenty seconds to compile.
    """
    return _combined([_checksum(leaf) for leaf in jax.tree.leaves(tree)])


@jax.jit
def _checksum(leaf: jax.Array) -> Scalar:
    words = _words(leaf)
    positions = jax.lax.iota(jnp.uint32, words.size) * jnp.uint32(2654435761) + jnp.uint32(1)
    return (words * (positions | 1)).sum(dtype=jnp.uint32)


@jax.jit
def _combined(checksums: list[Scalar]) -> Scalar:
    """The sum of `checksums`, each times a power of 31: the order counts."""
    powers = [pow(31, power, 2**32) for power in reversed(range(len(checksums)))]
    return (jnp.stack(checksums) * np.asarray(powers, np.uint32)).sum(dtype=jnp.uint32)


def _words(leaf: jax.Array) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if leaf.dtype == jnp.bool_:
        return leaf.reshape(-1).astype(jnp.uint32)
    width = leaf.dtype.itemsize
    if width == 8:
        return jax.lax.bitcast_convert_type(leaf, jnp.uint32).reshape(-1)
    return jax.lax.bitcast_convert_type(leaf, f"uint{8 * width}").reshape(-1).astype(jnp.uint32)
