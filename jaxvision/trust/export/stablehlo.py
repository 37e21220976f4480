"""StableHLO by `jax.export`: one file for CPU, CUDA and TPU, run by JAX alone."""

import datetime
import logging
from pathlib import Path
from typing import Any

import jax
from jax import export

from jaxvision.errors import cut
from jaxvision.trust.export.program import Program

logger = logging.getLogger(__name__)
PLATFORMS = ("cpu", "cuda", "tpu")
READABLE = datetime.timedelta(days=180)
"""Time for which later versions of JAX promise to read a file: six months."""


def write(program: Program, file: Path) -> dict[str, Any]:
    """Writes the file; returns what the manifest says of it.

    It takes batches of any size, or of one image where a task needs to know the size.
    """
    try:
        (rows,) = export.symbolic_shape("b")
        data, batch = _serialised(program, rows), "any"
    except (TypeError, ValueError) as error:  # a task of one's own that asks for the length of a batch
        logger.warning("StableHLO: one image at a time, since a batch of any size fails: %s", cut(str(error), 300))
        data, batch = _serialised(program, 1), 1
    file.write_bytes(data)
    until = datetime.datetime.now(datetime.UTC).date() + READABLE
    return {"batch": batch, "platforms": PLATFORMS, "readable_until": until.isoformat()}


def _serialised(program: Program, rows: Any) -> bytearray:
    def run(*inputs: jax.Array) -> dict[str, jax.Array]:
        """The program, in which XLA computes nothing of the constants beforehand: so it rounds as the model does."""
        return program.run(jax.lax.optimization_barrier(program.variables), *inputs)

    shapes = [jax.ShapeDtypeStruct((rows, *each.shape), each.dtype) for each in program.inputs.values()]
    return export.export(jax.jit(run), platforms=PLATFORMS)(*shapes).serialize()
