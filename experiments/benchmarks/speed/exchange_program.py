"""Facts of a training step that is compiled for the devices there are, as JSON.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m experiments.benchmarks.speed.exchange_program resnet50

The step is that of the experiment: ResNet-50 and ViT-L on 224 pixels, DETR on 800 x 1,333, one image a device. It is compiled
for float32 and not run.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from math import prod
from typing import Any

import jax
import optax

from jaxvision.data.loading import spec
from jaxvision.data.target import LABELS, TargetForm, objects
from jaxvision.experiment import Experiment
from jaxvision.nn.resnet import resnet50
from jaxvision.nn.vit import vit_large
from jaxvision.run import devices
from jaxvision.tasks.classification import classification
from jaxvision.tasks.detr import detr, detr_resnet50
from jaxvision.types import About, Batch, Stream, Task

GATHERED = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\S+) all-gather\(")
EXCHANGE = re.compile(r" (?:all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = ")
OPERAND = re.compile(r"%([\w.-]+)")
OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
"""Options of the compiler: loops stay as they are, and instructions stand where they take least memory, as on a GPU."""
SAME_BYTES = re.compile(r" (?:bitcast|copy|get-tuple-element|opt-barrier|tuple)\(")
"""Instructions whose result may be what they are given."""


def images(canvas: tuple[int, int], target: TargetForm = LABELS) -> Batch:
    """One image for each device."""
    return spec(jax.device_count(), canvas, 3, target)


def networks(small: bool) -> dict[str, Callable[[], tuple[Task, optax.GradientTransformation, Batch]]]:
    """Task, optimizer and batch of each network; small ones have few layers and small images."""
    side = (32, 32) if small else (224, 224)
    vit = {"depth": 2} if small else {}
    layers: dict[str, Any] = {"encoder_layers": 1, "decoder_layers": 1} if small else {}
    canvas = (64, 64) if small else (800, 1333)
    sgd = optax.sgd(0.1, momentum=0.9, nesterov=True)
    return {
        "resnet50": lambda: (classification(resnet50(1000)), sgd, images(side)),
        "vit_large": lambda: (classification(vit_large(1000, **vit)), optax.adamw(1e-3), images(side)),
        "detr": lambda: (detr(detr_resnet50(91, **layers)), optax.adamw(1e-4), images(canvas, objects(100))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Tell what the devices exchange in a step.")
    parser.add_argument("name", choices=networks(False))
    parser.add_argument("--fsdp", type=int, default=1)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--lowered", action="store_true", help="do not compile: tell nothing of what is exchanged")
    flags = parser.parse_args()
    task, optimizer, batch = networks(flags.small)[flags.name]()
    experiment = Experiment(task, optimizer, 1, Stream(batch, lambda *_: iter(()), lambda: About(0, (), str, "")))
    mesh = devices.device_mesh(flags.fsdp)
    step, like = devices.step_on(mesh, experiment)
    lowered = step.lower(like, devices.batch_on(mesh, batch))
    told = of_lowered(lowered, like) if flags.lowered else facts(lowered.compile(OPTIONS), like)
    json.dump(told, sys.stdout)


def of_lowered(lowered, like) -> dict[str, float]:
    """What is known of the step before it is compiled: parameters, the state of a device, arithmetic of a device."""
    arrays = [x for x in jax.tree.leaves(like) if not jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)]
    return {
        "parameters": sum(prod(each.shape) for each in jax.tree.leaves(like.params)),
        "state": sum(prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in arrays),
        "flop": lowered.cost_analysis()["flops"] / jax.device_count(),
    }


def facts(compiled, like) -> dict[str, float]:
    """What is exchanged and held in one call, in bytes, and the number of parameters."""
    text, memory, cost = compiled.as_text(), compiled.memory_analysis(), compiled.cost_analysis()
    exchanged = devices.collectives(text)
    sizes = [prod(each.shape) for each in jax.tree.leaves(like.params)]
    gradients, others = 0, 0
    left = list(sizes)
    for each in (each for each in exchanged if each.kind in ("all-reduce", "reduce-scatter")):
        if each.shape and prod(each.shape) in left:  # a gradient may be summed in another shape of as many numbers
            left.remove(prod(each.shape))
            gradients += each.bytes
        else:
            others += each.bytes
    return {
        "parameters": sum(sizes),
        "largest": 4 * max(sizes),
        "gradients": gradients,
        "others": others,
        "gathered": sum(each.bytes for each in exchanged if each.kind == "all-gather"),
        "gathered at once": gathered_at_once(text),
        "exchanges": len(EXCHANGE.findall(text)),
        "flop": cost["flops"],
        "moved": cost["bytes accessed"],
        "state": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
    }


def gathered_at_once(program: str) -> int:
    """The most bytes of results of all-gathers that are held at once, in the order that the program is scheduled in."""
    lines = program[program.index("\nENTRY ") :].splitlines()[2:]
    holds: dict[str, set[str]] = {}
    size: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, line in enumerate(lines):
        if (named := INSTRUCTION.match(line)) is None:
            continue
        used = set().union(*(holds.get(name, set()) for name in OPERAND.findall(line)[1:]))
        for name in used:
            last[name] = number
        if GATHERED.match(line):
            size[named[1]] = sum(each.bytes for each in devices.collectives(line))
            last[named[1]] = number
            holds[named[1]] = {named[1]}
        elif SAME_BYTES.search(line):
            holds[named[1]] = used
    most = now = 0
    ends: dict[int, list[str]] = {}
    for name, number in last.items():
        ends.setdefault(number, []).append(name)
    for number, line in enumerate(lines):
        named = INSTRUCTION.match(line)
        if named and named[1] in size:
            now += size[named[1]]
        most = max(most, now)
        now -= sum(size[name] for name in ends.get(number, []))
    return most


if __name__ == "__main__":
    main()
