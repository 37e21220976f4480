"""What the commands share: flags and what they take, and the user's errors in one line."""

from __future__ import annotations

import argparse
import logging
import math
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

from jaxvision.errors import AnotherProcessFailed, UserError, closest, cut, printable
from jaxvision.machine import eigen, huge_pages
from jaxvision.machine.folders import local
from jaxvision.machine.output import outlast
from jaxvision.machine.signals import TOLD_TO_END, Stopped, leave_at_once, stoppable

T = TypeVar("T")
LONGEST = 1_000
"""Characters of a message; of a longer one, the middle is left out."""


def status_of(
    run: Callable[[], int],
    traceback: bool = False,
    leave: Callable[[int, str], object] | None = None,
    terminated: int = 128 + 15,
) -> int:
    """Runs a command; returns its exit status: 2 after an error that is the user's to mend, 130 after Ctrl-C.

    Args:
      run: the command; returns its exit status.
      traceback: raise such an error instead of telling it in one line.
      leave: where this may be one of several processes: called with the status after an error, and what to say of it to the
        others, if anything, to end this one without waiting for them.
      terminated: the status after SIGTERM.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("jaxvision: %(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs every save, and errors that it raises as well
    why = ""
    try:
        with stoppable():
            return run()
    except KeyboardInterrupt:
        print("jaxvision: interrupted", file=sys.stderr)
        status = 130
    except Stopped as error:
        print(f"jaxvision: ended by {error.name}", file=sys.stderr)
        status = terminated
    except Exception as error:
        text = message(error)
        why = "" if isinstance(error, AnotherProcessFailed) else text or f"{type(error).__name__}: {error}"
        if text is None or traceback:
            if leave is None:
                raise
            sys.excepthook(type(error), error, error.__traceback__)
            status = 1
        else:
            print(f"jaxvision: {text}", file=sys.stderr)
            status = 2
    if leave is not None:
        leave(status, why)
    return status


class OneLine(logging.Formatter):
    """Records as lines of text: what steers a terminal is escaped, line breaks too."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback if there is one."""
        record.message = one_line(record.getMessage())
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        return "\n".join(filter(None, [self.formatMessage(record), trace]))


def one_line(text: str) -> str:
    """The text as one line for a terminal, of a length that can be read."""
    return cut(printable(" ".join(text.split())), LONGEST)


def message(error: Exception) -> str | None:
    """What to say of an error in place of a traceback; None where that would hide an error of the program."""
    if isinstance(error, UserError | OSError | MemoryError):
        return one_line(str(error)) or "there is not enough memory"
    if "can't start new thread" in str(error):
        return "no further thread can be started; allow more (ulimit -u, a container's limit of pids), or memory (ulimit -v)"
    return None


def tell_errors_once() -> None:
    """Where a file of a checkpoint fails, Orbax raises the error and its threads print it too."""

    def thread(args: threading.ExceptHookArgs) -> None:
        if getattr(args.thread, "_exception", None) is None:  # else the thread keeps it for the one who waits for it
            threading.__excepthook__(args)

    def unraisable(args: sys.UnraisableHookArgs) -> None:
        if str(args.exc_value) != "Event loop is closed" and not _thrown_away(args):
            sys.__unraisablehook__(args)

    threading.excepthook = thread
    sys.unraisablehook = unraisable
    warnings.filterwarnings(
        "ignore", r"coroutine '_?(async_)?(read|deserialize)[\w.<>]*' was never awaited", RuntimeWarning
    )


def _thrown_away(args: sys.UnraisableHookArgs) -> bool:
    """Whether it is of a read of Orbax's that nobody waits for any more, since another one failed: that error is raised."""
    code, error = getattr(args.object, "cr_code", None), args.exc_value
    if code is None or "orbax" not in Path(code.co_filename).parts or error is None:
        return False
    return isinstance(error.__cause__ or error.__context__ or error, GeneratorExit)


def under_way(text: str) -> None:
    """Says on a terminal what takes a while now; what is written into a file or a pipe stays as it was."""
    if sys.stderr.isatty():
        print(one_line(f"jaxvision: {text}"), file=sys.stderr, flush=True)


def enter(main: Callable[[], int]) -> NoReturn:
    """Runs a command as all that this process does, and ends the process with its exit status."""
    huge_pages.ask()
    eigen.ask()
    outlast()
    tell_errors_once()
    status = main()
    if status in TOLD_TO_END:
        leave_at_once(status)
    sys.exit(status)


def expanded(text: str) -> Path:
    """The path that a flag gives, `~` as the home folder.

    Raises:
      argparse.ArgumentTypeError: for an address, or `~` without a home folder.
    """
    return read_by(local)(text)


def read_by(read: Callable[[str], T]) -> Callable[[str], T]:
    """The type of a flag that `read` reads; what that refuses with a ValueError is told in its own words."""

    def value(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return value


def split_overrides(argv: Sequence[str], error: Callable[[str], object]) -> tuple[dict[str, str], list[str]]:
    """Takes `--config.FIELD=VALUE` and `--config.FIELD VALUE` out of the arguments.

    Args:
      argv: the command line.
      error: called for a field without a value; doesn't return.
    """
    fields, rest, arguments = {}, [], iter(argv)
    for argument in arguments:
        if not argument.startswith("--config."):
            rest.append(argument)
            continue
        field, equals, value = argument.removeprefix("--config.").partition("=")
        if not equals:
            value = next(arguments, None)
            if value is None:
                error(f"--config.{field} needs a value")
        fields[field] = value
    return fields, rest


def output(text: str) -> Path:
    """The file that a flag names for output: the folder that it is to be in must be there.

    Raises:
      argparse.ArgumentTypeError: if it is not.
    """
    path = expanded(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent} to write {path.name} into")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder, not a file")
    return path


def output_folder(text: str) -> Path:
    """The folder that a flag names for output.

    Raises:
      argparse.ArgumentTypeError: if it is neither there nor can be made in one that is.
    """
    path = expanded(text)
    if not path.is_dir() and (path.exists() or not path.parent.is_dir()):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a folder nor one that can be made")
    return path


def output_ending(*endings: str, any_case: bool = False) -> Callable[[str], Path]:
    """The type of a flag that names a file for output, as `output`, whose name ends in one of these: `.csv`, say."""

    def named(text: str) -> Path:
        path = output(text)
        if (path.suffix.lower() if any_case else path.suffix) not in endings:
            raise argparse.ArgumentTypeError(f"{text!r} must end in {' or '.join(endings)}")
        return path

    return named


def whole_number(least: int, most: float = math.inf) -> Callable[[str], int]:
    """The type of a flag that takes a whole number, not negative, within these bounds."""
    allowed = f"from {least} on" if most == math.inf else f"from {least} to {most:,}"

    def number(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number {allowed}")
        return int(text)

    return number


positive = whole_number(1)
"""The whole number from 1 on that a flag gives."""


def fraction(text: str) -> float:
    """The number from 0 to 1 that a flag gives: a score, a probability.

    Raises:
      argparse.ArgumentTypeError: for anything else.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return number


def names(text: str) -> tuple[str, ...]:
    """The names that a flag gives, with commas between; spaces around them are none of theirs.

    Raises:
      argparse.ArgumentTypeError: for an empty one.
    """
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name; allowed are names with commas between")
    return found


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong with a command line."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with status 2."""
        self.exit(2, f"jaxvision: {' '.join(message.split())} ({self.prog} --help lists the flags)\n")


def new_parser(name: str, description: str, epilog: str = "", package: str = "jaxvision") -> argparse.ArgumentParser:
    """The parser of `python -m <package>.<name>`, which has `--traceback`; `parsed` uses it."""
    parser = Parser(prog=f"python -m {package}.{name}", description=description, epilog=epilog, allow_abbrev=False)
    parser.add_argument("--traceback", action="store_true", help="show where an error arose, not only what it is")
    return parser


def parsed(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, intermixed: bool = False
) -> tuple[argparse.Namespace, dict[str, str]]:
    """The flags, and the overrides of the config; ends the process where they don't fit.

    Args:
      parser: of the flags that are no overrides.
      argv: the command line; None for that of this process.
      intermixed: whether paths may stand between the flags.
    """
    overrides, rest = split_overrides(sys.argv[1:] if argv is None else argv, parser.error)
    options = {option for action in parser._actions for option in action.option_strings}
    for argument in rest:
        if argument.startswith("--") and argument.partition("=")[0] not in options:
            parser.error(_not_known(argument, parser))  # before what is missing: it may be the same flag
    known, unknown = (parser.parse_known_intermixed_args if intermixed else parser.parse_known_args)(rest)
    if unknown:
        parser.error(_not_known(unknown[0], parser))
    return known, overrides


def flags_of(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, intermixed: bool = False
) -> argparse.Namespace:
    """The flags of a command that takes no config, as `parsed`; ends the process for an override of one, too."""
    flags, overrides = parsed(parser, argv, intermixed)
    if overrides:
        parser.error(f"--config.{next(iter(overrides))}: {parser.prog.split()[-1]} sets no field of a config")
    return flags


def _not_known(argument: str, parser: argparse.ArgumentParser) -> str:
    """What a message says of an argument that is no flag."""
    name = argument.partition("=")[0]
    if not name.startswith("--"):
        return f"unrecognized argument {argument!r}"
    flags = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    near = closest(name, flags, likeness=0.75)
    advice = f"did you mean {near[0]}?" if near else f"a field of the config is set by --config.{argument.lstrip('-')}"
    return f"unrecognized flag {name}; {advice}"


def add_config_flag(parser: argparse.ArgumentParser) -> None:
    """`--config`, of a command that takes an experiment file."""
    parser.add_argument("--config", required=True, type=expanded, metavar="FILE", help="the experiment file")


def add_devices_flag(parser: argparse._ActionsContainer) -> None:
    """`--fsdp`, of a command that runs on all devices."""
    parser.add_argument("--fsdp", type=int, default=1, metavar="N", help="split parameters over N of the devices")


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a command that takes a finished run: `--workdir`, `--checkpoint`, `--weights`, `--fsdp`."""
    parser.add_argument("--workdir", required=True, type=expanded, metavar="DIR", help="the folder of the run")
    parser.add_argument(
        "--checkpoint",
        type=_checkpoint,
        metavar="best|latest|STEP",
        help="the step whose variables to take; the best if the experiment keeps one, else the latest",
    )
    parser.add_argument(
        "--weights",
        choices=("averaged", "current"),
        help="the average of the variables over the steps before, or those of the step; averaged if the run keeps such",
    )
    add_devices_flag(parser)


def _checkpoint(text: str) -> Literal["best", "latest"] | int:
    if text == "best" or text == "latest":
        return text
    if text.isascii() and text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is none of: best, latest, the number of a step")
