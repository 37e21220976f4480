"""What remedies for class imbalance are worth: each on a long-tailed Fashion-MNIST sample, with the same three seeds.

    python experiments/benchmarks/imbalance.py --workdir=runs/imbalance

A run of `experiments/imbalanced_fashion_mnist.py` a remedy and seed, in `<workdir>/<remedy>-<seed>`: thirty, of about a
minute each on two busy CPU cores. Finished ones are kept, so the same command goes on where it stopped. `--remedies=a,b`
and `--seeds=0,1` make fewer; `none` is always among them. `--config.FIELD=VALUE` is for every run. Prints tables; results
are in RESULTS.md beside this file.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np

from jaxvision.commands import split_overrides
from jaxvision.data.idx import FASHION_MNIST
from jaxvision.run import provenance
from jaxvision.run.config import as_json, configure, load

EXPERIMENT = Path(__file__).parent.parent / "imbalanced_fashion_mnist.py"
RAREST = 3
BASE = "none"

Runs = Mapping[str, Sequence[Mapping[str, float]]]
"""The last metrics of each remedy, a row a seed."""


def main(argv: Sequence[str] | None = None) -> None:
    module = load(EXPERIMENT)
    known = list(module.remedies(np.ones(len(FASHION_MNIST)), seed=0))
    parser = argparse.ArgumentParser(description="Compare remedies for class imbalance.")
    parser.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="the folder of the runs")
    parser.add_argument("--remedies", default=",".join(known), help="separated by commas")
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    fields, rest = split_overrides(list(sys.argv[1:] if argv is None else argv), parser.error)
    flags = parser.parse_args(rest)
    remedies = list(dict.fromkeys([BASE, *flags.remedies.split(",")]))
    if unknown := set(remedies) - set(known):
        parser.error(f"no remedy {', '.join(sorted(unknown))}; allowed are {', '.join(known)}")
    runs: dict[str, list] = {remedy: [] for remedy in remedies}
    for seed in flags.seeds.split(","):
        for remedy in remedies:
            asked = {"remedy": remedy, "seed": seed, **fields}
            runs[remedy].append(metrics(flags.workdir / f"{remedy}-{seed}", asked))
    print(report(runs))


def metrics(workdir: Path, asked: Mapping[str, str]) -> dict[str, float]:
    """The last metrics of the run with these values of its config; it is trained first if it is not finished."""
    if (found := finished(workdir, asked)) is None:
        given = [f"--config.{name}={value}" for name, value in asked.items()]
        command = [sys.executable, "-m", "jaxvision.main", f"--config={EXPERIMENT}", f"--workdir={workdir}", *given]
        if status := subprocess.run(command).returncode:
            sys.exit(status)
        found = finished(workdir, asked)
        assert found is not None, f"{workdir} ended without metrics"
    rarest = np.mean([found[f"test/recall/{name}"] for name in FASHION_MNIST[-RAREST:]])
    return {**found, "test/rarest": float(rarest)}


def finished(workdir: Path, asked: Mapping[str, str]) -> dict[str, float] | None:
    """The last metrics of a run; None unless it has come to its last step. Ends the program for another run's workdir."""
    files = workdir / "config.json", workdir / "metrics.jsonl"
    if not all(file.is_file() for file in files):
        return None
    config, rows = json.loads(files[0].read_text()), [json.loads(line) for line in files[1].read_text().splitlines()]
    wanted = as_json(configure(load(EXPERIMENT).get_config(), asked))
    wanted["precision"] = config["precision"] if wanted["precision"] == "auto" else wanted["precision"]
    if config != wanted:
        other = sorted(name for name in wanted if config.get(name) != wanted[name])
        sys.exit(f"{workdir} holds a run with another {', '.join(other)}: name another --workdir")
    last = [row for row in rows if row["step"] == config["steps"] and "test/accuracy" in row]
    return last[-1] if last else None


def report(runs: Runs) -> str:
    """Where, and the tables; the remedy with the best balanced accuracy first."""
    here, versions = provenance.machine(), provenance.versions()
    names = ", ".join(f"{name} {versions[name]}" for name in ("jax", "jaxlib", "flax", "optax", "python"))
    ranked = sorted(runs, key=lambda remedy: -np.mean(of(runs, remedy, "balanced_accuracy")))
    return "\n\n".join(
        [
            f"{date.today()}, {here['processor']}, {here['cores']} cores, {here['backend']}; {names}; "
            f"{len(runs[BASE])} seeds; per cent, mean ± standard deviation over the seeds",
            summary(runs, ranked),
            by_class(runs, ranked, "recall"),
            by_class(runs, ranked, "f1"),
        ]
    )


def summary(runs: Runs, ranked: Sequence[str]) -> str:
    """A row a remedy; differences of balanced accuracy are paired by seed."""
    columns = ("balanced_accuracy", "accuracy", "f1_macro", "rarest")

    def row(remedy: str) -> list[str]:
        scores, *others = (of(runs, each, "balanced_accuracy") for each in (remedy, BASE, ranked[0]))
        return [
            *(spread(of(runs, remedy, column)) for column in columns),
            *(difference(scores, each) for each in others),
        ]

    titles = ["balanced accuracy", "accuracy", "macro F1", f"recall of the rarest {RAREST}"]
    head = ["remedy", *titles, f"minus {BASE} (± standard error)", f"minus {ranked[0]}"]
    return table(head, [[remedy, *row(remedy)] for remedy in ranked])


def by_class(runs: Runs, ranked: Sequence[str], metric: str) -> str:
    """A row a remedy, a column a class."""
    return table(
        [metric, *FASHION_MNIST],
        [[remedy, *(spread(of(runs, remedy, f"{metric}/{name}")) for name in FASHION_MNIST)] for remedy in ranked],
    )


def of(runs: Runs, remedy: str, metric: str) -> np.ndarray:
    """The metric of each seed, in per cent."""
    return 100 * np.asarray([run[f"test/{metric}"] for run in runs[remedy]])


def spread(percent: np.ndarray) -> str:
    """Mean and standard deviation."""
    return f"{percent.mean():.1f}" + (f" ± {percent.std(ddof=1):.1f}" if len(percent) > 1 else "")


def difference(percent: np.ndarray, base: np.ndarray) -> str:
    """Mean and standard error of paired differences."""
    points = percent - base
    return f"{points.mean():+.1f}" + (f" ± {points.std(ddof=1) / len(points) ** 0.5:.1f}" if len(points) > 1 else "")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


if __name__ == "__main__":
    main()
