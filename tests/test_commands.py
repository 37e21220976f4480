"""The list of the commands, and what all of them say to errors."""

import argparse
import asyncio
import importlib
import importlib.util
import os
import re
import runpy
import signal
import sys
import time
import tomllib
from pathlib import Path

import pytest

from jaxvision import __main__ as listed
from jaxvision import commands
from jaxvision.machine.signals import Stopped, deferred, stoppable

ROOT = Path(listed.__file__).parent


def test_every_command_is_listed(capsys):
    assert listed.main([]) == 0
    told = capsys.readouterr().out
    having = [path for path in ROOT.rglob("*.py") if "commands.enter(main)" in path.read_text("utf-8")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__") for path in having}
    assert names == set(listed.COMMANDS)
    assert all(f"  {name} " in told for name in names)


def test_no_command_is_told_from_the_list(capsys):
    assert listed.main(["trian"]) == 2
    assert "there is no command 'trian'" in capsys.readouterr().err


def test_a_command_is_run_by_its_name(monkeypatch):
    ran = []
    monkeypatch.setattr(runpy, "run_module", lambda name, **options: ran.append((name, sys.argv[1:], options)))
    monkeypatch.setattr(sys, "argv", ["jaxvision", "evaluate", "--workdir=a b"])
    assert listed.main() == 0
    options = {"run_name": "__main__", "alter_sys": True}
    assert ran == [("jaxvision.evaluate", ["--workdir=a b"], options)]


def test_the_console_script_is_the_list():
    scripts = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["jaxvision"].partition(":")
    assert importlib.util.find_spec(module).origin == listed.__file__
    assert callable(getattr(listed, function))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("can't start new thread"), "no further thread can be started; allow more"),
        (MemoryError(), "there is not enough memory"),
        (MemoryError("Unable to allocate 7 TiB"), "Unable to allocate 7 TiB"),
    ],
)
def test_what_the_machine_refuses_is_told_in_one_line(capsys, error, told):
    def run():
        raise error

    assert commands.status_of(run) == 2
    assert told in capsys.readouterr().err


def test_an_address_is_refused_by_a_flag_for_a_path(capsys):
    parser = commands.new_parser("x", "", "")
    commands.add_run_flags(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--workdir=gs://bucket/run"])
    assert "gs://bucket/run is an address" in capsys.readouterr().err


def test_a_command_line_that_does_not_fit_is_told_in_one_line(capsys):
    parser = commands.new_parser("main", "Trains.", "")
    parser.add_argument("--count", type=int)
    with pytest.raises(SystemExit) as ended:
        commands.parsed(parser, ["--count=x"])
    told = capsys.readouterr().err
    assert (ended.value.code, told.count("\n")) == (2, 1)
    assert told.startswith("jaxvision: argument --count: invalid int value: 'x' (python -m jaxvision.main --help")


@pytest.mark.parametrize(
    ("read", "taken", "refused"),
    [
        (
            commands.positive,
            {"1": 1, "007": 7},
            dict.fromkeys(("0", "-1", "1.0", "²", ""), "no whole number from 1 on"),
        ),
        (commands.whole_number(2, 1_000), {"2": 2, "1000": 1000}, {"1": "from 2 to 1,000", "1001": "from 2 to 1,000"}),
        (
            commands.fraction,
            {"0": 0, "1": 1, ".5": 0.5},
            dict.fromkeys(("1.01", "-1", "nan", "x"), "no number from 0 to 1"),
        ),
        (commands.names, {"a": ("a",), "a, b c": ("a", "b c")}, {"": "an empty name", "a,,b": "an empty name"}),
        (
            commands.output_ending(".a", ".b"),
            {"x.a": Path("x.a")},
            {"x.A": "must end in .a or .b", "no/x.a": "no folder"},
        ),
        (commands.output_ending(".a", any_case=True), {"x.A": Path("x.A")}, {"x.b": "must end in .a"}),
        (commands.read_by(int), {"3": 3}, {"x": "invalid literal for int() with base 10: 'x'"}),
    ],
)
def test_what_a_flag_takes_and_what_it_refuses(read, taken, refused):
    assert {text: read(text) for text in taken} == taken
    for text, message in refused.items():
        with pytest.raises(argparse.ArgumentTypeError, match=re.escape(message)):
            read(text)


NO_CONFIG = (
    *("annotate doubts", "annotate next", "annotate gallery", "annotate review", "annotate calibrate"),
    *("launch.compare", "launch.report", "launch.status", "launch.cancel"),
)


@pytest.mark.parametrize("name", NO_CONFIG)
def test_commands_without_a_config_refuse_its_fields(name, capsys):
    package, _, command = name.rpartition(" ")
    module = importlib.import_module("jaxvision.annotate.__main__" if package else name)
    with pytest.raises(SystemExit) as ended:
        module.main([*([command] if package else []), *ARGUMENTS[command], "--config.steps=3"])
    assert ended.value.code == 2
    assert f"--config.steps: {command} sets no field of a config" in capsys.readouterr().err


ARGUMENTS = {
    "doubts": ["data", "--workdir=run", "--output=a.csv"],
    "next": ["labels"],
    "gallery": ["labels", "--output=a.html"],
    "review": ["labels"],
    "calibrate": ["labels", "--truth=data"],
    "launch.compare": ["one", "other"],
    "launch.report": ["plan"],
    "launch.status": ["plan"],
    "launch.cancel": ["plan"],
}


def test_what_takes_a_while_is_told_on_a_terminal_alone(capsys, monkeypatch):
    commands.under_way("compiling")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    commands.under_way("compiling")
    assert capsys.readouterr().err == "jaxvision: compiling\n"


def test_sigterm_in_a_callback_of_an_event_loop_ends_what_waits_for_it():
    async def waiting():
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        await asyncio.sleep(5)

    with pytest.raises(Stopped, match="SIGTERM"), stoppable():
        asyncio.run(waiting())


def test_deferred_signals_come_when_the_block_is_done():
    seen = []

    def told_to_end():
        with deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            seen.append("block")
        seen.append("after")

    with pytest.raises(Stopped, match="SIGTERM"), stoppable():
        told_to_end()
    assert seen == ["block"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
