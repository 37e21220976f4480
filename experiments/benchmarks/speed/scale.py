"""Tables of SCALE.md: compiled programs of eight simulated devices, and arithmetic for more.

    python -m experiments.benchmarks.speed.scale --programs=programs.json

Puts its tables between the marks in `experiments/benchmarks/SCALE.md`. What is read from the programs is kept in the file of
`--programs`: a program that it has is not compiled again. All six take some minutes.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.benchmarks.speed.contest import ROOT
from experiments.benchmarks.speed.exchange import NETWORKS, program

FILE = ROOT / "experiments" / "benchmarks" / "SCALE.md"
BEGIN, END = "<!-- scale: made by python -m experiments.benchmarks.speed.scale -->", "<!-- /scale -->"
DEVICES = (8, 256, 4096)
Facts = Mapping[str, float]
"""What `exchange_program` tells of a compiled step."""


class Machine(NamedTuple):
    """What is assumed of hosts: eight H200, each with a network card of its own."""

    devices: int = 8
    """Devices of a host."""
    flops: float = 989e12
    """Arithmetic a second and device, bfloat16, at the peak."""
    inside: float = 450e9
    """Bytes a second that a device sends to others of its host, and gets meanwhile."""
    between: float = 50e9
    """Bytes a second and device to other hosts."""
    host_to_device: float = 50e9
    stored: float = 2e9
    """Bytes a second that a host writes to the store, or reads."""
    store: float = 100e9
    """Bytes a second that the store takes of all hosts."""
    decoded: float = 400.0
    """JPEG images of ImageNet's size that a core decodes and crops in a second.

    `run loader` measured 670 on one core of an AMD EPYC and 370 of an Intel Xeon; on a host all cores are at work.
    """
    cores: int = 96


class Load(NamedTuple):
    """What a network is trained on."""

    title: str
    batch: int
    """Images of a device."""
    pixels: int
    """Bytes of an image, uint8."""
    file: float
    """Bytes of its file."""
    decoding: float
    """Its decoding, in that of an image of ImageNet."""
    part: float
    """The part of the peak that its arithmetic is assumed to reach."""


LOADS = {
    "resnet50": Load("ResNet-50", 128, 224 * 224 * 3, 110e3, 1.0, 0.08),
    "vit_large": Load("ViT-L/16", 64, 224 * 224 * 3, 110e3, 1.0, 0.4),
    "detr": Load("DETR-R50", 4, 800 * 1333 * 3, 165e3, 3.0, 0.15),
}


class Exchanged(NamedTuple):
    """Bytes that a device sends in a step, and at least how long that takes."""

    inside: float
    between: float

    def seconds(self, machine: Machine) -> float:
        """The time, with one after the other."""
        return self.inside / machine.inside + self.between / machine.between


def whole(size: float, devices: int, machine: Machine) -> Exchanged:
    """Gradients of `size` bytes summed where all devices have all parameters.

    Each host reduces and scatters, the hosts sum their eighths in a ring, each host gathers.
    """
    local, hosts = min(machine.devices, devices), max(1, devices // machine.devices)
    return Exchanged(2 * size * (local - 1) / local, 2 * size / local * (hosts - 1) / hosts)


def split_in_host(size: float, devices: int, machine: Machine) -> Exchanged:
    """Parameters split over a host's devices: gathered twice, gradients scattered, and their eighths summed by hosts."""
    local, hosts = min(machine.devices, devices), max(1, devices // machine.devices)
    return Exchanged(3 * size * (local - 1) / local, 2 * size / local * (hosts - 1) / hosts)


def split_over_all(size: float, devices: int, machine: Machine) -> Exchanged:
    """Parameters split over all devices: two gatherings and a scattering.

    What comes from other hosts is brought in once, an eighth by each device, and passed on inside the host.
    """
    local, hosts = min(machine.devices, devices), max(1, devices // machine.devices)
    return Exchanged(3 * size * (local - 1) / local, 3 * size / local * (hosts - 1) / hosts)


WAYS = {"whole": whole, "--fsdp=8": split_in_host, "--fsdp=all": split_over_all}


def programs(file: Path, *more: str) -> dict[str, dict[str, Facts]]:
    """Facts of each network with whole parameters and with split ones; what the file lacks is compiled, `more` are flags."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name in NETWORKS:
        for fsdp in ("1", "8"):
            if fsdp not in known.setdefault(name, {}):
                print(f"compiling {name}, --fsdp={fsdp}", file=sys.stderr, flush=True)
                known[name][fsdp] = program(name, False, int(fsdp), *more)
                file.write_text(json.dumps(known, indent=1), encoding="utf-8")
    return known


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    """A table of Markdown."""
    yield from ("", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}")
    yield from (f"| {' | '.join(row)} |" for row in rows)


def compute(name: str, facts: Facts, machine: Machine) -> float:
    """Seconds that a device computes in a step."""
    return LOADS[name].batch * facts["flop"] / (LOADS[name].part * machine.flops)


def shown(facts: Facts, field: str, form: str, by: float = 1.0) -> str:
    """A fact as text; a dash where the program was not compiled."""
    return form.format(facts[field] / by) if field in facts else "-"


def read(known: Mapping[str, Mapping[str, Facts]]) -> Iterator[Sequence[str]]:
    for name, load in LOADS.items():
        plain, split = known[name]["1"], known[name]["8"]
        size = 4 * plain["parameters"]
        yield (
            load.title,
            f"{plain['parameters'] / 1e6:.1f} M",
            f"{plain['state'] / 1e6:,.0f} -> {split['state'] / 1e6:,.0f} MB",
            f"{plain['flop'] / 1e9:,.0f} GFLOP",
            shown(plain, "moved", "{:,.1f} GB", 1e9),
            shown(plain, "gradients", "{:.4f}", size),
            shown(plain, "others", "{:.2f} MB", 1e6),
            shown(plain, "exchanges", "{:,.0f}"),
            shown(split, "gathered", "{:.2f}", size),
            shown(split, "gathered at once", "{:.0%}", size),
        )


def exchange(known: Mapping[str, Mapping[str, Facts]], machine: Machine) -> Iterator[Sequence[str]]:
    for name, load in LOADS.items():
        facts = known[name]["1"]
        busy = compute(name, facts, machine)
        for way, sent in WAYS.items():
            each = [sent(4 * facts["parameters"], devices, machine) for devices in DEVICES]
            took = [one.seconds(machine) for one in each]
            yield (
                f"{load.title}, {way}",
                *(f"{one.inside / 1e6:,.0f} + {one.between / 1e6:,.0f} MB" for one in each),
                *(f"{1e3 * one:.1f} ms" for one in took),
                f"{1e3 * busy:.0f} ms",
                f"{took[-1] * load.part * machine.flops / (2 / 3 * facts['flop']):.1f}",
            )


def data(known: Mapping[str, Mapping[str, Facts]], machine: Machine) -> Iterator[Sequence[str]]:
    for name, load in LOADS.items():
        rate = load.batch / compute(name, known[name]["1"], machine)
        host = machine.devices * rate
        cores = host * load.decoding / machine.decoded
        files = host * load.file
        yield (
            load.title,
            f"{rate:,.0f}",
            f"{host:,.0f}",
            f"{files / 1e9:.2f} GB/s",
            f"{host * load.pixels / 1e9:.2f} GB/s",
            f"{cores:,.0f}",
            f"{min(1.0, machine.cores / cores):.0%}",
            f"{min(1.0, machine.stored / files):.0%}",
            *(f"{devices * rate * load.file / 1e9:,.1f} GB/s" for devices in DEVICES),
        )


def checkpoints(known: Mapping[str, Mapping[str, Facts]], machine: Machine) -> Iterator[Sequence[str]]:
    for name, load in LOADS.items():
        facts, size = known[name]["1"], known[name]["1"]["state"]
        thousand = 1000 * compute(name, facts, machine)
        copied = size / machine.host_to_device
        written = [size / min(machine.stored * max(1, n // machine.devices), machine.store) for n in DEVICES]
        yield (
            load.title,
            f"{size / 1e9:.2f} GB",
            f"{1e3 * copied:.0f} ms",
            f"{size / machine.stored:.1f} s",
            *(f"{1e3 * each:,.0f} ms" for each in written[1:]),
            f"{thousand:.0f} s",
            f"{copied / thousand:.2%}",
        )


def tables(known: Mapping[str, Mapping[str, Facts]], machine: Machine) -> Iterator[str]:
    """All tables, each with what it shows."""
    yield "**Read from the programs of eight devices**, one image each, float32; memory with `--fsdp=1` -> `--fsdp=8`."
    head = ("network", "parameters", "state on a device", "arithmetic an image", "memory moved", "gradients / (4 P)")
    more = ("else all-reduced", "collectives", "fsdp: gathered / (4 P)", "fsdp: at once")
    yield from table((*head, *more), read(known))
    yield ""
    yield "**Exchanged**: what a device sends in a step, inside its host + between hosts, and the time that takes at least."
    head = ("network, parameters", *(f"{n:,} devices" for n in DEVICES), *(f"{n:,}: time" for n in DEVICES))
    yield from table((*head, "computing", f"images a device to hide it, {DEVICES[-1]:,}"), exchange(known, machine))
    yield ""
    yield "**Input**: what must be read, decoded and sent to the devices, if nothing else binds."
    head = (
        "network",
        "images/s, device",
        "images/s, host",
        "files, host",
        "pixels to devices, host",
        "cores to decode",
    )
    binds = f"of the speed with {machine.cores} cores", f"with {machine.stored / 1e9:g} GB/s of files"
    more = (*binds, *(f"files, {n:,}" for n in DEVICES))
    yield from table((*head, *more), data(known, machine))
    yield ""
    yield "**Checkpoints**: parameters and optimizer, float32."
    head = ("network", "size", "copied to the host", "written by one process")
    more = (*(f"by all, {n:,} devices" for n in DEVICES[1:]), "1,000 steps compute", "stall at one per 1,000")
    yield from table((*head, *more), checkpoints(known, machine))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make the tables of SCALE.md anew.", allow_abbrev=False)
    parser.add_argument("--programs", type=Path, required=True, metavar="FILE", help="what the programs told")
    parser.add_argument(
        "--lowered", action="store_true", help="compile nothing that FILE lacks: no figures of exchanges"
    )
    flags = parser.parse_args(argv)
    before, found, rest = FILE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    if not found or END not in rest:
        raise SystemExit(f"{FILE}: there is no {BEGIN} with {END} after it")
    lines = [
        before + BEGIN,
        *tables(programs(flags.programs, *(["--lowered"] if flags.lowered else [])), Machine()),
        END + after,
    ]
    FILE.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
