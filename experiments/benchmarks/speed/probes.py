"""Probes of the machine: what a matrix product and a copy in memory reach, in the same run as the benchmarks."""

import numpy as np

from experiments.benchmarks.speed.contest import Contest, Side, Told, Work, hold

SIDE = 2048
GIGAFLOP = 2 * SIDE**3 / 1e9
COPIED = 1 << 28
"""Bytes that are copied: read once and written once."""
NAMES = {"gemm": "matrix product, float32", "copy": "copy in memory"}


def gemm() -> Work:
    """A product of two matrices of 2,048 rows."""
    first, second, out = (np.ones((SIDE, SIDE), np.float32) for _ in range(3))

    def run(units: int) -> None:
        for _ in range(units):
            np.matmul(first, second, out=out)

    return Work(run)


def copy() -> Work:
    """A copy of 256 MB."""
    given, out = np.ones(COPIED, np.uint8), np.empty(COPIED, np.uint8)

    def run(units: int) -> None:
        for _ in range(units):
            np.copyto(out, given)

    return Work(run)


def contest(name: str, cores: int | None) -> Contest:
    """The contest with one side that measures a probe."""
    side = Side(name, f"{__name__}:{name}")
    return Contest(NAMES[name], (side,), units=4, blocks=5, cores=cores)


def machine(cores: int | None) -> tuple[float, float]:
    """GFLOP/s of a matrix product and GB/s of a copy, each the best block: what else runs only slows them down."""
    told = {name: hold(contest(name, cores))[name] for name in NAMES}
    best = {name: min(block.seconds for block in each.blocks) for name, each in told.items() if isinstance(each, Told)}
    return GIGAFLOP / best["gemm"], 2 * COPIED / 1e9 / best["copy"]
