"""An experiment's own modules: found beside its file, kept with the run, compared when it goes on."""

import sys

import numpy as np
import pytest
from finished_run import TINY

from jaxvision import run
from jaxvision.errors import WorkdirError
from jaxvision.run import config
from jaxvision.run.own_modules import own_modules

EXPERIMENT = """
from mynets.rates import RATE
from rule import scaled


def get_config():
    from tiny import get_config

    return get_config()


def build(config):
    from tiny import build

    return build(config)._replace(scalars={"rate": lambda step: scaled(RATE)})
"""


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """An experiment file with two modules and a package beside it; Python finds none of them by itself."""
    folder = tmp_path / "mine"
    (folder / "mynets").mkdir(parents=True)
    (folder / "mynets" / "__init__.py").write_text("")
    (folder / "mynets" / "rates.py").write_text("RATE = 3\n")
    (folder / "rule.py").write_text("import json\n\n\ndef scaled(x):\n    return 2 * x\n")
    (folder / "json.py").write_text("raise RuntimeError('this is not the json of Python')\n")
    (folder / "unused.py").write_text("raise RuntimeError('nobody imports this')\n")
    (folder / "tiny.py").write_text(TINY.read_text())
    (folder / "experiment_of_mine.py").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    yield folder / "experiment_of_mine.py"
    for name in ("tiny", "rule", "mynets", "mynets.rates"):
        sys.modules.pop(name, None)


def trained(experiment, workdir, steps):
    fields = {"steps": str(steps), "log": "1", "evaluate": "2", "checkpoint": "2"}
    chosen, recipe = config.build(experiment, fields)
    run.train(
        chosen._replace(steps=steps), workdir, recipe._replace(config={**recipe.config, "steps": 4}), report=False
    )
    return chosen


def test_what_is_imported_from_beside_the_file_is_found_and_nothing_else(experiment):
    folder = experiment.parent
    assert own_modules(experiment) == {
        "mynets": folder / "mynets" / "__init__.py",
        "mynets.rates": folder / "mynets" / "rates.py",
        "rule": folder / "rule.py",
        "tiny": folder / "tiny.py",
    }


def test_they_go_with_the_run_and_their_change_is_noticed(experiment, tmp_path):
    workdir = tmp_path / "run"
    assert trained(experiment, workdir, 2).scalars["rate"](0) == 6
    kept = {str(path.relative_to(workdir / "code")) for path in (workdir / "code").rglob("*.py")}
    assert kept == {"mynets/__init__.py", "mynets/rates.py", "rule.py", "tiny.py"}

    rule = experiment.with_name("rule.py")
    before = rule.read_text()
    rule.write_text(before.replace("2 * x", "5 * x"))
    with pytest.raises(WorkdirError, match=r"the code of .*mine/rule\.py is not that of .*code/rule\.py"):
        trained(experiment, workdir, 4)
    (record,) = run.load(workdir).predict([np.zeros((28, 28), np.uint8)])  # by what the run kept
    assert record["classes"]
    assert config.load(workdir / "experiment.py").scaled(1) == 2
    assert config.load(experiment).scaled(1) == 5

    rule.write_text(f"# a comment\n{before}")
    trained(experiment, workdir, 4)


def test_a_module_that_python_finds_from_here_is_the_experiments_own_all_the_same(experiment, monkeypatch):
    monkeypatch.syspath_prepend(experiment.parent)
    assert set(own_modules(experiment)) == {"mynets", "mynets.rates", "rule", "tiny"}
