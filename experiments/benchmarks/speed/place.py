"""Place of a measurement: the machine, and the versions of what was measured."""

import shutil
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from experiments.benchmarks import peers
from jaxvision.machine import limits

OURS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
THEIRS = ("torch", "torchvision", "transformers", "timm", "pycocotools", "faster-coco-eval", "hotcoco", "grain")


def place() -> str:
    """Processor, cores, GPUs, and versions of both environments."""
    return "; ".join(filter(None, (f"{processor()}, {limits.cores()} cores", gpus(), versions())))


def processor() -> str:
    """The name of the processor, as Linux tells it."""
    told = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in told if line.startswith("model name")), "CPU")


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
