"""Backends: chosen, refused, imported only when asked for; the script for a slice of TPUs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxvision.errors import ConfigError
from launch import backends, sweep, tpu
from launch.backends import Settings
from launch.command import Command, Resources

TINY = Path(__file__).parent / "tiny_experiment.py"
ROOT = TINY.parent.parent
HEAVY = {"submitit", "ray", "kubernetes_validate", "jsonschema", "yaml", "optuna"}


def flags(*more):
    return sweep.parser_of("sweep", "").parse_args(["--config=a.py", "--workdir=b", *more])


def test_importing_launch_imports_no_backend():
    names = sorted(path.stem for path in (ROOT / "launch").glob("*.py"))
    code = "import importlib, sys\n"
    code += f"for name in {names!r}: importlib.import_module('launch' if name == '__init__' else 'launch.' + name)\n"
    code += f"found = {HEAVY - {'yaml'}!r} & set(sys.modules)\nassert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=ROOT)


def test_the_parser_imports_no_backend_and_nothing_heavy():
    code = "import sys, launch.sweep as s\ns.parser_of('sweep', '').parse_args(['--config=a', '--workdir=b'])\n"
    code += f"found = {HEAVY | {'jax', 'numpy'}!r} & set(sys.modules)\nassert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)


@pytest.mark.parametrize(("name", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_backend_that_is_not_installed_names_its_extra(tmp_path, name, package):
    code = (
        f"import sys; sys.modules[{package!r}] = None\nimport launch.sweep\nsys.exit(launch.sweep.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, f"--config={TINY}", f"--workdir={tmp_path}/s", f"--backend={name}"]
    done = subprocess.run(
        [*command, "--sweep.learning_rate=0.1"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert f"pip install 'jaxvision[{name}]'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--nodes=2"], "--nodes is for a scheduler: say which by --backend="),
        (["--option", "partition=a"], "--option is for a scheduler"),
        (["--backend=slurm", "--nodes=0"], "--nodes=0: it must be 1 or more"),
        (["--backend=slurm", "--gpus=-1"], "--gpus=-1: it must be 0 or more"),
        (["--backend=slurm", "--memory=0"], "--memory=0.0: it must be above 0"),
        (["--backend=slurm", "--groups=2"], "--backend=slurm has no use for --groups; it takes --nodes, --gpus"),
        (["--backend=tpu", "--minutes=5"], "--backend=tpu has no use for --minutes; it takes --nodes"),
    ],
)
def test_resources_that_do_not_fit(given, message):
    with pytest.raises(ConfigError, match=message):
        backends.resources(flags(*given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--backend=tpu", "--option", "name=a"], r"needs --option zone=... \(that it is in\)"),
        (["--backend=tpu", "--option", "nam=a"], "no option 'nam'; did you mean 'name'"),
        (["--backend=tpu", "--option", "name"], "--option name needs a value"),
    ],
)
def test_options_that_do_not_fit(given, message):
    with pytest.raises(ConfigError, match=message):
        backends.settings(flags(*given), print)


def test_what_a_backend_takes():
    asked = backends.resources(flags("--backend=kubernetes", "--nodes=2", "--groups=3", "--gpus=8", "--memory=1.5"))
    assert asked == Resources(nodes=2, groups=3, gpus=8, memory=1.5)
    assert asked.machines == 6
    told = backends.settings(flags("--backend=tpu", "--option", "name=a", "--option", "zone=b=c", "--retries=4"), print)
    assert (told.options, told.retries) == ({"name": "a", "zone": "b=c"}, 4)


@pytest.fixture
def slice_of_workers(tmp_path):
    """Runs a script where `gcloud` writes its arguments down, and does what --command says, as a worker would."""
    (tmp_path / "gcloud").write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@" >>"$NOTES"\nfor last in "$@"; do :; done\nexec sh -c "${last#--command=}"\n'
    )
    (tmp_path / "gcloud").chmod(0o755)
    notes = tmp_path / "notes"

    def run(script):
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "NOTES": str(notes)}
        done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, notes.read_text().splitlines()

    return run


def test_the_script_for_tpus_starts_each_run_on_all_workers(slice_of_workers, tmp_path):
    code = "import os, sys; print(os.environ['A'], os.getcwd(), sys.argv[1:])"
    arguments = ("python3", "-c", code, '--config.text=it\'s "$HOME" $(id) `id`; #', "--config.channels=(4, 4)")
    run = Command("a", arguments, tmp_path, {"A": "two words"}, Resources(nodes=4))
    options = {"name": "slice", "zone": "z", "project": "p", "directory": str(tmp_path), "python": sys.executable}
    status, out, said = slice_of_workers(tpu.script([run, run], Settings(options)))
    assert status == 0
    assert out.splitlines() == [f"two words {tmp_path} {[*arguments[3:], '--distributed']}"] * 2
    place = ["slice", "--zone=z", "--project=p", "--worker=all"]
    assert said[:9] == ["compute", "tpus", "tpu-vm", "ssh", *place, said[8]]
    assert said[8].startswith("--command=cd ")


def test_the_script_for_tpus_tries_again_and_stops_after_failures(slice_of_workers, tmp_path):
    runs = [Command(name, ("python3", "-c", f"print({name!r}); exit(2)"), tmp_path, {}) for name in "abc"]
    told = Settings({"name": "s", "zone": "z", "python": sys.executable}, retries=1, stop_after_failures=2)
    status, out, _ = slice_of_workers(tpu.script(runs, told))
    assert (status, out.split()) == (1, ["a", "a", "b", "b"])
    status, out, _ = slice_of_workers(tpu.script(runs[:1], told))
    assert (status, out.split()) == (1, ["a", "a"])
