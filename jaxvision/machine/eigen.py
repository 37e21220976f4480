"""Eigen computes the convolutions of XLA on a CPU without AVX-512, in place of YNNPACK.

XLA gives convolutions to YNNPACK where that can compute them. On a CPU with AVX2 alone the gradient of a 3x3 kernel of 64
channels then takes 8 to 15 times as long (jaxlib 0.10 and 0.11), and such a convolution one core of several (0.10.2): a
training step of ResNet-18 takes 1.7 times as long, one of SSD300 1.2 times (`experiments/benchmarks/RESULTS.md`). XLA reads
its flags once, when a process first computes.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path

VARIABLE, FLAG = "XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type"
WITHOUT_CONVOLUTIONS = f"{FLAG}=-individual_convolution"
VERSIONS = ((0, 10), (0, 11))
"""Those of jaxlib on which the flag was tried: XLA ends the process for a flag that it does not know."""
PROCESSOR = Path("/proc/cpuinfo")


def asking(environment: Mapping[str, str]) -> dict[str, str]:
    """What an environment lacks for Eigen to convolve: nothing where that is decided, or not known to be faster."""
    flags = environment.get(VARIABLE, "")
    if FLAG in flags or not _has_avx2_alone() or _version() not in VERSIONS:
        return {}
    return {VARIABLE: f"{flags} {WITHOUT_CONVOLUTIONS}".strip()}


def ask() -> None:
    """Chooses Eigen for this process and those that it starts, unless XLA has read its flags already."""
    if not _flags_are_read():
        os.environ.update(asking(os.environ))


def computes() -> bool:
    """Whether Eigen computes convolutions because it was asked to."""
    return WITHOUT_CONVOLUTIONS in os.environ.get(VARIABLE, "")


def _has_avx2_alone() -> bool:
    """Whether the CPU has AVX2 and no AVX-512; False where nothing says so."""
    with suppress(OSError):
        for line in PROCESSOR.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("flags"):
                found = line.split()
                return "avx2" in found and "avx512f" not in found
    return False


def _version() -> tuple[int, ...]:
    with suppress(metadata.PackageNotFoundError, ValueError):
        return tuple(map(int, metadata.version("jaxlib").split(".")[:2]))
    return ()


def _flags_are_read() -> bool:
    if "jax" not in sys.modules:
        return False
    with suppress(ImportError, AttributeError):
        from jax._src.xla_bridge import backends_are_initialized  # JAX has no other way to ask

        return backends_are_initialized()
    return True
