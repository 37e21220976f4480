"""Eight runs in one process, `launch.sweep --together=auto`, against eight commands one after another.

    python experiments/benchmarks/together.py [mlp] [cnn] [vit] [quickstart]

The runs differ in their seeds. Both ways take turns in going first, each with an empty cache of compiled programs, and
both write all that a run writes; start-up, tracing and measuring count. Prints a row of a table a network, with the wall
time and, since other processes may share the machine, the processor time; results are in RESULTS.md beside this file.
Takes about an hour on two CPU cores.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import NamedTuple

from jaxvision.run import provenance

HERE = Path(__file__).parent
NETWORKS = HERE / "together_networks.py"
MEMBERS = 8
REPETITIONS = int(os.environ.get("REPETITIONS", "3"))


class Case(NamedTuple):
    """An experiment whose seeds are swept."""

    experiment: Path
    fields: tuple[str, ...]
    rate: float = 2e-3
    """Learning rate, that of the file: a sweep needs a field."""


CASES = {
    "mlp": Case(NETWORKS, ("network=mlp", "steps=2000")),
    "cnn": Case(NETWORKS, ("network=cnn", "steps=1000")),
    "vit": Case(NETWORKS, ("network=vit", "steps=1000")),
    "quickstart": Case(HERE.parent / "quickstart.py", ("epochs=1",), 6e-3),
}


class Took(NamedTuple):
    """Seconds of a way to run the members."""

    wall: float
    processor: float


def one_by_one(case: Case, folder: Path) -> None:
    for seed in range(MEMBERS):
        workdir = f"--workdir={folder / str(seed)}"
        call("jaxvision.main", case, folder, workdir, f"--config.seed={seed}", "--no-report")


def together(case: Case, folder: Path) -> None:
    seeds, rate = f"--seeds={','.join(map(str, range(MEMBERS)))}", f"--sweep.learning_rate={case.rate}"
    call("launch.sweep", case, folder, f"--workdir={folder}", rate, seeds, "--together=auto")


def call(module: str, case: Case, folder: Path, *flags: str) -> None:
    command = [sys.executable, "-m", module, f"--config={case.experiment}", *flags]
    fields = [f"--config.{field}" for field in case.fields]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    done = subprocess.run([*command, *fields], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")


def timed(way, case: Case) -> tuple[Took, str]:
    """The time that a way takes, and what `auto` has chosen if it was that."""
    with tempfile.TemporaryDirectory() as folder:
        before, began = os.times(), time.perf_counter()
        way(case, Path(folder))
        wall, after = time.perf_counter() - began, os.times()
        used = sum(after[2:4]) - sum(before[2:4])
        chosen = Path(folder) / "together.json"
        told = json.loads(chosen.read_text())["families"][0]["way"] if chosen.exists() else ""
    return Took(wall, used), told


def measure(name: str) -> str:
    """A row of the table."""
    pairs, told = [], ""
    for turn in range(REPETITIONS):
        found = {}
        for way in (one_by_one, together) if turn % 2 else (together, one_by_one):
            found[way], said = timed(way, CASES[name])
            told = said or told
        pairs.append((found[one_by_one], found[together]))
        print(f"{name}: {pairs[-1]}", flush=True)
    wall, used = (
        [getattr(alone, each) / getattr(joined, each) for alone, joined in pairs] for each in ("wall", "processor")
    )
    seconds = [statistics.median(each.wall for each in column) for column in zip(*pairs, strict=True)]
    return (
        f"| {name} | {seconds[0]:.0f} s | {seconds[1]:.0f} s | {statistics.median(wall):.2f} "
        f"({min(wall):.2f} to {max(wall):.2f}) | {statistics.median(used):.2f} | {told} | {REPETITIONS} |"
    )


def main() -> None:
    rows = [measure(name) for name in sys.argv[1:] or CASES]
    here, versions = provenance.machine(), provenance.versions()
    print(f"\n{date.today()}, {here['processor']}, {here['cores']} cores, {here['backend']}", end="; ")
    print(", ".join(f"{name} {versions[name]}" for name in ("jax", "jaxlib", "flax", "optax", "python")) + "\n")
    print("| 8 runs | one by one | `auto` | ratio of wall time | of processor time | chosen | pairs |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
