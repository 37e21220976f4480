"""Digests, by which it is noticed that something is no longer what was saved: of arrays, of JSON data, of files."""

import hashlib
import json
from collections.abc import Callable
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

    Each word is mixed with its place before all are added up, so that no change of several words is likely to cancel out.
    One program a shape, as one for all arrays of a large detector takes twenty seconds to compile.
    """
    return _combined(_each(_checksum, tree))


def _each(checksum: Callable[[jax.Array], Scalar], tree: PyTree) -> list[Scalar]:
    """The checksum of every array. On several devices of a CPU one program is awaited before the next is begun.

    There programs share few threads, and those that exchange arrays can wait for each other without end: two devices on two
    cores stood still in one of the first four checkpoints that were read one after the other (JAX 0.10.2).
    """
    found = []
    for leaf in jax.tree.leaves(tree):
        found.append(checksum(leaf))
        if jax.local_device_count() > 1 and jax.default_backend() == "cpu":
            jax.block_until_ready(found[-1])
    return found


@jax.jit
def _checksum(leaf: jax.Array) -> Scalar:
    return _mixed_sum(_words(leaf))


@jax.jit
def _combined(checksums: list[Scalar]) -> Scalar:
    return _mixed_sum(jnp.stack(checksums)) if checksums else jnp.uint32(0)


def _mixed_sum(words: jax.Array) -> Scalar:
    places = jax.lax.iota(jnp.uint32, words.size) * jnp.uint32(GOLDEN)
    return _mixed(words ^ _mixed(places)).sum(dtype=jnp.uint32)


GOLDEN = 2654435761
"""2^32 by the golden ratio, odd: its multiples are spread over all of 32 bits."""


def _mixed(words: jax.Array) -> jax.Array:
    """Each bit of a word on all of its bits, one to one: MurmurHash3's finalizer (Austin Appleby, public domain)."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * jnp.uint32(0xC2B2AE35)
    return words ^ (words >> 16)


def linear_digest(tree: PyTree) -> Scalar:
    """The digest that checkpoints of older versions have; an even number of changed signs, for one, leaves it as it is."""
    return _linearly_combined(_each(_linear_checksum, tree))


@jax.jit
def _linear_checksum(leaf: jax.Array) -> Scalar:
    words = _words(leaf)
    positions = jax.lax.iota(jnp.uint32, words.size) * jnp.uint32(GOLDEN) + jnp.uint32(1)
    return (words * (positions | 1)).sum(dtype=jnp.uint32)


@jax.jit
def _linearly_combined(checksums: list[Scalar]) -> Scalar:
    """The sum of `checksums`, each times a power of 31: the order counts."""
    powers = [pow(31, power, 2**32) for power in reversed(range(len(checksums)))]
    return (jnp.stack(checksums) * np.asarray(powers, np.uint32)).sum(dtype=jnp.uint32)


def _words(leaf: jax.Array) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag], -1)
    if leaf.dtype == jnp.bool_:
        return leaf.reshape(-1).astype(jnp.uint32)
    width = (jnp.iinfo if jnp.issubdtype(leaf.dtype, jnp.integer) else jnp.finfo)(leaf.dtype).bits
    if width == 64:
        return jax.lax.bitcast_convert_type(leaf, jnp.uint32).reshape(-1)
    return jax.lax.bitcast_convert_type(leaf, f"uint{width}").reshape(-1).astype(jnp.uint32)
