"""Hashes of the first and the last parameters of a run, `parameters.json`: whether two runs gave the same bits."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from jaxvision import optimize
from jaxvision.errors import WorkdirError, write_atomically
from jaxvision.run.damage import json_object
from jaxvision.run.digest import checksum
from jaxvision.run.workdir import PARAMETERS
from jaxvision.train import TrainState

Moment = Literal["first", "last"]
logger = logging.getLogger(__name__)


class Hash(NamedTuple):
    """The parameters after a step."""

    step: int
    sha256: str


def of(state: TrainState) -> str:
    """SHA-256 of all parameters of a state, frozen ones too, not averaged: names, types, shapes and bits.

    Of several processes each calls it.
    """
    return sha256(optimize.whole(state.current)["params"])


def sha256(tree: PyTree) -> str:
    """SHA-256 of the arrays of a tree in the order of their names."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    named = sorted((jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves)
    found = hashlib.sha256()
    for name, leaf in named:
        array = np.asarray(_whole(leaf))
        found.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _whole(leaf: jax.Array) -> np.ndarray:
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
        return jax.device_get(leaf)
    return multihost_utils.process_allgather(leaf, tiled=True)


def note(workdir: Path, moment: Moment, found: Hash) -> None:
    """Writes a hash into the workdir, beside the other one.

    Raises:
      WorkdirError: if it can't be written.
    """
    try:
        known = read(workdir)
    except WorkdirError as error:
        logger.warning("%s; it is written anew", error)
        known = {}
    content = {name: each._asdict() for name, each in {**known, moment: found}.items()}
    try:
        write_atomically(
            workdir / PARAMETERS,
            json.dumps({**content, "checksum": checksum(content)}, indent=2, sort_keys=True) + "\n",
        )
    except OSError as error:
        raise WorkdirError(f"{workdir / PARAMETERS} can't be written: {error.strerror or error}") from error


def read(workdir: Path) -> dict[Moment, Hash]:
    """The hashes that a run has left so far.

    Raises:
      WorkdirError: if the file was changed or damaged.
    """
    path = workdir / PARAMETERS
    if not path.exists():
        return {}
    content = json_object(path)
    if content.pop("checksum", None) != checksum(content):
        raise WorkdirError(f"{path} was changed or damaged since it was written")
    return {name: Hash(**content[name]) for name in ("first", "last") if name in content}
