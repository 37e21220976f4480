"""Eigen computes the convolutions of XLA on a CPU with AVX2 and without AVX-512, in place of YNNPACK.

XLA gives convolutions to YNNPACK where that can compute them. Measured on an AMD EPYC of family 23, two cores, float32
(`experiments/benchmarks/RESULTS.md`): the gradient of a 3x3 kernel of 64 channels takes 8 to 15 times as long (jaxlib 0.10
and 0.11), such a convolution one core alone (0.10.2); a training step of ResNet-18 takes 1.7 times as long, one of SSD300
1.2 times. XLA reads its flags once, when a process first computes.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path

VARIABLE, FLAG = "XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type"
WITHOUT_CONVOLUTIONS = f"{FLAG}=-individual_convolution"
OURS = "JAXVISION_ADDED_XLA_FLAG"
"""The variable that says that the flag was added here: a process on another machine, started by this one, chooses anew."""
VERSIONS = ((0, 10), (0, 11))
"""Those of jaxlib on which the flag was tried: XLA ends the process for a flag that it does not know."""
PROCESSOR = Path("/proc/cpuinfo")


def ask() -> None:
    """Chooses Eigen for this process where that is known to be faster, unless a flag says otherwise or XLA has read them."""
    if _flags_are_read():
        return
    chosen = with_eigen(without_eigen(os.environ))
    for name in (VARIABLE, OURS):
        if name in chosen:
            os.environ[name] = chosen[name]
        else:
            os.environ.pop(name, None)


def with_eigen(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which Eigen convolves; as it is where that is decided, or not known to be faster."""
    flags, platforms = environment.get(VARIABLE, "").strip(), environment.get("JAX_PLATFORMS", "")
    names_a_file = flags and not flags.startswith("-")
    decided = FLAG in flags or names_a_file or (platforms and "cpu" not in platforms.split(","))
    if decided or not _has_avx2_alone() or _version() not in VERSIONS:
        return dict(environment)
    return {**environment, VARIABLE: f"{flags} {WITHOUT_CONVOLUTIONS}".strip(), OURS: "1"}


def without_eigen(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment as it was before `ask`."""
    before = dict(environment)
    if before.pop(OURS, None) and VARIABLE in before:
        before[VARIABLE] = before[VARIABLE].replace(WITHOUT_CONVOLUTIONS, "").strip()
        if not before[VARIABLE]:
            del before[VARIABLE]
    return before


def convolves() -> bool:
    """Whether the flags say that Eigen convolves: those that XLA read, if they were set before it computed."""
    found = [flag for flag in os.environ.get(VARIABLE, "").split() if flag.partition("=")[0] == FLAG]
    return bool(found) and found[-1] in (WITHOUT_CONVOLUTIONS, f"{FLAG}=")


def _has_avx2_alone() -> bool:
    """Whether the CPU has AVX2 and no AVX-512; False where nothing says so."""
    with suppress(OSError), PROCESSOR.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
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
