"""What devices exchange in a training step, read from the compiled program, and how much of a model is gathered at once."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from experiments.benchmarks.speed.contest import ROOT
from experiments.benchmarks.speed.table import Figure

HERE = "experiments.benchmarks.speed"
NETWORKS = ("resnet50", "vit_large", "detr")


def rows(small: bool) -> Iterator[Callable[[], list[Figure]]]:
    """Bytes all-reduced by plain data parallelism, then what `fsdp` gathers, on eight simulated devices."""
    for name in NETWORKS:
        yield partial(figures, name, small)


def figures(name: str, small: bool) -> list[Figure]:
    """What a network's step exchanges and holds, with whole parameters and with split ones."""
    plain, split = (program(name, small, fsdp) for fsdp in (1, 8))
    size = 4 * plain["parameters"]
    at_once, largest = split["gathered at once"], split["largest"]
    return [
        Figure(f"{name}: gradients all-reduced, by parameters x 4 bytes", plain["gradients"] / size, "", 1.0, 1.0),
        Figure(f"{name}: whatever else is all-reduced", plain["others"] / 1e6, "MB"),
        Figure(f"{name}, fsdp: parameters gathered, by parameters x 4 bytes", split["gathered"] / size, "", most=2.0),
        Figure(f"{name}, fsdp: most that is gathered at once, by the model", at_once / size, "", most=0.5),
        Figure(f"{name}, fsdp: most that is gathered at once, by the largest parameter", at_once / largest, ""),
        Figure(f"{name}, fsdp: state on a device, by the whole", split["state"] / plain["state"], ""),
        Figure(f"{name}: memory of a device beside the state", plain["temporary"] / 1e6, "MB"),
        Figure(f"{name}, fsdp: memory of a device beside the state", split["temporary"] / 1e6, "MB"),
    ]


def program(name: str, small: bool, fsdp: int, *more: str) -> Mapping[str, float]:
    """Facts of the step of a network, compiled in a process of its own for eight simulated devices; `more` are flags."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    command = [sys.executable, "-m", f"{HERE}.exchange_program", name, f"--fsdp={fsdp}", *more]
    command += ["--small"] if small else []
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{name}: {ended.stderr.strip()[-2000:]}")
    return json.loads(ended.stdout.splitlines()[-1])
