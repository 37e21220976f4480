"""An experiment's own modules: found beside its file, kept with the run, compared when it goes on."""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from finished_run import TINY

from jaxvision import run
from jaxvision.errors import WorkdirError
from jaxvision.run import config
from jaxvision.run.own_modules import load, own_modules, parsed

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


def files(folder, texts, experiment=""):
    """An experiment file and Python files beside it, each with its text, by their paths without the suffix."""
    for name, text in {**texts, "experiment_of_mine": experiment}.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "experiment_of_mine.py"


@pytest.fixture
def forgetting():
    """Leaves no module behind that a test has imported, and no way to."""
    before, finders = set(sys.modules), list(sys.meta_path)
    yield
    sys.meta_path[:] = finders
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_modules_that_a_package_imports_from_itself_are_found(tmp_path, forgetting):
    package = {
        "net/__init__": "from .layers import FACTOR\nfrom .inner.deep import DEEP\n",
        "net/layers": "from . import constants\nfrom .constants import ONE\n\nFACTOR = 2 * ONE\n",
        "net/constants": "ONE = 1\n",
        "net/unused": "raise RuntimeError('nobody imports this')\n",
        "net/inner/__init__": "",
        "net/inner/deep": "from ..layers import FACTOR\n\nDEEP = FACTOR + 1\n",
        "layers": "raise RuntimeError('another one')\n",
    }
    experiment = files(tmp_path, package, "from net import DEEP, FACTOR\n")
    assert set(own_modules(experiment)) == {
        *("net", "net.layers", "net.constants", "net.inner", "net.inner.deep"),
    }
    assert (load("experiment", experiment).FACTOR, load("experiment", experiment).DEEP) == (2, 3)
    (tmp_path / "net" / "constants.py").write_text("ONE = 5\n")
    assert load("experiment", experiment).DEEP == 11


def test_folders_without_an_init_file_are_packages_as_well(tmp_path, forgetting, monkeypatch):
    experiment = files(
        tmp_path / "a",
        {
            "ns/layers": "from .more import ONE\n\nFACTOR = 2 * ONE\n",
            "ns/more": "ONE = 1\n",
            "ns/deep/er": "from ..more import ONE\n",
        },
        "from ns.layers import FACTOR\nfrom ns import more\nimport ns.deep.er as er\n",
    )
    names = {"ns.layers", "ns.more", "ns.deep.er"}
    assert set(own_modules(experiment)) == names
    assert load("experiment", experiment).FACTOR == 2
    other = files(tmp_path / "b", {"ns/layers": "FACTOR = 7\n"}, "from ns.layers import FACTOR\n")
    assert (load("experiment", other).FACTOR, load("experiment", experiment).FACTOR) == (7, 2)
    for name in [name for name in sys.modules if name.partition(".")[0] == "ns"]:
        del sys.modules[name]
    monkeypatch.syspath_prepend(experiment.parent)  # as in a shell that was started there
    monkeypatch.chdir(tmp_path)
    assert set(own_modules(experiment)) == names


def test_a_module_that_can_not_be_imported_is_an_error_where_plain_python_has_one(tmp_path, forgetting):
    optional = "try:\n    import fast\nexcept ImportError:\n    fast = None\n\n\n"
    later = "def build():\n    import slow\n\n    return slow.ONE\n"
    counting = "import sys\n\nsys.tried = getattr(sys, 'tried', 0) + 1\n"
    experiment = files(
        tmp_path,
        {
            "fast": f"{counting}import a_package_that_nobody_has\n",
            "slow": "import another_that_nobody_has\n\nONE = 1\n",
        },
        optional + later,
    )
    assert set(own_modules(experiment)) == {"fast", "slow"}
    try:
        module = load("experiment", experiment)
        assert module.fast is None
        assert sys.tried == 1
    finally:
        del sys.tried
    with pytest.raises(ModuleNotFoundError, match="another_that_nobody_has"):
        module.build()
    files(tmp_path, {"slow": "ONE = 1\n"})
    assert module.build() == 1


def test_files_are_parsed_while_other_threads_parse():
    """Garbage is collected in the middle of parsing and calls Python (JAX does): another thread may go on."""
    file, threshold, interval = Path(config.__file__), gc.get_threshold(), sys.getswitchinterval()

    def collecting(*_):
        sum(range(10))

    gc.callbacks.append(collecting)
    try:
        gc.set_threshold(50)
        sys.setswitchinterval(1e-6)
        with ThreadPoolExecutor(4) as threads:
            trees = list(threads.map(parsed, [file] * 100))
    finally:
        gc.callbacks.remove(collecting)
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)
    assert {len(tree.body) for tree in trees} == {len(parsed(file).body)}
