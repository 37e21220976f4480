"""Devices: where arrays live, and how the host feeds them."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxvision.types import Batch


def data_mesh() -> Mesh:
    """All devices along one axis, `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device has the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def along_batch(mesh: Mesh) -> NamedSharding:
    """The first axis of the array is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def placer(mesh: Mesh) -> Callable[[Batch], Batch]:
    """A function that puts a host batch onto the devices, split over them."""
    sharding = along_batch(mesh)
    return lambda batch: jax.device_put(batch, sharding)


def check_divisible(spec: Batch, mesh: Mesh) -> None:
    """Raises ValueError if a batch of this shape can't be split evenly over the devices."""
    size = spec.image.shape[0]
    if size % mesh.size:
        raise ValueError(f"a batch of {size} examples can't be split over {mesh.size} devices")


def ahead(batches: Iterable[Batch], place: Callable[[Batch], Batch], depth: int = 2) -> Iterator[Batch]:
    """The batches on the devices, `depth` of them under way before they are asked for."""
    waiting: deque[Batch] = deque()
    for batch in batches:
        waiting.append(place(batch))
        if len(waiting) > depth:
            yield waiting.popleft()
    yield from waiting


def keep_compilations(folder: str | None = None) -> None:
    """Compiled programs are kept on disk, so that the next run of the same step starts at once.

    `JAX_COMPILATION_CACHE_DIR` names another folder; empty, it turns this off.
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen is None:
        chosen = folder or str(Path("~/.cache/jaxvision/compilations").expanduser())
        jax.config.update("jax_compilation_cache_dir", chosen)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def precision(requested: str, backend: str | None = None) -> str:
    """The dtype to compute in: `auto` is float32 on CPU and bfloat16 elsewhere; parameters stay float32.

    Raises:
      ValueError: for any other name than auto, float32, bfloat16, float64.
    """
    allowed = ("auto", "float32", "bfloat16", "float64")
    if requested not in allowed:
        raise ValueError(f"precision is {requested!r}; allowed: {', '.join(allowed)}")
    if requested != "auto":
        return requested
    return "float32" if (backend or jax.default_backend()) == "cpu" else "bfloat16"


def resolve_precision(config) -> None:
    """Names the precision of a config for this machine, in place, and lets JAX compute in float64 if it is that.

    Raises ValueError for one that is not allowed. A config without `precision` is left as it is.
    """
    if "precision" not in config:
        return
    try:
        with config.unlocked():
            config.precision = precision(config.precision)
    except ValueError as error:
        raise ValueError(f"config.{error}") from None
    if config.precision == "float64":
        jax.config.update("jax_enable_x64", True)
