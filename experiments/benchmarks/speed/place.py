"""Place of a measurement: the machine, and the versions of what was measured."""

import shutil
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from experiments.benchmarks import peers
from jaxvision.machine import limits

OURS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "onnxruntime", "jax2onnx")
THEIRS = ("torch", "torchvision", "transformers", "timm", "pycocotools", "faster-coco-eval", "hotcoco", "grain")

NUMBERS = {"cpu family": "family", "model": "model"}
"""Fields of /proc/cpuinfo that tell processors of one name apart, and what they are called here."""


def place() -> str:
    """Processor, cores, GPUs, and versions of both environments."""
    return "; ".join(filter(None, (f"{processor()}, {limits.cores()} cores", gpus(), versions())))


def processor(cpuinfo: str | None = None) -> str:
    """Name, family, model and widest vectors of the processor, as Linux tells them: one name stands for many processors.

    Args:
      cpuinfo: the text of /proc/cpuinfo; it is read if None.
    """
    text = cpuinfo if cpuinfo is not None else Path("/proc/cpuinfo").read_text(encoding="utf-8")
    pairs = [line.partition(":") for line in text.splitlines()]
    fields = {name.strip(): value.strip() for name, _, value in reversed(pairs)}  # those of the first core
    flags = fields.get("flags", "").split()
    vectors = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    numbers = ", ".join(f"{short} {fields[name]}" for name, short in NUMBERS.items() if name in fields)
    more = ", ".join(filter(None, (numbers, vectors)))
    return fields.get("model name", "CPU") + (f" ({more})" if more else "")


def gpus() -> str:
    """The names of the GPUs."""
    if shutil.which("nvidia-smi") is None:
        return ""
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return ", ".join(subprocess.run(asked, capture_output=True, text=True).stdout.splitlines())


def versions() -> str:
    """Versions of ours, and of the peers where they are installed."""
    here = {each.name.lower(): each.version for each in metadata.distributions()}
    return f"{named(here, OURS)}; {named(peers.versions() or here, THEIRS)}"


def named(found: dict[str, str], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {found[name]}" for name in names if name in found)
