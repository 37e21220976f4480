"""Runs a sweep: every combination of the values given, with every seed; the same command goes on with what is not done.

python -m launch.sweep --config=experiments/quickstart.py --workdir=sweeps/rates --sweep.learning_rate=1e-3,1e-2 --seeds=0,1,2

An experiment file may hold a sweep of its own: `get_sweep()` gives a list of changes, such as `values.grid({...})` does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxvision import commands
from jaxvision.errors import ConfigError
from jaxvision.machine.signals import INTERRUPTED
from launch import backends

if TYPE_CHECKING:
    from launch import local
    from launch.command import Command
    from launch.plan import Deciding, Plan
    from launch.together.running import Together
    from launch.values import Change

PREFIX = "--sweep."
UNCHANGED = "as it is"
"""The name of the variant that changes nothing."""
WAYS = ("no", "auto", "turns", "vmap", "unroll")
"""How the runs of a plan share a process; without, each has one of its own."""


def parser_of(name: str, description: str) -> argparse.ArgumentParser:
    """The flags that a sweep and an ablation share."""
    parser = commands.new_parser(name, description, package="launch")
    commands.add_config_flag(parser)
    parser.add_argument(
        "--workdir", required=True, type=commands.expanded, metavar="DIR", help="the folder of the plan and its runs"
    )
    parser.add_argument("--seeds", type=numbers, default=(), metavar="0,1,2", help="values of config.seed")
    parser.add_argument(
        "--decide",
        metavar="FIGURE[:lower]",
        help="the figure that decides, fixed before the first run, such as test/accuracy, or test/log_loss:lower",
    )
    parser.add_argument("--extend", action="store_true", help="add these runs to the plan in DIR, and keep its own")
    parser.add_argument("--dry-run", action="store_true", help="resolve and check the plan, print it, start nothing")
    parser.add_argument("--pictures", action="store_true", help="each run draws its report/")
    local = parser.add_argument_group("runs on this machine")
    local.add_argument("--workers", type=int, metavar="N", help="runs at once; one a GPU, or one on all cores")
    local.add_argument(
        "--retries", type=int, default=1, metavar="N", help="times that a run that failed is started again (1)"
    )
    local.add_argument(
        "--stop-after-failures", type=int, default=3, metavar="N", help="failed runs after which none is started (3)"
    )
    local.add_argument(
        "--together",
        choices=WAYS,
        default="no",
        help="no: each run in a process of its own; else all in this one, those that differ in nothing but constants of "
        "their training step under one compiled program: turns, one after another; vmap and unroll, step by step together; "
        "auto measures which is the fastest (no)",
    )
    backends.add_flags(parser)
    return parser


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers between commas, not negative.

    Raises:
      argparse.ArgumentTypeError: for anything else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r} are no seeds, which are whole numbers between commas, such as 0,1,2"
        )
    return tuple(map(int, parts))


def split_sweep(
    argv: Sequence[str], error: Callable[[str], object], prefix: str = PREFIX
) -> tuple[dict[str, str], list[str]]:
    """Takes `--sweep.FIELD=VALUES`, or what begins with another prefix, out of the arguments."""
    sweep, rest = {}, []
    for argument in argv:
        if not argument.startswith(prefix):
            rest.append(argument)
            continue
        field, equals, text = argument.removeprefix(prefix).partition("=")
        if not equals:
            error(f"{argument} needs values: {argument}=VALUE,VALUE")
        if field in sweep:
            error(
                f"{prefix}{field} is given twice; its values go into one, between commas: {prefix}{field}=VALUE,VALUE"
            )
        sweep[field] = text
    return sweep, rest


def deciding(text: str | None) -> Deciding | None:
    """The figure of `--decide`.

    Raises:
      ConfigError: for a direction other than higher and lower.
    """
    from launch.plan import Deciding

    if text is None:
        return None
    figure, _, better = text.partition(":")
    if better not in ("", "higher", "lower"):
        raise ConfigError(f"--decide={text}: {better!r} is no direction; allowed: higher, lower")
    return Deciding(figure, "lower" if better == "lower" else "higher")


def swept(texts: Mapping[str, str], pairs: Sequence[str], count: int | None, seed: int) -> list[Change]:
    """The changes that the command line asks for.

    Args:
      texts: field to its values, as text.
      pairs: fields whose values go together, between `+`.
      count: of random draws; needed where a field has a distribution.
      seed: of the draws.

    Raises:
      ConfigError: values that can't be read, a paired field without values, distributions without a number of draws.
    """
    from launch import values

    given = {field: values.parse(field, text) for field, text in texts.items()}
    lists = {field: choices for field, choices in given.items() if isinstance(choices, list)}
    if count is not None:
        return values.random(given, count, seed)
    if drawn := sorted(set(given) - set(lists)):
        raise ConfigError(f"the sweep of {drawn[0]} is a distribution; --random=N says how many draws of it")
    groups = []
    for pair in pairs:
        fields = pair.split("+")
        if missing := [field for field in fields if field not in lists]:
            raise ConfigError(f"--pair={pair}: there is no --sweep.{missing[0]}")
        groups.append(values.paired({field: lists.pop(field) for field in fields}))
    return values.product(*groups, values.grid(lists))


def named(changes: Sequence[Change]) -> dict[str, Change]:
    """The changes by names that say what they set."""
    fields = {field for change in changes for field in change}
    last = [field.rpartition(".")[2] for field in fields]
    short = {field: name if last.count(name) == 1 else field for field, name in zip(fields, last, strict=True)}
    names = [",".join(f"{short[field]}={value}" for field, value in change.items()) or UNCHANGED for change in changes]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ConfigError(f"the sweep has {repeated[0]!r} twice")
    return dict(zip(names, changes, strict=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 if all runs are done, 75 if it was stopped, else 1."""
    parser = parser_of("sweep", "Run every combination of values of config fields; the same command goes on.")
    parser.add_argument("--pair", action="append", default=[], metavar="FIELD+FIELD", help="values that go together")
    parser.add_argument("--random", type=int, metavar="N", help="N random draws in place of all combinations")
    parser.add_argument("--random-seed", type=int, default=0, metavar="N", help="of the draws (0)")
    parser.epilog = (
        "--sweep.FIELD=VALUE,VALUE names the values of a field (as often as you like), or with --random "
        "--sweep.FIELD='uniform(0, 0.5)' or 'log_uniform(1e-4, 1e-1)'. --config.FIELD=VALUE sets a field for all runs."
    )
    sweep, rest = split_sweep(list(sys.argv[1:] if argv is None else argv), parser.error)
    flags, overrides = commands.parsed(parser, rest)
    return commands.status_of(lambda: start(flags, overrides, sweep), flags.traceback)


def start(flags: argparse.Namespace, overrides: Mapping[str, str], sweep: Mapping[str, str]) -> int:
    """Plans the sweep and runs it."""
    from launch import plan

    backends.check(flags)
    if sweep:
        changes = swept(sweep, flags.pair, flags.random, flags.random_seed)
    else:
        changes = sweep_of(flags.config, seeds=bool(flags.seeds))
    made = plan.make(flags.config, named(changes), flags.seeds, overrides, deciding(flags.decide))
    return run(made, flags)


def sweep_of(experiment: Path, seeds: bool = False) -> Sequence[Change]:
    """The sweep that an experiment file holds; one that changes nothing if it holds none and there are seeds.

    Raises:
      ConfigError: if it holds none.
    """
    from jaxvision.run import config

    get_sweep = getattr(config.load(experiment), "get_sweep", None)
    if get_sweep is None and seeds:
        return [{}]
    if get_sweep is None:
        raise ConfigError(
            f"the sweep is empty: no --sweep.FIELD=VALUE,VALUE and no --seeds are given, and {experiment} has no get_sweep()"
        )
    return get_sweep()


def run(made: Plan, flags: argparse.Namespace) -> int:
    """Writes the plan, or finds it there, and runs what is not done; returns the exit status."""
    from launch import plan, state
    from launch.command import command
    from launch.together import sameness

    asked = backends.resources(flags)
    told = None if flags.backend == backends.LOCAL else backends.settings(flags, say)
    if told is not None and flags.together != "no":
        raise ConfigError(
            f"--together={flags.together} runs all in this process; --backend={flags.backend} needs --together=no"
        )
    new = not (flags.workdir / plan.FILE).exists()
    if flags.extend and not new:
        made = plan.extend(plan.read(flags.workdir), made, flags.workdir)
    elif not flags.dry_run:
        plan.write(made, flags.workdir)
    if new or flags.extend:
        for line in sameness.warnings(made):
            print(line, file=sys.stderr, flush=True)
    figure = None if made.deciding is None else made.deciding.figure
    if flags.dry_run:
        print(state.table(state.states(made, flags.workdir), figure))
        return 0
    folder = flags.workdir if told is None else flags.workdir.absolute()
    runs = [command(made, member, folder, report=flags.pictures, resources=asked) for member in made.members]
    if told is not None:
        status = backends.start(runs, folder, flags.backend, told)
        print(state.table(state.states(made, flags.workdir), figure))
        return status
    pool = pool_of(made, runs, flags)
    outcome = pool.run()
    print(state.table(state.states(made, flags.workdir), figure))
    if outcome.signal is not None:
        print(f"stopped by {outcome.signal}; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    return 1 if outcome.failed or outcome.left else 0


def pool_of(made: Plan, runs: Sequence[Command], flags: argparse.Namespace) -> local.Pool | Together:
    """What runs the members of a plan on this machine.

    Raises:
      ConfigError: if there are not so many workers as asked for, or more than one where runs share a process.
    """
    from launch import local

    logs = flags.workdir / local.LOGS
    failures = {"retries": flags.retries, "stop_after_failures": flags.stop_after_failures}
    if flags.together == "auto" and len(gpus := local.gpus()) > 1:
        say(f"--together=auto: {len(gpus)} GPUs run as many members at once, each in a process of its own")
        flags.together = "no"
    if flags.together == "no":
        return local.Pool(runs, local.slots(flags.workers), logs, say=say, **failures)
    if flags.workers not in (None, 1):
        raise ConfigError(
            f"--together={flags.together} runs all in one process; --workers={flags.workers} needs --together=no"
        )
    from launch.together import running

    return running.Together(made, runs, logs, flags.together, report=flags.pictures, say=say, **failures)


def say(line: str) -> None:
    """Tells a person what happens, at once."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    commands.enter(main)
