"""Benchmarks beside named peers, one after another: which is faster, by how much, beside a matrix product and a copy.

    python -m experiments.benchmarks.peers
    python -m experiments.benchmarks.run nms roi_align --output=experiments/benchmarks/RESULTS.md

Without names it runs all; `--list` names them. The first command makes the environment of the peers, once; a peer that is
missing is told. Sides take turns, block by block, after a warm-up and after their outcomes were found to agree; each is a
process of its own. `--small` tries everything at tiny sizes in a minute or two: its times say nothing. `--output` appends to
a file, `--readme` puts the table of what RESULTS.md holds into the README. Nothing else should run on the machine. What
needs a GPU is in `experiments.benchmarks.gpu`.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from experiments.benchmarks import peers
from experiments.benchmarks.speed import probes, table
from experiments.benchmarks.speed.contest import ROOT, Contest, hold
from experiments.benchmarks.speed.place import place

BENCHMARKS = {
    "augmentation": "experiments.benchmarks.speed.augmentation",
    "checkpoint": "experiments.benchmarks.speed.checkpoint",
    "coco_eval": "experiments.benchmarks.speed.coco_eval",
    "end_to_end": "experiments.benchmarks.speed.end_to_end",
    "exchange": "experiments.benchmarks.speed.exchange",
    "fit": "experiments.benchmarks.speed.fit",
    "inference": "experiments.benchmarks.speed.inference",
    "loader": "experiments.benchmarks.speed.loader",
    "masks": "experiments.benchmarks.speed.masks",
    "nms": "experiments.benchmarks.speed.nms",
    "roi_align": "experiments.benchmarks.speed.roi_align",
    "start": "experiments.benchmarks.speed.start",
    "training": "experiments.benchmarks.speed.training",
}
"""Modules by the name of their benchmark; each has `rows(small)`: contests, figures, functions that compute such."""
BEGIN, END = "<!-- speed: made by python -m experiments.benchmarks.run --readme -->", "<!-- /speed -->"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure jaxvision beside its peers.", allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks (all)")
    parser.add_argument("--list", action="store_true", help="name the benchmarks")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try whether all runs")
    parser.add_argument(
        "--row", default="", metavar="TEXT", help="only the contests whose names have this text in them"
    )
    parser.add_argument("--cores", type=int, metavar="N", help="cores for every contest that states none (all)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="append the results to this file")
    parser.add_argument("--readme", action="store_true", help="only make the README's table anew, from RESULTS.md")
    flags = parser.parse_args(argv)
    if flags.names and (flags.list or flags.readme):
        parser.error("--list and --readme take no names")
    if flags.list:
        print("\n".join(BENCHMARKS))
        return 0
    if flags.readme:
        readme = ROOT / "README.md"
        write_readme(readme, Path(__file__).with_name("RESULTS.md"))
        print(f"the table of speed in {readme} is that of RESULTS.md")
        return 0
    if flags.small and flags.output:
        parser.error("--small says nothing of times: its rows don't go to a file (--output)")
    for name in flags.names:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    most = len(os.sched_getaffinity(0))
    if flags.cores is not None and not 1 <= flags.cores <= most:
        parser.error(f"--cores={flags.cores}: there are 1 to {most}")
    if flags.output and not flags.output.absolute().parent.is_dir():
        parser.error(f"--output={flags.output}: there is no folder {flags.output.parent}")
    every = {name: rows_of(name, flags.small) for name in flags.names or BENCHMARKS}
    chosen = {name: [each for each in rows if named(each, flags.row)] for name, rows in every.items()}
    if not any(chosen.values()):
        names = [each.name for rows in every.values() for each in rows if isinstance(each, Contest)]
        parser.error(f"no contest has {flags.row!r} in its name; there are {'; '.join(names)}")
    if not peers.python().exists():
        make = "python -m experiments.benchmarks.peers"
        print(
            f"no environment of the peers: what this one lacks of them will be missing; `{make}` makes it",
            file=sys.stderr,
        )
    for name, rows in chosen.items():
        if not rows:
            continue
        told = "\n".join(section(name, rows, flags.small, flags.cores, flags.row))
        print(told, flush=True)
        if flags.output:
            with flags.output.open("a", encoding="utf-8") as file:
                file.write(f"\n{told}\n")
    return 0


def rows_of(name: str, small: bool) -> list[Any]:
    """Contests, figures, and functions that compute such, of a benchmark."""
    return list(importlib.import_module(BENCHMARKS[name]).rows(small))


def named(each: Any, row: str) -> bool:
    """Whether a row has this text in its name; every row has no text."""
    return not row or (isinstance(each, Contest) and row in each.name)


def section(name: str, given: Iterable[Any], small: bool, cores: int | None, row: str = "") -> Iterable[str]:
    """A section of RESULTS.md, of these rows of the benchmark; `row` is the text that they were chosen by."""
    load = os.getloadavg()[0]
    machine = probes.machine(cores)
    rows, figures, turns = [], [], set()
    for each in given:
        if isinstance(each, Contest):
            each = each if each.cores is not None else each._replace(cores=cores)
            found = list(table.lines(each, hold(each), machine))
            rows += found
            turns.add(each.blocks)
        else:
            found = list(map(table.figure, [each] if isinstance(each, table.Figure) else each()))
            figures += found
        print("\n".join(found), file=sys.stderr, flush=True)  # the whole comes much later
    yield f"## Benchmark: {name}"
    yield ""
    more = f"{' --small' if small else ''}{f' --cores={cores}' if cores else ''}{f' --row={row!r}' if row else ''}"
    yield f"`python -m experiments.benchmarks.run {name}{more}`, {date.today()}, {place()}."
    rates = f"a matrix product of NumPy reached {machine[0]:.0f} GFLOP/s, a copy in memory {machine[1]:.1f} GB/s"
    yield f"In that run {rates}; the machine's load before it was {load:.1f}."
    if rows:
        blocks = " or ".join(map(str, sorted(turns)))
        yield f"Medians of {blocks} blocks, in turns, and their quartiles."
        yield from ("", table.HEAD, table.RULE, *rows)
    if figures:
        yield from ("", *figures)


def write_readme(readme: Path, results: Path) -> None:
    """Puts the newest rows of RESULTS.md between the marks in the README."""
    text = readme.read_text(encoding="utf-8")
    before, found, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    if not found or END not in rest:
        raise SystemExit(f"{readme}: there is no {BEGIN} with {END} after it")
    lines = table.speed(table.read(results.read_text(encoding="utf-8")))
    readme.write_text("\n".join([before + BEGIN, *lines, END + after]), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
