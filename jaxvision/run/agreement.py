"""Agreement: what must be the same on all processes of a run, by names that a person can act on."""

import json
import platform
import zlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import jaxvision
from jaxvision.experiment import Experiment
from jaxvision.run.own_modules import own_modules
from jaxvision.run.processes import CHECKSUM
from jaxvision.run.workdir import Recipe, code_of, fields
from jaxvision.train import TrainState

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "jaxvision")
SWITCHES = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl", "jax_threefry_partitionable")
"""Settings of JAX that change what is computed."""


def settings(
    experiment: Experiment, data: Mapping[str, str], like: TrainState, recipe: Recipe | None, fsdp: int
) -> dict[str, str]:
    """All that decides what a process computes, as `processes.check_same` takes it.

    Args:
      experiment: as built.
      data: name of a stream to the fingerprint of its data.
      like: the shapes of the state.
      recipe: the experiment file and config, if it was built from such.
      fsdp: over how many devices parameters are split.
    """
    plain = {f"experiment.{name}": text for name, text in map(_written, experiment._asdict().items()) if text}
    config = {} if recipe is None else {f"config.{name}": text for name, text in fields(recipe.config).items()}
    streams = {f"the data of {name!r}{CHECKSUM}": fingerprint for name, fingerprint in data.items()}
    code = {f"the code of {name}{CHECKSUM}": checksum for name, checksum in _code(recipe).items()}
    return {**plain, **config, **streams, **code, **_shapes(like), **_versions(), "--fsdp": str(fsdp)}


def _written(field: tuple[str, Any]) -> tuple[str, str]:
    """The field of an experiment with its value as text; empty for one that holds functions."""
    try:
        return field[0], json.dumps(field[1])
    except TypeError:
        return field[0], ""


def _code(recipe: Recipe | None) -> dict[str, str]:
    """A checksum of each file: the experiment's and those of its modules, but for comments, and the package's."""
    root = Path(jaxvision.__file__).parent
    found = {f"jaxvision/{path.relative_to(root).as_posix()}": path.read_bytes() for path in root.rglob("*.py")}
    if recipe is not None:
        found[recipe.source.name] = code_of(recipe.source).encode()
        found |= {f"the module {name}": code_of(file).encode() for name, file in own_modules(recipe.source).items()}
    return {name: str(zlib.crc32(data)) for name, data in found.items()}


def _shapes(like: TrainState) -> dict[str, str]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(like.params)
    return {f"parameter {jax.tree_util.keystr(path)}": f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def _versions() -> dict[str, str]:
    """The versions of what computes, and how it was told to."""
    versions = {"Python": ".".join(platform.python_version_tuple()[:2]), "the backend": jax.default_backend()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {**versions, **{name: str(getattr(jax.config, name, None)) for name in SWITCHES}}
