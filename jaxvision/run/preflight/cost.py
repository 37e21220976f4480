"""What training costs, known before the first step: parameters, operations, memory."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import PyTree

from jaxvision.errors import ConfigError
from jaxvision.machine import limits
from jaxvision.optimize.patterns import names
from jaxvision.run.preflight.treatment import Treatment, treatments
from jaxvision.train import TrainState


class Parameter(NamedTuple):
    """One array of parameters."""

    name: str
    shape: tuple[int, ...]
    treatment: Treatment | None
    """What the optimizer does with it; None for a frozen one."""

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def parameters(state: TrainState, optimizer: optax.GradientTransformation, steps: int) -> list[Parameter]:
    """The parameters of a state, arrays or shapes, those that are trained first; `steps` as of `treatments`."""
    trained, frozen = _by_name(state.params), _by_name(state.collections.get("frozen", {}))
    how = treatments(optimizer, state.params, steps)
    return [
        *(Parameter(name, x.shape, each) for (name, x), each in zip(trained.items(), how, strict=True)),
        *(Parameter(name, x.shape, None) for name, x in frozen.items()),
    ]


def _by_name(tree: PyTree) -> dict[str, Any]:
    return dict(zip(jax.tree.leaves(names(tree)), jax.tree.leaves(tree), strict=True))


def bytes_on_device(shapes: PyTree) -> int:
    """What the arrays of these shapes take on one device: of those with a sharding, its part."""
    return sum(_shard_bytes(x) for x in jax.tree.leaves(shapes))


def _shard_bytes(x: Any) -> int:
    shape = x.sharding.shard_shape(x.shape) if getattr(x, "sharding", None) is not None else x.shape
    return math.prod(shape) * x.dtype.itemsize


class Memory(NamedTuple):
    """What one call of a compiled step takes on one device, in bytes, as XLA plans it."""

    arguments: int
    """The state and the batch."""
    results: int
    """What it returns that does not take the place of an argument."""
    temporaries: int
    """Activations, gradients."""
    code: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


class Cost(NamedTuple):
    """What a training step costs."""

    flops: float | None
    """Floating-point operations of a whole batch, forward and backward, as XLA counts those of the program as written (a
    multiplication and an addition are two); None where it does not say."""
    memory: Memory | None


class DoesNotFit(ConfigError):
    """A step needs more memory than a device has."""


def measure(lowered: jax.stages.Lowered) -> Cost:
    """Compiles a step; runs nothing.

    Raises:
      DoesNotFit: if the compiler itself finds no memory for it.
    """
    flops = (lowered.cost_analysis() or {}).get("flops")
    try:
        planned: Any = lowered.compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise DoesNotFit(f"the step can't be compiled for a device of this memory: {error}") from error
        raise
    if planned is None:
        return Cost(flops, None)
    results = planned.output_size_in_bytes - planned.alias_size_in_bytes
    return Cost(
        flops,
        Memory(
            planned.argument_size_in_bytes,
            results,
            planned.temp_size_in_bytes,
            planned.generated_code_size_in_bytes,
        ),
    )


def capacity(device: Any) -> int | None:
    """The bytes of memory of a device that programs may use; None where nothing reports it.

    That of a CPU is what the process may use of the machine's, shared by the devices that JAX makes of it.
    """
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    available = limits.memory() if device.platform == "cpu" else None
    return None if available is None else available // jax.local_device_count()


def check_fits(memory: Memory, limit: int, state: int, batch_size: int, devices: int) -> None:
    """Raises DoesNotFit, with a batch size that would about fit, if the step needs more than there is.

    Args:
      memory: of the step, on each device.
      limit: bytes of a device.
      state: bytes of the training state on a device; the rest is taken to grow with the batch.
      batch_size: over all devices.
      devices: how many there are.
    """
    if memory.total <= limit:
        return
    each = (memory.total - state) / (batch_size / devices)
    fits = max(math.floor((limit - state) / each), 0) * devices
    advice = f"a batch of about {fits:,} would fit" if fits else "no batch size would"
    raise DoesNotFit(
        f"the training step needs {size(memory.total)} on each device, {size(memory.total - limit)} more than the "
        f"{size(limit)} there are ({describe(memory, state)}); {advice}"
    )


def describe(memory: Memory, state: int) -> str:
    """The parts of the memory of a step."""
    parts = {
        "state": state,
        "batch": memory.arguments - state,
        "activations and other temporaries": memory.temporaries,
        "results": memory.results,
        "code": memory.code,
    }
    return ", ".join(f"{name} {size(count)}" for name, count in parts.items() if count > 0)


def size(count: float) -> str:
    """A number of bytes as a person reads it: `25.3 GB`."""
    return scaled(count, ("bytes", "kB", "MB", "GB", "TB"))


def scaled(count: float, units: Sequence[str]) -> str:
    """The number, to three digits, in the first of the units, each a thousand times the one before, that keeps it short."""
    power = 0
    while count >= 999.5 and power < len(units) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.3g} {units[power]}"
