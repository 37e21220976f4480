"""Structure of the tree in a checkpoint, compared with the one that is wanted: paths, dtypes and shapes."""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxvision.errors import CheckpointError


def abstract(x) -> jax.ShapeDtypeStruct:
    """Shape, dtype and sharding of an array; of one device where it has no sharding."""
    sharding = getattr(x, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def named_types(tree: PyTree) -> dict[str, str]:
    """Dtype and shape of each array as it is stored, such as `float32[3, 3]`, by its path in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(path): _stored_type(leaf) for path, leaf in leaves if hasattr(leaf, "shape")}


def _stored_type(leaf) -> str:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return f"{jnp.dtype(leaf.dtype).name}{list(leaf.shape)}"


def _name(path) -> str:
    parts = (getattr(p, "key", getattr(p, "name", getattr(p, "idx", None))) for p in path)
    return "/".join(str(part) for part in parts)


def check_same(path: Path, saved: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raises CheckpointError, which names the arrays that differ, if the tree of a checkpoint is not the wanted one.

    Args:
      path: of the checkpoint.
      saved: what `named_types` gives for it.
      wanted: what it gives for the wanted tree.
    """
    problems = [f"{name} is missing" for name in wanted if name not in saved]
    problems += [f"{name} is not expected" for name in saved if name not in wanted]
    problems += [
        f"{name} is {saved[name]} there and {wanted[name]} here"
        for name in wanted
        if name in saved and saved[name] != wanted[name]
    ]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(f"checkpoint {path} is of another model or optimizer: {'; '.join(problems[:5])}{more}")
