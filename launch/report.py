"""Writes the report of a sweep, an ablation or a search: report.md, .tex, .csv, .json and .html, in its folder.

python -m launch.report sweeps/quickstart [--figure=test/accuracy] [--better=lower]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from jaxvision import commands
from jaxvision.errors import ConfigError

MOST_CURVES = 10
"""Trials of a search whose curves are drawn, the best ones."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = commands.new_parser("report", "Write the report of a sweep, ablation or search.", package="launch")
    parser.add_argument("folder", type=commands.expanded, metavar="DIR", help="the folder of the plan and its runs")
    parser.add_argument("--figure", help="the figure to report, where the plan has none that decides")
    parser.add_argument("--better", choices=("higher", "lower"), default="higher", help="of --figure (higher)")
    parser.add_argument(
        "--draws", type=int, default=1000, metavar="N", help="resampled test sets (1000); 0 leaves it out"
    )
    flags = commands.flags_of(parser, argv)
    return commands.status_of(lambda: start(flags), flags.traceback)


def start(flags: argparse.Namespace) -> int:
    """Writes the report and prints its table."""
    from launch import plan
    from launch.plan import Deciding

    planned = plan.read(flags.folder)
    if planned.deciding is not None and flags.figure not in (None, planned.deciding.figure):
        raise ConfigError(
            f"--figure={flags.figure}: the plan decides by {planned.deciding.figure}, fixed before the first run; the other "
            "figures are in the report without verdict"
        )
    deciding = planned.deciding or (Deciding(flags.figure, flags.better) if flags.figure else None)
    if deciding is None:
        raise ConfigError("the plan has no figure that decides; --figure=NAME says which to report")
    print(write(planned, flags.folder, deciding, flags.draws), end="")
    return 0


def write(planned, folder: Path, deciding, draws: int) -> str:
    """Writes the report in all its forms; returns the Markdown."""
    from jaxvision.errors import write_atomically
    from launch import charts, comparison, description, pages, results, state

    found = results.collect(planned, folder)
    compared = comparison.compare(planned, found, deciding, compute_of(planned, deciding, draws), draws)
    notes = description.notes(folder)
    curves = found
    if notes:
        compared = comparison.ranked(compared, deciding)
        best = {each.variant for each in compared[:MOST_CURVES]}
        curves = [result for result in found if result.member.variant in best]
    if planned.baseline is None and (chosen := comparison.best(compared, deciding)) is not None:
        notes.append(f"Best: {chosen[0].variant}, {chosen[1]}.")
    counts = state.table(state.states(planned, folder)).rpartition("\n")[2]
    notes.append(f"{counts}.")
    drawn = [
        ("Differences to the baseline", charts.forest(compared, deciding)),
        (f"{deciding.figure} over the steps", charts.curves(curves, deciding)),
        ("Fields and figure of each run", charts.parallel(found, deciding)),
    ]
    elements = [
        (caption, charts.svg(figure, f"chart{n}")) for n, (caption, figure) in enumerate(drawn) if figure is not None
    ]
    title = f"{planned.experiment.stem}: {folder.name}"
    fields = results.fields_of_variants(found) if planned.baseline is None else {}
    report = pages.Report(title, deciding, compared, notes, elements, fields)
    text = pages.markdown(report)
    forms = {"md": text, "tex": pages.latex(report), "csv": pages.as_csv(report), "json": pages.as_json(report)}
    for ending, form in {**forms, "html": pages.page(report)}.items():
        write_atomically(folder / f"report.{ending}", form)
    return text


def compute_of(planned, deciding, draws: int):
    """`compute` of the metric that the deciding figure is of, from the experiment; None if no test sets are resampled."""
    from jaxvision.run import config

    if not draws or not planned.members:
        return None
    experiment = config.build(planned.experiment, planned.members[0].overrides).experiment
    evaluation = experiment.evaluations.get(deciding.figure.partition("/")[0])
    return None if evaluation is None else evaluation.metric.compute


if __name__ == "__main__":
    commands.enter(main)
