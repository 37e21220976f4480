"""Searches fields of a config with Optuna: each trial is a run; the same command goes on with what is not finished.

python -m launch.search --config=experiments/quickstart.py --workdir=sweeps/search --trials=20 --decide=test/accuracy \
    --search.learning_rate='log_uniform(1e-4, 1e-1)' --search.dropout='uniform(0.0, 0.5)'
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxvision import commands
from jaxvision.errors import ConfigError, nearest
from launch import sweep

if TYPE_CHECKING:
    from launch.description import Search

PREFIX = "--search."
SAMPLERS = ("tpe", "random", "cmaes")
PRUNERS = ("none", "median")


def parser() -> argparse.ArgumentParser:
    """The flags of a search."""
    flags = commands.new_parser(
        "search",
        "Search config fields for the best figure; the same command goes on.",
        "--search.FIELD='log_uniform(1e-4, 1e-1)', 'uniform(0.0, 0.5)' or VALUE,VALUE says what a field may be (as often as "
        "you like). --config.FIELD=VALUE sets a field for all trials.",
        package="launch",
    )
    add = flags.add_argument
    commands.add_config_flag(flags)
    add("--workdir", required=True, type=commands.expanded, metavar="DIR", help="the folder of the study and its runs")
    add(
        "--trials",
        required=True,
        type=commands.positive,
        metavar="N",
        help="trials in all, those of earlier starts included",
    )
    add("--decide", required=True, metavar="FIGURE[:lower]", help="the figure to search by, such as test/accuracy")
    add("--sampler", choices=SAMPLERS, default="tpe", help="what suggests values (tpe)")
    add("--seed", type=commands.whole_number(0), default=0, metavar="N", help="of the sampler (0)")
    add("--prune", choices=PRUNERS, default="none", help="median: end runs that are below the median of those before")
    add("--pictures", action="store_true", help="each run draws its report/")
    local = flags.add_argument_group("runs on this machine")
    add = local.add_argument
    add("--workers", type=int, default=1, metavar="N", help="runs at once (1); one a GPU, or a part of the cores each")
    add("--retries", type=int, default=1, metavar="N", help="times that a run that failed is started again (1)")
    add("--stop-after-failures", type=int, default=3, metavar="N", help="failures after which no trial is started (3)")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 if all trials are finished, 75 if it was stopped, else 1."""
    flags_of = parser()
    texts, rest = sweep.split_sweep(list(sys.argv[1:] if argv is None else argv), flags_of.error, PREFIX)
    flags, overrides = commands.parsed(flags_of, rest)
    return commands.status_of(lambda: start(flags, overrides, texts), flags.traceback)


def start(flags: argparse.Namespace, overrides: Mapping[str, str], texts: Mapping[str, str]) -> int:
    """Checks the search, writes it down, or finds it there, and runs its trials."""
    from launch import description, journal, local, plan, state, study, trials

    places = local.slots(flags.workers)
    description.require(flags.sampler)
    search = asked(flags, overrides, texts)
    check(search)
    description.write(search, flags.workdir)
    with study.Study(search, flags.workdir) as opened:
        outcome = trials.Trials(
            opened,
            flags.trials,
            places,
            retries=flags.retries,
            stop_after_failures=flags.stop_after_failures,
            pictures=flags.pictures,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        ).run()
        print(state.table(state.states(plan.read(flags.workdir), flags.workdir), search.deciding.figure))
        print(journal.summary(opened.trials(), search.deciding))
        left = opened.unfinished()
    if outcome.signal is not None:
        print(f"stopped by {outcome.signal}; the same command goes on", file=sys.stderr)
        return sweep.INTERRUPTED
    return 1 if outcome.failed or left else 0


def asked(flags: argparse.Namespace, overrides: Mapping[str, str], texts: Mapping[str, str]) -> Search:
    """The search that the command line asks for.

    Raises:
      ConfigError: an unknown field, values that can't be read, a space that the sampler can't search.
    """
    from launch import plan, space
    from launch.description import Search

    decided = sweep.deciding(flags.decide)
    if decided is None or not decided.figure:
        raise ConfigError("--decide needs a figure, such as test/accuracy")
    wanted = space.make(flags.config, texts, overrides)
    space.check_sampler(wanted, flags.sampler)
    code = plan.code(flags.config)
    return Search(flags.config, code, dict(overrides), wanted, decided, flags.sampler, flags.seed, flags.prune)


def check(search: Search) -> None:
    """Builds the run of the first suggestion, before anything is written.

    Raises:
      ConfigError: values that the experiment refuses, a field that nothing reads, a figure that no evaluation gives.
      DataError: if the data can't be opened.
    """
    from jaxvision.run import config
    from launch import study, trials

    member = trials.member_of(search, study.suggestion(search, []).params)
    known = config.build(search.experiment, member.overrides).experiment.evaluations
    evaluation = search.deciding.figure.partition("/")[0]
    if evaluation not in known:
        figure = search.deciding.figure
        raise ConfigError(
            f"--decide={figure}: there is no evaluation {evaluation!r}{nearest(evaluation, sorted(known))}"
        )


if __name__ == "__main__":
    commands.enter(main)
