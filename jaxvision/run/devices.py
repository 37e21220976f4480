"""Devices: the mesh, where arrays live on it, how the host feeds it, what crosses it.

There is one mesh, of the axes `data` and `fsdp`. A batch is split over both; parameters and optimizer state are split over
`fsdp` and copied along `data`; during a step each parameter is gathered where it is used, and again for its gradient, so that
no device holds all of them at once. `jit` over it does the rest: a sum over the batch is a sum over all devices.

Why `jax.jit` over a mesh and not `jax.pmap`: the step is written for the whole batch, so that no loss has an `axis_name` and
nothing is synchronised by hand, and where an array lies is separate from what is computed; `pmap` is in maintenance, and
itself built on `jit`. To try it without hardware: `XLA_FLAGS=--xla_force_host_platform_device_count=8`, slow.
"""

import logging
import math
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Primitive
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jaxvision.errors import amount
from jaxvision.experiment import Experiment, first_state_of, task_of, train_step_of
from jaxvision.machine import eigen, folders
from jaxvision.machine.limits import memory
from jaxvision.train import TrainState, TrainStep
from jaxvision.types import Batch, Key, LossOutput, Scalar, Task, Variables

logger = logging.getLogger(__name__)
AXES = ("data", "fsdp")
GATHERED = "gathered parameters"
RESHAPING = (
    "sharding_constraint",
    "convert_element_type",
    "reshape",
    "squeeze",
    "slice",
    "transpose",
    "broadcast_in_dim",
)
"""Primitives that change no number of a parameter but its type."""
SMALL = 1024
"""Arrays of fewer elements are not worth splitting."""


def device_mesh(fsdp: int = 1) -> Mesh:
    """All devices of all processes, in the order of the processes; parameters are split over `fsdp` of them.

    Asks for convolutions by Eigen first (`machine.eigen`), where this process has not computed anything.

    Raises:
      ValueError: if the number of devices is not a multiple of `fsdp`.
    """
    eigen.ask()
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if fsdp < 1 or len(devices) % fsdp:
        raise ValueError(f"fsdp is {fsdp}; it must divide the number of devices, {len(devices)}")
    grid = np.array(devices).reshape(-1, fsdp)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device has the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def along_batch(mesh: Mesh) -> NamedSharding:
    """The first axis of the array is split over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def layout(mesh: Mesh, shapes: PyTree) -> PyTree:
    """How to lay out each array of a state on the mesh: split along its longest axis that `fsdp` divides.

    Vectors, small arrays, and those with no such axis are copied to every device: a vector of a normalisation would be
    gathered at each use, of which each takes as long as one of many more bytes.
    """
    return jax.tree.map(lambda x: NamedSharding(mesh, _split(x.shape, mesh.shape["fsdp"])), shapes)


def _split(shape: tuple[int, ...], parts: int) -> PartitionSpec:
    axes = [axis for axis, length in enumerate(shape) if length % parts == 0]
    if parts == 1 or not axes or len(shape) < 2 or np.prod(shape) < SMALL:
        return PartitionSpec()
    axis = max(axes, key=lambda axis: shape[axis])
    return PartitionSpec(*(None,) * axis, "fsdp")


def with_layout(mesh: Mesh, shapes: PyTree) -> PyTree:
    """The shapes as `ShapeDtypeStruct` with their layout."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes, layout(mesh, shapes)
    )


def gathering(task: Task, mesh: Mesh) -> Task:
    """The task on parameters that are split over `fsdp`: they are gathered where they are used.

    Without this the compiler may move the images instead. Each gradient is split again where it arises. A parameter that was
    gathered is not kept for the backward pass but gathered again: a device never holds more of them than the layers at work
    need. The task as it is, where nothing is split.
    """
    if mesh.shape["fsdp"] == 1:
        return task

    def gathered(params: PyTree) -> PyTree:
        held = jax.lax.with_sharding_constraint(params, layout(mesh, params))  # or else what is kept would be whole
        return jax.lax.with_sharding_constraint(held, replicated(mesh))

    def split(_, gradient: PyTree) -> tuple[PyTree]:
        return (jax.lax.with_sharding_constraint(gradient, layout(mesh, gradient)),)

    gather = jax.custom_vjp(gathered)
    gather.defvjp(lambda params: (gathered(params), None), split)

    def whole(variables: Variables) -> Variables:
        return {**variables, "params": checkpoint_name(gather(variables["params"]), GATHERED)}

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        again = jax.checkpoint(
            lambda params: task.loss(whole({**variables, "params": params}), batch, key),
            policy=_but_gathered({x.shape for x in jax.tree.leaves(variables["params"])}),
        )
        return again(variables["params"])

    return Task(task.init, loss, lambda variables, batch: task.predict(whole(variables), batch))


def _but_gathered(shapes: set[tuple[int, ...]]) -> Callable[..., bool]:
    """A policy of `jax.checkpoint`: all is kept for the backward pass but parameters of these shapes that were gathered.

    Nor is what they become by another type or shape alone, such as bfloat16.
    """

    def kept(primitive: Primitive, *arrays: Any, **params: Any) -> bool:
        if params.get("name") == GATHERED:
            return False
        return not (primitive.name in RESHAPING and arrays and arrays[0].shape in shapes)

    return kept


def step_on(mesh: Mesh, experiment: Experiment) -> tuple[TrainStep, TrainState]:
    """The jitted training step over the devices, known to trace, and the shapes and shardings of its state.

    Raises:
      ValueError: for parts of the experiment that don't fit together.
    """
    like = state_on(mesh, experiment)
    step = jax.jit(
        train_step_of(_gathering(mesh, experiment)),
        donate_argnums=0,
        out_shardings=(layout(mesh, like), replicated(mesh)),
    )
    step.eval_shape(like, batch_on(mesh, experiment.train.spec))
    return step, like


@contextmanager
def compiling(step: TrainStep, like: TrainState, batch: Batch) -> Iterator[TrainStep]:
    """The jitted step, which a thread compiles for these shapes meanwhile; its first call waits for that.

    The end of the block does not: what a signal or an error ends is not kept by a compilation, which nothing else could end.
    Several processes each compile when they call it: there it is the step as it is.
    """
    if jax.process_count() > 1:
        yield step
        return
    lowered = cast(jax.stages.Wrapped, step).lower(like, batch)
    threads = ThreadPoolExecutor(1, "compiling")
    compiled = threads.submit(lowered.compile)

    def waiting(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Scalar]]:
        if not compiled.done():
            wait([compiled])  # where it failed, the call fails too, and says why
        return step(state, batch)

    try:
        yield waiting
    finally:
        threads.shutdown(wait=False)


def task_on(mesh: Mesh, experiment: Experiment) -> Task:
    """`task_of`, for variables that lie on the devices as `state_on` has it."""
    return task_of(_gathering(mesh, experiment))


def _gathering(mesh: Mesh, experiment: Experiment) -> Experiment:
    return experiment._replace(task=gathering(experiment.task, mesh))


def state_on(mesh: Mesh, experiment: Experiment) -> TrainState:
    """The shapes of the state, and where its arrays lie on the devices."""
    return with_layout(mesh, jax.eval_shape(lambda: first_state_of(experiment, start=False)))


def batch_on(mesh: Mesh, spec: Batch) -> Batch:
    """The shapes of a batch, split over all devices."""
    sharding = along_batch(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), spec)


def placer(mesh: Mesh) -> Callable[[Batch], Batch]:
    """A function that puts a batch onto the devices, split over them; of several processes, each gives its shard."""
    sharding = along_batch(mesh)
    if jax.process_count() == 1:
        return lambda batch: jax.device_put(batch, sharding)

    def put(rows: jax.Array | np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, np.asarray(rows))

    return lambda batch: jax.tree.map(put, batch)


def here(tree: PyTree, mesh: Mesh) -> PyTree:
    """The whole arrays on one device of this process; called by all processes."""
    copies = jax.jit(lambda x: x, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), copies)


def check_divisible(spec: Batch, mesh: Mesh) -> None:
    """Raises ValueError if a batch of this shape can't be split evenly over the devices, or is larger than the memory."""
    rows = spec.image.shape[0]
    if rows % mesh.size:
        raise ValueError(f"a batch of {amount(rows, 'example')} can't be split over {amount(mesh.size, 'device')}")
    size = sum(math.prod(each.shape) * each.dtype.itemsize for each in jax.tree.leaves(spec)) // jax.process_count()
    limit = memory()
    if limit is not None and size > limit:
        have = f"{limit / 1e9:,.1f} GB of memory"
        raise ValueError(f"a batch of {amount(rows, 'example')} takes {size / 1e9:,.1f} GB, and there are {have}")


def ahead(batches: Iterable[Batch], place: Callable[[Batch], Batch], depth: int = 2) -> Iterator[Batch]:
    """The batches on the devices, `depth` of them under way before they are asked for."""
    waiting: deque[Batch] = deque()
    for batch in batches:
        waiting.append(place(batch))
        if len(waiting) > depth:
            yield waiting.popleft()
    yield from waiting


class Collective(NamedTuple):
    """One array that the devices exchange in a compiled program."""

    kind: str
    """`all-reduce`, `all-gather`, `reduce-scatter`, `all-to-all` or `collective-permute`."""
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """The size of the result on one device."""
        bits = re.sub(r"\D", "", self.dtype) or "8"
        return int(np.prod(self.shape, dtype=np.int64)) * int(bits) // 8


_COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
_INSTRUCTION = re.compile(rf"= (.*?) ({_COLLECTIVES})(?:-start)?\(")
_ARRAY = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")


def collectives(program: str) -> list[Collective]:
    """What the devices exchange in one call of a compiled program, an entry an array.

    Args:
      program: `compiled.as_text()`.
    """
    found = []
    for types, kind in _INSTRUCTION.findall(program):
        for dtype, shape in _ARRAY.findall(types):
            found.append(Collective(kind, dtype, tuple(int(n) for n in shape.split(",") if n)))
    return found


def keep_compilations(folder: str | None = None) -> None:
    """Compiled programs are kept on disk, so that the next run of the same step starts at once.

    `JAX_COMPILATION_CACHE_DIR` names another folder; empty, it turns this off. Programs that compile in less than
    half a second are not kept, unless `JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS` says another time.
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen is None:
        jax.config.update("jax_compilation_cache_dir", folder or _cache())
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    # The address of a function that splits an operation over devices (`ops.top_k`) is another in every process.
    jax.config.update("jax_remove_custom_partitioning_ptr_from_cache_key", True)


def _cache() -> str | None:
    """The folder for compiled programs; None where there is none to write to."""
    try:
        folder = folders.cache("compilations")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        logger.warning("compiled programs are not kept: %s", error)
        return None
    return str(folder)


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

    Asks for convolutions by Eigen first (`machine.eigen`), where this process has not computed anything. A config without
    `precision` is left as it is.

    Raises:
      ValueError: for a precision that is not allowed.
    """
    eigen.ask()
    if "precision" not in config:
        return
    try:
        with config.unlocked():
            config.precision = precision(config.precision)
    except ValueError as error:
        raise ValueError(f"config.{error}") from None
    if config.precision == "float64":
        jax.config.update("jax_enable_x64", True)


def check_memory(mesh: Mesh, like: TrainState) -> None:
    """Raises ValueError for a state of training that is larger than the memory of the devices."""
    device = mesh.devices.flat[0]
    size = sum(_bytes_on_device(each) for each in jax.tree.leaves(like))
    if device.platform == "cpu":
        size, limit = size * len(mesh.local_devices), memory()
    else:
        limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is not None and size > limit:
        raise ValueError(
            f"parameters and optimizer state take {size / 1e9:,.1f} GB; there are {limit / 1e9:,.1f} GB of memory"
        )


def _bytes_on_device(array: jax.ShapeDtypeStruct) -> int:
    if jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
        return 0
    shape = array.shape if array.sharding is None else array.sharding.shard_shape(array.shape)
    return math.prod(shape) * array.dtype.itemsize
